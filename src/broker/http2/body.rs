//! The body of a request: filled by the connection, read by whoever serves the stream, in whatever task.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use parking_lot::Mutex;

use super::pieces::Pieces;
use super::ready::Waking;

/// A request's body ended before its end: the stream was reset, or its connection closed.
#[derive(Debug, thiserror::Error)]
#[error("the client cancelled the stream")]
pub(in crate::broker) struct Cancelled;

/// What came in and was not read yet.
#[derive(Debug, Default)]
struct Inbox {
    first: Bytes,
    /// Behind `first`. Small pieces are copied: they must not keep the large buffers that they came in.
    rest: Pieces,
    is_ended: bool,
    is_cancelled: bool,
    /// Nobody reads any more.
    is_dropped: bool,
    reader: Option<Waker>,
    /// Bytes that were read since the connection looked.
    read: u32,
    /// The connection looks as soon as this is over.
    is_polled: bool,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.rest.len() == 0
    }

    fn clear(&mut self) {
        self.first = Bytes::new();
        self.rest = Pieces::default();
    }
}

/// What a stream and whoever serves it share: one allocation.
#[derive(Debug)]
pub(super) struct Mailbox {
    inbox: Mutex<Inbox>,
    waking: Waking,
    /// What runs beside the answer runs now, and the answer is looked at after it.
    runs_beside: AtomicBool,
}

impl Mailbox {
    /// For the stream that `waking` wakes.
    pub(super) fn new(waking: Waking) -> Arc<Self> {
        Arc::new(Self {
            inbox: Mutex::default(),
            waking,
            runs_beside: AtomicBool::new(false),
        })
    }

    /// To wake the stream.
    pub(super) fn waking(&self) -> &Waking {
        &self.waking
    }

    /// Adds data. The bytes that nobody will read, to be given back at once.
    pub(super) fn push(&self, data: Bytes) -> u32 {
        let mut inbox = self.inbox.lock();
        if inbox.is_dropped {
            return data.len() as u32;
        }
        if inbox.is_empty() {
            inbox.first = data;
        } else {
            inbox.rest.push(data);
        }
        wake(inbox);
        0
    }

    /// No more data comes.
    pub(super) fn end(&self) {
        let mut inbox = self.inbox.lock();
        inbox.is_ended = true;
        wake(inbox);
    }

    /// The stream is gone.
    pub(super) fn cancel(&self) {
        let mut inbox = self.inbox.lock();
        if !inbox.is_ended {
            inbox.is_cancelled = true;
            inbox.clear();
            wake(inbox);
        }
    }

    /// The connection begins to run whoever serves the stream: what happens from here on wakes it again.
    pub(super) fn begin(&self) {
        self.waking.begin();
        self.inbox.lock().is_polled = true;
    }

    /// Polls what runs beside the answer; what that adds to the answer does not wake the stream.
    pub(super) fn run_beside<T>(&self, poll: impl FnOnce() -> T) -> T {
        self.runs_beside.store(true, Ordering::Release);
        let polled = poll();
        self.runs_beside.store(false, Ordering::Release);
        polled
    }

    /// It has run. How much was read since the last time.
    pub(super) fn finish(&self) -> u32 {
        let mut inbox = self.inbox.lock();
        inbox.is_polled = false;
        std::mem::take(&mut inbox.read)
    }
}

impl std::task::Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.waking.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.waking.wake();
    }
}

/// Wakes a stream for its answer.
pub(super) struct AnswerWaker(pub Arc<Mailbox>);

impl std::task::Wake for AnswerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // What came before this wake is seen by the look that follows.
        if !self.0.runs_beside.load(Ordering::Acquire) {
            self.0.waking.wake();
        }
    }
}

