//! What is refused, by reason: counted for `/metrics`, and said in the log no more often than every ten seconds a
//! reason, so that whoever floods a broker does not flood its log.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two lines of one reason.
const QUIET: Duration = Duration::from_secs(10);

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A connection, or all that is on it.
    Connections,
    /// A stream or call.
    Streams,
    /// Messages; the stream goes on.
    Messages,
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `limits.maxConnections` are open.
    ConnectionLimit,
    /// The system gave no socket, most likely for want of file descriptors.
    Accept,
    /// No preface and settings in time.
    Handshake,
    /// A ping was not answered, or nothing sent was received: the peer is gone, or does not read.
    Keepalive,
    /// Streams opened and reset faster than they can be looked at, or too many faults on one connection.
    Resets,
    /// Pings and settings and nothing else.
    Control,
    /// It does not keep to HTTP/2.
    Protocol,
    /// More headers than a request may have.
    Headers,
    /// More messages or bytes than the credit.
    Credit,
    /// `limits.maxInflightBytes` are being received.
    Receiving,
    /// A request larger than any that the limits allow.
    RequestBytes,
    /// It was not opened in time.
    NotOpened,
    /// It does not read what it is answered.
    Unread,
    /// The topic has as many groups as it may.
    Groups,
    /// `limits.maxInflightBytes` are held.
    Inflight,
}

/// All of them, with their labels.
const ALL: [(Reason, Family, &str); 15] = [
    (Reason::ConnectionLimit, Family::Connections, "limit"),
    (Reason::Accept, Family::Connections, "accept"),
    (Reason::Handshake, Family::Connections, "handshake"),
    (Reason::Keepalive, Family::Connections, "keepalive"),
    (Reason::Resets, Family::Connections, "resets"),
    (Reason::Control, Family::Connections, "control"),
    (Reason::Protocol, Family::Connections, "protocol"),
    (Reason::Headers, Family::Streams, "headers"),
    (Reason::Credit, Family::Streams, "credit"),
    (Reason::Receiving, Family::Streams, "receiving"),
    (Reason::RequestBytes, Family::Streams, "request_bytes"),
    (Reason::NotOpened, Family::Streams, "not_opened"),
    (Reason::Unread, Family::Streams, "unread"),
    (Reason::Groups, Family::Streams, "groups"),
    (Reason::Inflight, Family::Messages, "inflight"),
];

/// Counts what one broker refuses.
#[derive(Debug)]
pub struct Refusals {
    began: Instant,
    counts: [Count; ALL.len()],
}

#[derive(Debug, Default)]
struct Count {
    total: AtomicU64,
    /// Milliseconds from `began` at which a line may be said again.
    quiet_until: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            counts: Default::default(),
        }
    }
}

impl Refusals {
    /// Counts one.
    pub fn count(&self, reason: Reason, what: &dyn Display) {
        self.count_many(reason, 1, what);
    }

    /// Counts `n`.
    pub fn count_many(&self, reason: Reason, n: u64, what: &dyn Display) {
        let Some((count, (_, family, label))) = self
            .counts
            .iter()
            .zip(ALL)
            .find(|(_, (known, _, _))| *known == reason)
        else {
            return;
        };
        let total = count.total.fetch_add(n, Ordering::Relaxed) + n;
        let now = self.began.elapsed().as_millis() as u64;
        let quiet_until = count.quiet_until.load(Ordering::Relaxed);
        let next = now + QUIET.as_millis() as u64;
        let is_mine = now >= quiet_until
            && count
                .quiet_until
                .compare_exchange(quiet_until, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_mine {
            tracing::warn!(refused = ?family, reason = label, total, "{what}");
        }
    }

    /// Each reason of a family and its number.
    pub fn all(&self, family: Family) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts
            .iter()
            .zip(ALL)
            .filter(move |(_, (_, its, _))| *its == family)
            .map(|(count, (_, _, label))| (label, count.total.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_in_its_family_alone() {
        let refusals = Refusals::default();
        refusals.count(Reason::Credit, &"too much");
        refusals.count_many(Reason::Inflight, 4, &"too much");
        let of = |family| refusals.all(family).map(|(_, count)| count).sum::<u64>();
        assert_eq!(
            (of(Family::Connections), of(Family::Streams), of(Family::Messages)),
            (0, 1, 4)
        );
        assert!(refusals.all(Family::Streams).any(|one| one == ("credit", 1)));
    }
}
