//! Publishing: a bounded buffer in front of one driver task, which owns all state and speaks to the owners.

mod acks;
mod builder;
mod driver;
mod link;
mod partition;
mod place;
mod pump;
mod session;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::error::PublishError;
use super::message::{Message, payload_bytes};
use crate::pb::Durability;

pub use builder::PublisherBuilder;

/// Publishes to one topic. Messages of one partition are stored in the order in which they were handed over, also
/// across moves and reconnections. Dropping it gives up what is not acknowledged; [`Publisher::close`] waits for it.
#[derive(Debug)]
pub struct Publisher {
    commands: mpsc::Sender<Command>,
    buffer: Arc<Buffer>,
    stats: Arc<Counters>,
    driver: AbortOnDropHandle<()>,
}

/// A message with the caller's own number, which [`OnSettled`] gets back.
#[derive(Debug, Clone)]
pub struct Tagged {
    /// Anything.
    pub tag: u64,
    /// The message.
    pub message: Message,
}

/// Where a message was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its partition.
    pub partition: u32,
    /// Its offset if `exact`; otherwise that of a later message of the same publisher in the same acknowledgement:
    /// brokers acknowledge batches and name the last offset of each partition.
    pub offset: u64,
    /// Whether `offset` is this message's own.
    pub exact: bool,
    /// How safe it was when it was acknowledged.
    pub durability: Durability,
}

/// What became of one tagged message.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The caller's number.
    pub tag: u64,
    /// Where it was stored, or why it was not.
    pub result: Result<Stored, PublishError>,
}

/// Called by the publisher's task with messages that were settled, in batches. It must not block.
pub type OnSettled = Box<dyn FnMut(&[Settled]) + Send>;

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublisherStats {
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Of those, messages that had been stored before.
    pub duplicates: u64,
    /// Messages that failed.
    pub failed: u64,
    /// Messages sent again after a move, a throttling or a lost connection.
    pub resent: u64,
    /// Streams that broke or were refused.
    pub reconnects: u64,
    /// Answers that a partition moved.
    pub moves: u64,
    /// Answers that something was short.
    pub throttles: u64,
    /// Messages in the buffer or on the wire now.
    pub unacknowledged: u64,
}

#[derive(Debug, Default)]
struct Counters {
    acknowledged: AtomicU64,
    duplicates: AtomicU64,
    failed: AtomicU64,
    resent: AtomicU64,
    reconnects: AtomicU64,
    moves: AtomicU64,
    throttles: AtomicU64,
    unacknowledged: AtomicU64,
}

/// What the caller may hand over before it has to wait.
#[derive(Debug)]
struct Buffer {
    messages: Semaphore,
    bytes: Semaphore,
    max_messages: u32,
    max_bytes: u64,
}

enum Command {
    Messages(Vec<(Message, Done)>),
    /// Send at once what lingers, and say when all that was handed over before is settled.
    Flush(oneshot::Sender<()>),
}

/// Who wants to know what became of a message.
enum Done {
    Receipt(oneshot::Sender<Result<Stored, PublishError>>),
    Tag(u64),
}

/// Resolves when the message is acknowledged or has failed. Dropping it does not take the message back.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Stored, PublishError>>);

impl Future for Receipt {
    type Output = Result<Stored, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|result| result.unwrap_or(Err(PublishError::Closed)))
    }
}

impl Publisher {
    /// Hands a message over; waits while the buffer is full. The receipt resolves when it is acknowledged. Dropped
    /// before it returns, nothing was handed over.
    ///
    /// # Errors
    /// The publisher is closed, or the message is larger than the buffer.
    pub async fn publish(&self, message: Message) -> Result<Receipt, PublishError> {
        let (sender, receiver) = oneshot::channel();
        self.submit(vec![(message, Done::Receipt(sender))]).await?;
        Ok(Receipt(receiver))
    }

    /// Hands several messages over at once, in their order; what becomes of them is told to [`OnSettled`]. Cheaper
    /// than [`Publisher::publish`] for many small ones. Waits until the buffer has room for all of them.
    ///
    /// # Errors
    /// The publisher is closed, or the messages are more than the buffer takes. Nothing was handed over.
    pub async fn enqueue(&self, messages: Vec<Tagged>) -> Result<(), PublishError> {
        let messages = messages
            .into_iter()
            .map(|tagged| (tagged.message, Done::Tag(tagged.tag)))
            .collect();
        self.submit(messages).await
    }

    /// Waits until all that was handed over before is acknowledged or has failed.
    ///
    /// # Errors
    /// The publisher is closed.
    pub async fn flush(&self) -> Result<(), PublishError> {
        let (sender, receiver) = oneshot::channel();
        self.commands
            .send(Command::Flush(sender))
            .await
            .map_err(|_| PublishError::Closed)?;
        receiver.await.map_err(|_| PublishError::Closed)
    }

    /// Flushes, then ends the streams.
    ///
    /// # Errors
    /// The publisher's task is gone.
    pub async fn close(self) -> Result<(), PublishError> {
        self.flush().await?;
        drop(self.commands);
        self.driver.await.map_err(|_| PublishError::Closed)
    }

    /// What happened so far.
    pub fn stats(&self) -> PublisherStats {
        self.stats.snapshot()
    }

    /// Messages that the buffer would take now without waiting.
    pub fn room(&self) -> usize {
        self.buffer.messages.available_permits()
    }

    async fn submit(&self, messages: Vec<(Message, Done)>) -> Result<(), PublishError> {
        if messages.is_empty() {
            return Ok(());
        }
        let bytes: u64 = messages.iter().map(|(message, _)| payload_bytes(message)).sum();
        let count = messages.len() as u64;
        if bytes > self.buffer.max_bytes || count > u64::from(self.buffer.max_messages) {
            return Err(PublishError::TooLarge {
                bytes,
                limit: self.buffer.max_bytes,
            });
        }
        let closed = |_| PublishError::Closed;
        let messages_permit = self
            .buffer
            .messages
            .acquire_many(count as u32)
            .await
            .map_err(closed)?;
        let bytes_permit = self
            .buffer
            .bytes
            .acquire_many(bytes as u32)
            .await
            .map_err(closed)?;
        let place = self.commands.reserve().await.map_err(|_| PublishError::Closed)?;
        self.stats.unacknowledged.fetch_add(count, Ordering::Relaxed);
        place.send(Command::Messages(messages));
        messages_permit.forget();
        bytes_permit.forget();
        Ok(())
    }
}

impl Buffer {
    fn new(max_messages: u32, max_bytes: u64) -> Self {
        let max_bytes = max_bytes.clamp(1, u64::from(u32::MAX));
        let max_messages = max_messages.max(1);
        Self {
            messages: Semaphore::new(max_messages as usize),
            bytes: Semaphore::new(max_bytes as usize),
            max_messages,
            max_bytes,
        }
    }
}

impl Counters {
    fn snapshot(&self) -> PublisherStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PublisherStats {
            acknowledged: get(&self.acknowledged),
            duplicates: get(&self.duplicates),
            failed: get(&self.failed),
            resent: get(&self.resent),
            reconnects: get(&self.reconnects),
            moves: get(&self.moves),
            throttles: get(&self.throttles),
            unacknowledged: get(&self.unacknowledged),
        }
    }
}

/// Adds to a counter.
fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
