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

    /// Waits for room. `arrived` is when the batch was taken off the wire: the sojourn counts from there.
    /// Cancel-safe: a caller that goes away leaves no permit and no place in the queue behind.
    pub async fn enter(self: &Arc<Self>, messages: u32, bytes: u64, arrived: Instant) -> Permit {
        let messages = u64::from(messages);
        let place = {
            let mut state = self.state.lock();
            if state.waiting.is_empty() && state.messages < state.capacity {
                state.messages += messages;
                state.bytes += bytes;
                None
            } else {
                let id = state.next_waiter;
                state.next_waiter += 1;
                let (admit, admitted) = oneshot::channel();
                state.waiting.push_back(Waiter {
                    id,
                    messages,
                    bytes,
                    admit,
                });
                Some((
                    Place {
                        channel: self,
                        id,
                        messages,
                        bytes,
                        taken: false,
                    },
                    admitted,
                ))
            }
        };
        if let Some((mut place, admitted)) = place {
            // The queue's end of it is only dropped after it was used.
            _ = admitted.await;
            place.taken = true;
        }
        Permit {
            channel: Arc::clone(self),
            messages,
            bytes,
            arrived,
        }
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
