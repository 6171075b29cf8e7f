//! The bounded channel between the network and the log: a pool of permits whose size changes live.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// The pool. A message holds a permit from the moment it is let in until its batch is committed (or given up).
/// First come, first served. A batch is let in as soon as fewer than `capacity` messages are inside, so that a
/// batch larger than the capacity still passes.
#[derive(Debug)]
pub struct Channel {}

/// Messages inside the channel; dropping it takes them out and records how long they were inside.
#[derive(Debug)]
pub struct Permit {}

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
        todo!("{capacity}")
    }

    /// Changes the size at once. Shrinking below what is inside takes effect as messages leave.
    pub fn set_capacity(&self, capacity: u32) {
        todo!("{capacity}")
    }

    /// The size now.
    pub fn capacity(&self) -> u32 {
        todo!()
    }

    /// Waits for room. `arrived` is when the batch was taken off the wire: the sojourn counts from there.
    /// Cancel-safe: a caller that goes away leaves no permit and no place in the queue behind.
    pub async fn enter(self: &Arc<Self>, messages: u32, bytes: u64, arrived: Instant) -> Permit {
        todo!("{messages} {bytes} {arrived:?}")
    }

    /// Messages and bytes inside now.
    pub fn inside(&self) -> (u64, u64) {
        todo!()
    }

    /// Takes the sojourn statistics since the last call and starts new ones.
    pub fn take_sojourn(&self) -> Sojourn {
        todo!()
    }
}
