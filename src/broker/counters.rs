//! What the broker counts, for the pressure report and `/metrics`: one place, only atomics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that only grow within one boot. Nanoseconds and bytes are whole numbers.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages taken off the network and let into the channel.
    pub accepted_messages: Counter,
    /// Messages acknowledged to publishers.
    pub acked_messages: Counter,
    /// Bytes (key, headers, body) of acknowledged messages.
    pub acked_bytes: Counter,
    /// Bytes (key, headers, body) taken from publishers.
    pub bytes_in: Counter,
    /// Batches of publish streams, requests of subscribe streams and calls of Send: each costs its part, however many
    /// messages it carries.
    pub requests: Counter,
    /// Bytes (key, headers, body) delivered to consumers.
    pub bytes_out: Counter,
    /// Group commits.
    pub commits: Counter,
    /// Time in fdatasync.
    pub commit_nanos: Counter,
    /// Time in encoding and writing batches.
    pub append_nanos: Counter,
    /// Time that publish streams had all their credit used.
    pub publisher_blocked_nanos: Counter,
    /// Time that publish streams had anything unacknowledged.
    pub publisher_active_nanos: Counter,
    /// Messages that publishers were given to send, where they say so; else what they sent.
    pub offered_messages: Counter,
    /// Messages in batches that do not say how many there were to send.
    pub untold_messages: Counter,
    /// Time that members of groups had messages waiting and no credit.
    pub consumer_starved_nanos: Counter,
    /// Deliveries, redeliveries included.
    pub delivered_messages: Counter,
    /// Deliveries after the first of a message.
    pub redelivered_messages: Counter,
    /// Messages put into a dead-letter topic.
    pub dead_lettered_messages: Counter,
    /// Messages given up where there is no dead-letter topic.
    pub given_up_messages: Counter,
    /// Payloads answered with `Rejected`.
    pub rejected_messages: Counter,
    /// Messages passed on to the broker that owns their partition.
    pub forwarded_messages: Counter,
    /// Bytes of torn records that were cut off the end of the journal when it was opened: nobody had been told that
    /// they are stored.
    pub recovery_cut_bytes: Counter,
    /// Messages on their way to a dead-letter topic, those that wait for one included.
    pub waiting_dead_letters: Gauge,
    /// Connections open now.
    pub connections: Gauge,
    /// Streams and calls of publishers and subscribers open now.
    pub streams: Gauge,
    /// Streams that are not finished here yet.
    pub sessions: Gauge,
    /// Publish streams open now.
    pub publish_streams: Gauge,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down with guards, so that no path forgets to take back what it added.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