fn wake(mut inbox: parking_lot::MutexGuard<'_, Inbox>) {
    let reader = inbox.reader.take();
    drop(inbox);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// A request's body.
#[derive(Debug)]
pub(in crate::broker) struct RequestBody(Arc<Mailbox>);

impl RequestBody {
    /// Reads what the stream gets.
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self(mailbox)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Cancelled;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cancelled>>> {
        let mut inbox = self.0.inbox.lock();
        let mut data = std::mem::take(&mut inbox.first);
        if data.is_empty() {
            data = inbox.rest.pop();
        }
        if !data.is_empty() {
            inbox.read += data.len() as u32;
            let is_polled = inbox.is_polled;
            drop(inbox);
            if !is_polled {
                self.0.waking.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if inbox.is_cancelled {
            return Poll::Ready(Some(Err(Cancelled)));
        }
        if inbox.is_ended {
            return Poll::Ready(None);
        }
        let waker = context.waker();
        if !inbox.reader.as_ref().is_some_and(|known| known.will_wake(waker)) {
            inbox.reader = Some(waker.clone());
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let inbox = self.0.inbox.lock();
        inbox.is_ended && inbox.is_empty()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let mut inbox = self.0.inbox.lock();
        inbox.is_dropped = true;
        let unread = inbox.first.len() + inbox.rest.len();
        inbox.read += unread as u32;
        inbox.clear();
        inbox.reader = None;
        let is_polled = inbox.is_polled;
        drop(inbox);
        if unread > 0 && !is_polled {
            self.0.waking.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::broker::http2::ready::Ready;

    fn taken(ready: &Ready) -> Vec<u32> {
        let mut streams = Vec::new();
        ready.take(&mut streams);
        streams
    }

    fn read(body: &mut RequestBody) -> Option<Option<Result<Bytes, Cancelled>>> {
        let frame = body.frame().now_or_never()?;
        Some(frame.map(|frame| frame.map(|frame| frame.into_data().unwrap())))
    }

    #[test]
    fn data_comes_out_in_order_and_what_was_read_is_told_once() {
        let ready = Arc::<Ready>::default();
        let mailbox = Mailbox::new(Waking::new(1, &ready));
        let mut body = RequestBody::new(Arc::clone(&mailbox));
        assert!(read(&mut body).is_none());
        for piece in ["ab", "c", "de"] {
            assert_eq!(mailbox.push(Bytes::from_static(piece.as_bytes())), 0);
        }
        mailbox.end();
        assert_eq!(read(&mut body).unwrap().unwrap().unwrap(), "ab");
        assert_eq!(taken(&ready), [1], "read by another task: the stream is to look");
        assert_eq!(read(&mut body).unwrap().unwrap().unwrap(), "cde");
        assert!(read(&mut body).unwrap().is_none());
        assert_eq!((mailbox.finish(), mailbox.finish()), (5, 0));
    }

    #[test]
    fn what_nobody_will_read_is_given_back() {
        let ready = Arc::<Ready>::default();
        let mailbox = Mailbox::new(Waking::new(1, &ready));
        let body = RequestBody::new(Arc::clone(&mailbox));
        mailbox.push(Bytes::from_static(b"abc"));
        drop(body);
        assert_eq!(taken(&ready), [1]);
        assert_eq!(mailbox.finish(), 3);
        assert_eq!(mailbox.push(Bytes::from_static(b"de")), 2);
    }

    #[test]
    fn an_answer_wakes_its_stream_but_not_while_what_runs_beside_it_runs() {
        let ready = Arc::<Ready>::default();
        let mailbox = Mailbox::new(Waking::new(1, &ready));
        let answer = Waker::from(Arc::new(AnswerWaker(Arc::clone(&mailbox))));
        let stream = Waker::from(Arc::clone(&mailbox));
        mailbox.run_beside(|| answer.wake_by_ref());
        assert!(taken(&ready).is_empty(), "it is looked at in any case");
        mailbox.run_beside(|| stream.wake_by_ref());
        assert_eq!(taken(&ready), [1], "what runs beside it is to run again");
        mailbox.waking().begin();
        answer.wake_by_ref();
        assert_eq!(taken(&ready), [1]);
    }

    #[test]
    fn a_cancelled_body_says_so_and_one_that_had_ended_does_not() {
        let ready = Arc::<Ready>::default();
        for has_ended in [false, true] {
            let mailbox = Mailbox::new(Waking::new(1, &ready));
            let mut body = RequestBody::new(Arc::clone(&mailbox));
            mailbox.push(Bytes::from_static(b"abc"));
            if has_ended {
                mailbox.end();
            }
            mailbox.cancel();
            let first = read(&mut body).unwrap().unwrap();
            assert_eq!(first.is_ok(), has_ended);
        }
    }
}
