//! Subscribing: one stream to each owner, merged into one inbox.
//!
//! Every stream is always read; what bounds the inbox is the credit that was granted on each of them.

mod builder;
mod delivery;
mod inbox;
mod outbox;
mod session;
mod stream;
mod supervisor;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::inbox::Inbox;
use super::error::SubscribeError;

pub use builder::SubscriberBuilder;
pub use delivery::Delivery;

/// How long [`Subscriber::close`] waits for the brokers to confirm the last answers.
const CLOSE: Duration = Duration::from_secs(5);

/// A member of a consumer group on one topic. Dropping it leaves the group at once; what it had not settled is
/// delivered to others. [`Subscriber::close`] first sends the answers that were given.
#[derive(Debug)]
pub struct Subscriber {
    inbox: Arc<Inbox>,
    stats: Arc<Counters>,
    stop: CancellationToken,
    supervisor: AbortOnDropHandle<()>,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubscriberStats {
    /// Messages received.
    pub received: u64,
    /// Answers that brokers confirmed.
    pub settled: u64,
    /// Answers that came too late: the message was delivered again, or its partition moved.
    pub stale: u64,
    /// Streams that broke or were refused.
    pub reconnects: u64,
    /// Messages that were given back, unseen by the caller, because their partition had moved.
    pub moved: u64,
    /// Messages that were given back, unseen by the caller, because another member waited for them.
    pub revoked: u64,
    /// Times that a partition could not be served.
    pub unavailable: u64,
}

#[derive(Debug, Default)]
struct Counters {
    received: AtomicU64,
    settled: AtomicU64,
    stale: AtomicU64,
    reconnects: AtomicU64,
    moved: AtomicU64,
    revoked: AtomicU64,
    unavailable: AtomicU64,
}

impl Subscriber {
    /// The next message; waits for one. Cancel-safe.
    ///
    /// # Errors
    /// The brokers refused the subscription for good.
    pub async fn next(&mut self) -> Result<Delivery, SubscribeError> {
        loop {
            if let Some(delivery) = self.next_batch(1).await?.pop() {
                return Ok(delivery);
            }
        }
    }

    /// The messages that are there, at most `max` and at least one; waits for one. Cancel-safe.
    ///
    /// # Errors
    /// As [`Subscriber::next`].
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Delivery>, SubscribeError> {
        self.inbox.next(max.max(1)).await
    }

    /// What happened so far.
    pub fn stats(&self) -> SubscriberStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.stats;
        SubscriberStats {
            received: get(&counters.received),
            settled: get(&counters.settled),
            stale: get(&counters.stale),
            reconnects: get(&counters.reconnects),
            moved: get(&counters.moved),
            revoked: get(&counters.revoked),
            unavailable: get(&counters.unavailable),
        }
    }

    /// Sends the answers that were given, gives back what the caller never saw, waits for the brokers to confirm
    /// (5 s at most), and leaves the group.
    pub async fn close(self) {
        for delivery in self.inbox.close() {
            delivery.give_back(Duration::ZERO);
        }
        self.stop.cancel();
        // After that the streams are cut: the brokers deliver again what they did not hear of.
        let _ = tokio::time::timeout(CLOSE, self.supervisor).await;
    }
}

/// Adds to a counter.
fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
