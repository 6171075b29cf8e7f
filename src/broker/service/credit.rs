//! How much each publish stream may have unacknowledged. Decided here and nowhere else.
//!
//! Messages: the channel's capacity, shared evenly. Bytes: `maxInflightBytes`, shared evenly. Both have a floor that
//! lets a stream send anything at all; what the floors give away too much, [`Inflight`] refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::signals::Signals;
use crate::broker::channel::Channel;
use crate::broker::counters::{Counters, Gauge};

/// The least credit of a stream, in messages: less would make every batch a round trip.
pub const LEAST_MESSAGES: u64 = 8;

/// What a stream may have unacknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grant {
    /// Messages.
    pub messages: u64,
    /// Bytes of key, headers and body.
    pub bytes: u64,
}

/// Limits that the operator may change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub max_connections: u32,
    /// Streams and calls at once on one connection; for connections that come after a change.
    pub max_streams_per_connection: u32,
    /// The largest message: key, headers and body.
    pub max_message_bytes: u64,
    /// Bytes of messages that are not committed yet.
    pub max_inflight_bytes: u64,
}

impl Limits {
    /// The largest gRPC message that is decoded: a batch of all the byte credit there is, with room for encoding.
    pub fn max_request_bytes(&self) -> usize {
        usize::try_from(self.max_message_bytes.saturating_mul(2).saturating_add(1 << 20))
            .unwrap_or(usize::MAX)
    }
}

/// The streams that share the credit.
#[derive(Debug)]
pub struct CreditPool {
    channel: Arc<Channel>,
    counters: Arc<Counters>,
    limits: Mutex<Limits>,
    signals: watch::Sender<Signals>,
}

/// A publish stream's place in the pool; dropping it leaves more to the others.
#[derive(Debug)]
pub struct Share {
    pool: Arc<CreditPool>,
}

impl CreditPool {
    /// A pool that announces each change on `signals`.
    pub fn new(
        channel: Arc<Channel>,
        counters: Arc<Counters>,
        limits: Limits,
        signals: watch::Sender<Signals>,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            channel,
            counters,
            limits: Mutex::new(limits),
            signals,
        });
        pool.announce(true);
        pool
    }

    /// Takes part from now on.
    pub fn join(self: &Arc<Self>) -> Share {
        self.counters.publish_streams.increment();
        self.announce(false);
        Share {
            pool: Arc::clone(self),
        }
    }

    /// Changes the limits.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.lock() = limits;
        self.announce(true);
    }

    /// The limits now.
    pub fn limits(&self) -> Limits {
        *self.limits.lock()
    }

    /// Changes the channel's capacity, and with it every stream's credit.
    pub fn set_capacity(&self, capacity: u32) {
        self.channel.set_capacity(capacity);
        self.announce(true);
    }

    /// Every stream wakes for a new grant, so one is announced when it differs from the last by an eighth or more
    /// (else n streams that come one after the other cost n² wakes), or when somebody turned a knob.
    fn announce(&self, always: bool) {
        let new = grant(
            u64::from(self.channel.capacity()),
            &self.limits(),
            self.counters.publish_streams.get(),
        );
        self.signals.send_if_modified(|signals| {
            let far = |a: u64, b: u64| a.abs_diff(b) * 8 >= b.max(1);
            let old = signals.grant;
            let change =
                new != old && (always || far(new.messages, old.messages) || far(new.bytes, old.bytes));
            if change {
                signals.grant = new;
            }
            change
        });
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.pool.counters.publish_streams.decrement();
        self.pool.announce(false);
    }
}

fn grant(capacity: u64, limits: &Limits, streams: u64) -> Grant {
    let streams = streams.max(1);
    let most = limits.max_message_bytes.saturating_mul(2);
    Grant {
        messages: (capacity / streams).max(LEAST_MESSAGES),
        bytes: (limits.max_inflight_bytes / streams).clamp(limits.max_message_bytes, most),
    }
}

/// The bytes of messages that are in the broker, in part or whole, and not committed yet: the bound on memory that
/// holds whatever clients do.
#[derive(Debug)]
pub struct Inflight {
    used: AtomicU64,
    most: AtomicU64,
}

/// A part of the bound, given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    inflight: Arc<Inflight>,
    bytes: u64,
}

impl Inflight {
    /// A bound of `most` bytes.
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            most: AtomicU64::new(most),
        })
    }

    /// Changes the bound; what is reserved already stays.
    pub fn set_most(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Bytes reserved now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` for messages that came, if they are there. One that alone is larger than the bound passes where
    /// nothing else is.
    ///
    /// An eighth of the bound is left to [`Self::receive`]: messages that came can be answered with `Throttled`, and
    /// what cannot be received ends its stream.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reserved> {
        let most = self.most.load(Ordering::Relaxed);
        self.take(bytes, most - most / 8)
    }

    /// Takes `bytes` for a message that is coming in.
    pub fn receive(self: &Arc<Self>, bytes: u64) -> Option<Reserved> {
        self.take(bytes, self.most.load(Ordering::Relaxed))
    }

    fn take(self: &Arc<Self>, bytes: u64, most: u64) -> Option<Reserved> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let reserved = Reserved {
            inflight: Arc::clone(self),
            bytes,
        };
        (before == 0 || before + bytes <= most).then_some(reserved)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.inflight.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Counts one thing that is open now, and takes it back when dropped.
pub struct Open {
    counters: Arc<Counters>,
    gauge: fn(&Counters) -> &Gauge,
}

impl Open {
    /// One more stream or call.
    pub fn stream(counters: &Arc<Counters>) -> Self {
        Self::new(counters, |counters| &counters.streams)
    }

    /// One more session: a stream that is not finished here, whether its client has read its answers or not.
    pub fn session(counters: &Arc<Counters>) -> Self {
        Self::new(counters, |counters| &counters.sessions)
    }

    /// One more connection.
    pub fn connection(counters: &Arc<Counters>) -> Self {
        Self::new(counters, |counters| &counters.connections)
    }

    fn new(counters: &Arc<Counters>, gauge: fn(&Counters) -> &Gauge) -> Self {
        gauge(counters).increment();
        Self {
            counters: Arc::clone(counters),
            gauge,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.gauge)(&self.counters).decrement();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_connections: 1,
        max_streams_per_connection: 1,
        max_message_bytes: 4 << 20,
        max_inflight_bytes: 256 << 20,
    };

    #[test]
    fn streams_share_the_channel_evenly_and_always_have_something() {
        assert_eq!(grant(128, &LIMITS, 0).messages, 128);
        assert_eq!(grant(128, &LIMITS, 4).messages, 32);
        assert_eq!(grant(128, &LIMITS, 50_000).messages, LEAST_MESSAGES);
    }

    #[test]
    fn the_byte_credit_lets_the_largest_message_through_and_no_more_than_a_request_holds() {
        assert_eq!(grant(128, &LIMITS, 50_000).bytes, 4 << 20);
        assert_eq!(grant(128, &LIMITS, 1).bytes, 8 << 20);
        assert!(grant(128, &LIMITS, 1).bytes < LIMITS.max_request_bytes() as u64);
    }

    #[test]
    fn inflight_bytes_come_back_whether_granted_or_not() {
        let inflight = Inflight::new(100);
        let first = inflight.reserve(60);
        assert!(first.is_some());
        assert!(inflight.reserve(60).is_none());
        assert_eq!(inflight.used(), 60);
        drop(first);
        assert_eq!(inflight.used(), 0);
        assert!(inflight.reserve(1_000).is_some(), "alone, anything passes");
    }
}
