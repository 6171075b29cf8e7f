//! What waits to be sent on a response stream. A session fills it; the transport takes from it as fast as
//! the client reads. So a session never waits for a client that does not read, and goes on draining its requests.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tonic::{Code, Response, Status};

use super::credit::Open;
use super::shared::Shared;
use crate::broker::http2::Beside;
use crate::broker::refusals::{Reason, Refusals};

/// What is sent next. Implementations merge what can be merged, so that it stays bounded while nobody takes.
pub trait Queue: Default + Send + 'static {
    /// A response.
    type Item: Send + 'static;

    /// Takes the next response.
    fn pop(&mut self) -> Option<Self::Item>;
}

/// The two ends share one.
pub struct Outbox<Q> {
    inner: Mutex<Inner<Q>>,
    taken: Notify,
}

struct Inner<Q> {
    queue: Q,
    end: Option<Result<(), Status>>,
    waker: Option<Waker>,
}

impl<Q: Queue> Outbox<Q> {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        let inner = Inner {
            queue: Q::default(),
            end: None,
            waker: None,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            taken: Notify::new(),
        })
    }

    /// Adds to the queue and wakes the transport.
    pub fn push(&self, add: impl FnOnce(&mut Q)) {
        let mut inner = self.inner.lock();
        add(&mut inner.queue);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Looks at the queue.
    pub fn look<T>(&self, read: impl FnOnce(&Q) -> T) -> T {
        read(&self.inner.lock().queue)
    }

    /// Ends the stream once all that waits is sent. Only the first end counts.
    pub fn end(&self, end: Result<(), Status>) {
        let mut inner = self.inner.lock();
        if inner.end.is_none() {
            inner.end = Some(end);
        }
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }

    /// Waits until the transport has taken something since the last wait. Cancel-safe.
    pub async fn taken(&self) {
        self.taken.notified().await;
    }
}

/// Ends the outbox when the session goes away for whatever reason, so that no client waits for ever.
pub struct EndOnDrop<Q: Queue>(pub Arc<Outbox<Q>>);

impl<Q: Queue> Drop for EndOnDrop<Q> {
    fn drop(&mut self) {
        self.0.end(Err(Status::internal(
            "the broker's session ended without an answer; open it again",
        )));
    }
}

/// Counts an end that means a limit, and only one.
fn count(refusals: &Refusals, status: &Status) {
    let reason = match status.code() {
        Code::OutOfRange => Reason::RequestBytes,
        Code::DeadlineExceeded => Reason::NotOpened,
        _ => return,
    };
    refusals.count(reason, &status.message());
}

/// The response stream. The session runs beside it, in the connection's task, and goes away with it.
pub struct OutboxStream<Q: Queue> {
    outbox: Arc<Outbox<Q>>,
    /// Counted until the last answer is with the transport.
    _open: Open,
    ended: bool,
}

impl<Q: Queue> OutboxStream<Q> {
    /// An answer beside which `session` runs for as long as the stream lives; both are counted.
    pub fn answer<F>(outbox: Arc<Outbox<Q>>, shared: &Shared, session: F) -> Response<Self>
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let end = EndOnDrop(Arc::clone(&outbox));
        let running = Open::session(&shared.counters);
        let refusals = Arc::clone(&shared.refusals);
        // A future keeps what it awaits twice, as it was given and as it runs: a pointer, so.
        let session = Box::pin(session);
        let mut response = Response::new(Self {
            outbox,
            _open: Open::stream(&shared.counters),
            ended: false,
        });
        response.extensions_mut().insert(Beside::new(async move {
            let result = session.await;
            if let Err(status) = &result {
                count(&refusals, status);
            }
            end.0.end(result);
            drop(running);
        }));
        response
    }
}

impl<Q: Queue> Stream for OutboxStream<Q> {
    type Item = Result<Q::Item, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut inner = self.outbox.inner.lock();
        if let Some(item) = inner.queue.pop() {
            drop(inner);
            self.outbox.taken.notify_one();
            return Poll::Ready(Some(Ok(item)));
        }
        match inner.end.take() {
            Some(end) => {
                inner.end = Some(Ok(()));
                drop(inner);
                self.ended = true;
                Poll::Ready(end.err().map(Err))
            }
            None => {
                let waker = context.waker();
                if !inner.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    inner.waker = Some(waker.clone());
                }
                Poll::Pending
            }
        }
    }
}
