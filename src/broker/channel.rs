//! The bounded channel between the network and the log: a pool of permits whose size changes live.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The pool. A message holds a permit from the moment it is let in until its batch is committed (or given up).
/// First come, first served. A batch is let in as soon as fewer than `capacity` messages are inside, so that a
/// batch larger than the capacity still passes.
#[derive(Debug)]
pub struct Channel {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    capacity: u64,
    messages: u64,
    bytes: u64,
    waiting: VecDeque<Waiter>,
    next_waiter: u64,
    /// Nanoseconds; made when something passes, so that a channel at rest costs nothing.
    sojourn: Option<Histogram<u32>>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    messages: u64,
    bytes: u64,
    admit: oneshot::Sender<()>,
}

/// Messages inside the channel; dropping it takes them out and records how long they were inside.
#[derive(Debug)]
pub struct Permit {
    channel: Arc<Channel>,
    messages: u64,
    bytes: u64,
    arrived: Instant,
}

/// Time spent in the channel since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sojourn {
    /// The shortest; zero where nothing passed.
    pub min: Duration,
    /// The 99th percentile; zero where nothing passed.
    pub p99: Duration,
    /// Batches that passed.
    pub count: u64,
}

impl Channel {
    /// A pool of `capacity` messages (at least 1).
    pub fn new(capacity: u32) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                capacity: u64::from(capacity.max(1)),
                messages: 0,
                bytes: 0,
                waiting: VecDeque::new(),
                next_waiter: 0,
                sojourn: None,
            }),
        })
    }

    /// Changes the size at once. Shrinking below what is inside takes effect as messages leave.
    pub fn set_capacity(&self, capacity: u32) {
        let mut state = self.state.lock();
        state.capacity = u64::from(capacity.max(1));
        state.admit();
    }

    /// The size now.
    pub fn capacity(&self) -> u32 {
        self.state.lock().capacity as u32
    }

    /// Takes room where there is some and nobody waits for it. `arrived` as for [`Channel::enter`].
    pub fn try_enter(self: &Arc<Self>, messages: u32, bytes: u64, arrived: Instant) -> Option<Permit> {
        let messages = u64::from(messages);
        let mut state = self.state.lock();
        if !state.waiting.is_empty() || state.messages >= state.capacity {
            return None;
        }
        state.messages += messages;
        state.bytes += bytes;
        Some(Permit {
            channel: Arc::clone(self),
            messages,
            bytes,
            arrived,
        })
    }

    /// Waits for room. `arrived` is when the batch was taken off the wire: the sojourn counts from there.
    /// Cancel-safe: a caller that goes away leaves no permit and no place in the queue behind.
    pub async fn enter(self: &Arc<Self>, messages: u32, bytes: u64, arrived: Instant) -> Permit {
        if let Some(permit) = self.try_enter(messages, bytes, arrived) {
            return permit;
        }
        let messages = u64::from(messages);
        let (mut place, admitted) = self.queue(messages, bytes);
        // The queue's end of it is only dropped after it was used.
        _ = admitted.await;
        place.taken = true;
        Permit {
            channel: Arc::clone(self),
            messages,
            bytes,
            arrived,
        }
    }

    /// A place behind all who wait; let in at once where there is room again.
    fn queue(&self, messages: u64, bytes: u64) -> (Place<'_>, oneshot::Receiver<()>) {
        let (admit, admitted) = oneshot::channel();
        let mut state = self.state.lock();
        let id = state.next_waiter;
        state.next_waiter += 1;
        state.waiting.push_back(Waiter {
            id,
            messages,
            bytes,
            admit,
        });
        state.admit();
        drop(state);
        let place = Place {
            channel: self,
            id,
            messages,
            bytes,
            taken: false,
        };
        (place, admitted)
    }

    /// Messages and bytes inside now.
    pub fn inside(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.messages, state.bytes)
    }

    /// Takes the sojourn statistics since the last call and starts new ones.
    pub fn take_sojourn(&self) -> Sojourn {
        let histogram = self.state.lock().sojourn.take();
        histogram.map_or_else(Sojourn::default, |histogram| Sojourn {
            min: Duration::from_nanos(histogram.min()),
            p99: Duration::from_nanos(histogram.value_at_quantile(0.99)),
            count: histogram.len(),
        })
    }
}

impl State {
    /// Lets in whoever may now, first come, first served.
    fn admit(&mut self) {
        while self.messages < self.capacity
            && let Some(waiter) = self.waiting.pop_front()
        {
            // Whoever gave up took itself out of the queue, under this same lock.
            self.messages += waiter.messages;
            self.bytes += waiter.bytes;
            _ = waiter.admit.send(());
        }
        if self.waiting.is_empty() && self.waiting.capacity() > 1024 {
            self.waiting = VecDeque::new();
        }
    }
}

