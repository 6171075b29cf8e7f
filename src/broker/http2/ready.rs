//! Which streams of a connection have something to do. A connection is one task; each of its streams has a waker of
//! its own, so that a connection with a thousand of them looks only at those that were woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;

/// Shared by a connection and its streams.
#[derive(Debug, Default)]
pub(super) struct Ready(Mutex<Woken>);

#[derive(Debug, Default)]
struct Woken {
    streams: Vec<u32>,
    connection: Option<Waker>,
    /// The connection is to be woken: else it looks by itself before it sleeps.
    is_asleep: bool,
}

impl Ready {
    /// Streams that were woken, in the order in which they were. Each is to be told with [`Waking::begin`].
    pub(super) fn take(&self, into: &mut Vec<u32>) {
        into.clear();
        std::mem::swap(&mut self.0.lock().streams, into);
    }

    /// The connection is awake.
    pub(super) fn awake(&self) {
        self.0.lock().is_asleep = false;
    }

    /// Lets the connection sleep until a stream is woken. False where one is already.
    pub(super) fn sleep(&self, context: &Context<'_>) -> bool {
        let mut woken = self.0.lock();
        if !woken.streams.is_empty() {
            return false;
        }
        let waker = context.waker();
        if !woken
            .connection
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            woken.connection = Some(waker.clone());
        }
        woken.is_asleep = true;
        true
    }
}

/// Wakes one stream.
#[derive(Debug)]
pub(super) struct Waking {
    stream: u32,
    is_woken: AtomicBool,
    ready: Arc<Ready>,
}

impl Waking {
    /// For the stream with this id.
    pub(super) fn new(stream: u32, ready: &Arc<Ready>) -> Self {
        Self {
            stream,
            is_woken: AtomicBool::new(false),
            ready: Arc::clone(ready),
        }
    }

    /// The connection is to look at the stream.
    pub(super) fn wake(&self) {
        if self.is_woken.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut woken = self.ready.0.lock();
        woken.streams.push(self.stream);
        if !std::mem::take(&mut woken.is_asleep) {
            return;
        }
        let connection = woken.connection.clone();
        drop(woken);
        if let Some(connection) = connection {
            connection.wake();
        }
    }

    /// The connection looks at it now: what happens from here on wakes it again.
    pub(super) fn begin(&self) {
        self.is_woken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_woken_often_is_looked_at_once_and_the_connection_woken_once() {
        let ready = Arc::<Ready>::default();
        let (one, two) = (Waking::new(1, &ready), Waking::new(3, &ready));
        let (waker, count) = counting();
        let context = Context::from_waker(&waker);
        one.wake();
        assert!(!ready.sleep(&context), "there is something to do");
        assert_eq!(taken(&ready), [1]);
        one.begin();
        assert!(ready.sleep(&context));
        ready.awake();
        one.wake();
        assert_eq!(count.load(Ordering::Relaxed), 0, "it is awake and sees it");
        assert_eq!(taken(&ready), [1]);
        one.begin();
        assert!(ready.sleep(&context));
        two.wake();
        two.wake();
        one.wake();
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert!(!ready.sleep(&context));
        assert_eq!(taken(&ready), [3, 1]);
        two.wake();
        assert!(taken(&ready).is_empty(), "it was not begun");
        two.begin();
        two.wake();
        assert_eq!(taken(&ready), [3]);
    }

    fn taken(ready: &Ready) -> Vec<u32> {
        let mut streams = Vec::new();
        ready.take(&mut streams);
        streams
    }

    fn counting() -> (Waker, Arc<std::sync::atomic::AtomicUsize>) {
        struct Counting(Arc<std::sync::atomic::AtomicUsize>);
        impl std::task::Wake for Counting {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::<std::sync::atomic::AtomicUsize>::default();
        (Waker::from(Arc::new(Counting(Arc::clone(&count)))), count)
    }
}