/// A place in the queue. Dropped before it is taken, it is given up.
struct Place<'a> {
    channel: &'a Channel,
    id: u64,
    messages: u64,
    bytes: u64,
    taken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut state = self.channel.state.lock();
        // Ascending ids: the queue is sorted.
        if let Ok(index) = state.waiting.binary_search_by_key(&self.id, |waiter| waiter.id) {
            state.waiting.remove(index);
        } else {
            // It was let in and never heard of it.
            state.messages -= self.messages;
            state.bytes -= self.bytes;
            state.admit();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let nanos = self.arrived.elapsed().as_nanos() as u64;
        let mut state = self.channel.state.lock();
        state.messages -= self.messages;
        state.bytes -= self.bytes;
        if state.sojourn.is_none() {
            state.sojourn = Histogram::new_with_bounds(1, 3_600_000_000_000, 2).ok();
        }
        if let Some(histogram) = &mut state.sojourn {
            histogram.saturating_record(nanos);
        }
        state.admit();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    async fn enter(channel: &Arc<Channel>, messages: u32) -> Permit {
        channel
            .enter(messages, u64::from(messages) * 10, Instant::now())
            .await
    }

    #[tokio::test]
    async fn a_batch_larger_than_the_capacity_passes() {
        let channel = Channel::new(4);
        let permit = enter(&channel, 100).await;
        assert_eq!(channel.inside(), (100, 1000));
        assert!(enter(&channel, 1).now_or_never().is_none());
        drop(permit);
        assert_eq!(channel.inside(), (0, 0));
        enter(&channel, 1).now_or_never().expect("there is room");
    }

    #[tokio::test]
    async fn nobody_passes_those_who_wait() {
        let channel = Channel::new(1);
        let now = Instant::now();
        let first = channel.try_enter(3, 30, now).expect("there is room");
        assert!(channel.try_enter(1, 10, now).is_none());
        let mut waiting = Box::pin(enter(&channel, 1));
        assert!(waiting.as_mut().now_or_never().is_none());
        channel.set_capacity(4);
        assert!(channel.try_enter(1, 10, now).is_none(), "the room is taken");
        drop(first);
        drop(waiting.now_or_never().expect("it was let in"));
        assert!(channel.try_enter(1, 10, now).is_some());
    }

    #[tokio::test]
    async fn first_come_first_served() {
        let channel = Channel::new(1);
        let first = enter(&channel, 1).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..5 {
            let (channel, order) = (Arc::clone(&channel), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let permit = enter(&channel, 3).await;
                order.lock().push(n);
                drop(permit);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn a_pool_made_smaller_than_what_is_inside_fills_again_when_it_has_emptied() {
        let channel = Channel::new(10);
        let permits = futures::future::join_all((0..10).map(|_| enter(&channel, 1))).await;
        channel.set_capacity(2);
        assert_eq!(channel.capacity(), 2);
        let mut waiting = Box::pin(enter(&channel, 1));
        assert!(waiting.as_mut().now_or_never().is_none());
        let mut permits = permits.into_iter();
        permits.by_ref().take(8).for_each(drop);
        assert!(waiting.as_mut().now_or_never().is_none(), "two are inside still");
        drop(permits.next());
        let entered = waiting.now_or_never().expect("one place is free");
        channel.set_capacity(3);
        let _another = enter(&channel, 1)
            .now_or_never()
            .expect("a larger pool admits at once");
        drop(entered);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_nothing_behind() {
        let channel = Channel::new(1);
        let first = enter(&channel, 1).await;
        let mut gone_in_queue = Box::pin(enter(&channel, 1));
        let mut gone_when_admitted = Box::pin(enter(&channel, 1));
        let mut last = Box::pin(enter(&channel, 1));
        for waiting in [&mut gone_in_queue, &mut gone_when_admitted, &mut last] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(gone_in_queue);
        drop(first);
        // It was let in and is not polled any more.
        assert_eq!(channel.inside(), (1, 10));
        drop(gone_when_admitted);
        let permit = last.now_or_never().expect("the next one is let in");
        drop(permit);
        assert_eq!(channel.inside(), (0, 0));
        assert!(channel.state.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn sojourn_is_what_passed_since_the_last_look() {
        let channel = Channel::new(10);
        assert_eq!(channel.take_sojourn(), Sojourn::default());
        let arrived = Instant::now().checked_sub(Duration::from_millis(50)).unwrap();
        drop(channel.enter(1, 1, arrived).await);
        drop(channel.enter(1, 1, Instant::now()).await);
        let sojourn = channel.take_sojourn();
        assert_eq!(sojourn.count, 2);
        assert!(sojourn.min < Duration::from_millis(20), "{sojourn:?}");
        assert!(sojourn.p99 >= Duration::from_millis(49), "{sojourn:?}");
        assert_eq!(channel.take_sojourn(), Sojourn::default());
    }
}
