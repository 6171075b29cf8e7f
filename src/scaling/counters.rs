//! One broker's report in plain numbers, and what happened between two of them.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// The counters of one report. Within one boot they only grow.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerCounters {
    /// Another one after each start of the process; only counters of the same boot can be compared.
    pub boot_id: u64,
    /// Nanoseconds since the boot by a monotonic clock: the divisor of every rate.
    pub uptime_nanos: u64,
    /// Messages accepted into the channel.
    pub accepted_messages: u64,
    /// Messages acknowledged.
    pub acked_messages: u64,
    /// Bytes of the messages acknowledged.
    pub acked_bytes: u64,
    /// Batches of publishers and requests of consumers; 0 where the broker does not say.
    #[serde(default)]
    pub requests: u64,
    /// Messages delivered to consumers, again and again included; 0 where the recording does not say.
    #[serde(default)]
    pub delivered_messages: u64,
    /// Commits to the log.
    pub commits: u64,
    /// Nanoseconds in fdatasync.
    pub commit_nanos: u64,
    /// Nanoseconds in encoding and writing.
    pub append_nanos: u64,
    /// CPU nanoseconds of the process.
    pub cpu_nanos: u64,
    /// Nanoseconds that publish streams spent with all their credit used, summed over streams.
    pub publisher_blocked_nanos: u64,
    /// Nanoseconds that publish streams spent with anything unacknowledged, summed over streams.
    pub publisher_active_nanos: u64,
    /// Nanoseconds that members of groups had messages waiting and no credit, summed over members.
    pub consumer_starved_nanos: u64,
    /// Messages that publishers were given to send, where they say so, else what they sent; 0 where the broker does not say.
    #[serde(default)]
    pub offered_messages: u64,
    /// Messages of publishers that do not say how many there were to send.
    #[serde(default)]
    pub untold_messages: u64,
}

impl BrokerCounters {
    /// All counters but the clock, in some order.
    pub(super) fn levels(&self) -> Levels {
        let Self {
            boot_id: _,
            uptime_nanos: _,
            accepted_messages,
            acked_messages,
            acked_bytes,
            requests,
            delivered_messages,
            commits,
            commit_nanos,
            append_nanos,
            cpu_nanos,
            publisher_blocked_nanos,
            publisher_active_nanos,
            consumer_starved_nanos,
            offered_messages,
            untold_messages,
        } = *self;
        Levels([
            accepted_messages,
            acked_messages,
            acked_bytes,
            requests,
            delivered_messages,
            commits,
            commit_nanos,
            append_nanos,
            cpu_nanos,
            publisher_blocked_nanos,
            publisher_active_nanos,
            consumer_starved_nanos,
            offered_messages,
            untold_messages,
        ])
    }
}

/// How high each counter is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(transparent)]
pub(super) struct Levels([u64; 14]);

impl Levels {
    /// The higher one of each.
    pub(super) fn max(&self, other: &Self) -> Self {
        let mut levels = *self;
        for (level, other) in levels.0.iter_mut().zip(other.0) {
            *level = other.max(*level);
        }
        levels
    }

    /// Whether each is as high as in `others`.
    pub(super) fn reach(&self, others: &Self) -> bool {
        self.0.iter().zip(others.0).all(|(level, other)| *level >= other)
    }

    /// Whether any of these was not reached in `before` and is in `after`.
    pub(super) fn is_passed(&self, before: &Self, after: &Self) -> bool {
        let mut levels = self.0.iter().zip(before.0).zip(after.0);
        levels.any(|((level, before), after)| before < *level && *level <= after)
    }
}

/// The part of a report that says "now".
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerGauges {
    /// CPU nanoseconds a second that the container may use; 0 where unknown.
    pub cpu_quota_nanos: u64,
    /// Messages in the channel.
    pub channel_messages: u64,
    /// Messages that fit into the channel.
    pub channel_capacity: u64,
    /// The shortest wait in the channel since the report before, in nanoseconds; 0 where nothing passed.
    pub sojourn_min_nanos: u64,
    /// The 99th percentile of that wait, in nanoseconds; 0 where nothing passed.
    pub sojourn_p99_nanos: u64,
    /// Messages that no group is done with.
    pub unconsumed_messages: u64,
    /// Publish streams that are open; 0 where the recording does not say.
    #[serde(default)]
    pub publish_streams: u64,
}

/// What one broker did between two reports, or in several such intervals together.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// How long it took, by the broker's monotonic clock.
    pub nanos: u64,
    /// Messages accepted.
    pub accepted: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Bytes acknowledged.
    pub acked_bytes: u64,
    /// Batches of publishers and requests of consumers.
    #[serde(default)]
    pub requests: u64,
    /// Messages delivered to consumers.
    #[serde(default)]
    pub delivered: u64,
    /// Commits.
    pub commits: u64,
    /// Nanoseconds in fdatasync.
    pub commit_nanos: u64,
    /// Nanoseconds in encoding and writing.
    pub append_nanos: u64,
    /// CPU nanoseconds.
    pub cpu_nanos: u64,
    /// Nanoseconds without credit, summed over publish streams.
    pub blocked_nanos: u64,
    /// Nanoseconds with anything unacknowledged, summed over publish streams.
    pub active_nanos: u64,
    /// Nanoseconds of waiting for credit, summed over consumers.
    pub starved_nanos: u64,
    /// Messages that publishers were given to send.
    #[serde(default)]
    pub offered: u64,
    /// Messages of publishers that do not say how many they were given.
    #[serde(default)]
    pub untold: u64,
}

/// What happened between two reports of one broker.
///
/// `None` where they cannot be compared: another boot, the same report again, an older one that came late, or
/// any counter that fell. Clock steps cannot disturb it: only the broker's monotonic clock is looked at.
pub fn difference(previous: &BrokerCounters, current: &BrokerCounters) -> Option<Interval> {
    if previous.boot_id != current.boot_id || current.uptime_nanos <= previous.uptime_nanos {
        return None;
    }
    let grown = |field: fn(&BrokerCounters) -> u64| field(current).checked_sub(field(previous));
    Some(Interval {
        nanos: grown(|c| c.uptime_nanos)?,
        accepted: grown(|c| c.accepted_messages)?,
        acked: grown(|c| c.acked_messages)?,
        acked_bytes: grown(|c| c.acked_bytes)?,
        requests: grown(|c| c.requests)?,
        delivered: grown(|c| c.delivered_messages)?,
        commits: grown(|c| c.commits)?,
        commit_nanos: grown(|c| c.commit_nanos)?,
        append_nanos: grown(|c| c.append_nanos)?,
        cpu_nanos: grown(|c| c.cpu_nanos)?,
        blocked_nanos: grown(|c| c.publisher_blocked_nanos)?,
        active_nanos: grown(|c| c.publisher_active_nanos)?,
        starved_nanos: grown(|c| c.consumer_starved_nanos)?,
        offered: grown(|c| c.offered_messages)?,
        untold: grown(|c| c.untold_messages)?,
    })
}

impl AddAssign<&Interval> for Interval {
    fn add_assign(&mut self, other: &Interval) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.nanos, other.nanos);
        add(&mut self.accepted, other.accepted);
        add(&mut self.acked, other.acked);
        add(&mut self.acked_bytes, other.acked_bytes);
        add(&mut self.requests, other.requests);
        add(&mut self.delivered, other.delivered);
        add(&mut self.commits, other.commits);
        add(&mut self.commit_nanos, other.commit_nanos);
        add(&mut self.append_nanos, other.append_nanos);
        add(&mut self.cpu_nanos, other.cpu_nanos);
        add(&mut self.blocked_nanos, other.blocked_nanos);
        add(&mut self.active_nanos, other.active_nanos);
        add(&mut self.starved_nanos, other.starved_nanos);
        add(&mut self.offered, other.offered);
        add(&mut self.untold, other.untold);
    }
}

impl Interval {
    /// Several intervals of one broker as one; `None` if there are none.
    pub fn sum<'a>(intervals: impl IntoIterator<Item = &'a Interval>) -> Option<Interval> {
        let mut total = Interval::default();
        for interval in intervals {
            total += interval;
        }
        (total.nanos > 0).then_some(total)
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// `part` over `whole`; 0 where there is no whole.
    fn ratio(part: u64, whole: u64) -> f64 {
        if whole == 0 {
            0.0
        } else {
            part as f64 / whole as f64
        }
    }

    /// Messages accepted a second.
    pub fn accepted_rate(&self) -> f64 {
        Self::ratio(self.accepted, self.nanos) * 1e9
    }

    /// Messages acknowledged a second.
    pub fn acked_rate(&self) -> f64 {
        Self::ratio(self.acked, self.nanos) * 1e9
    }

    /// Messages of publishers that say what they were given, offered and accepted, a second.
    pub fn told_rates(&self) -> (f64, f64) {
        let rate = |messages| Self::ratio(messages, self.nanos) * 1e9;
        if self.offered == 0 {
            return (0.0, 0.0);
        }
        (
            rate(self.offered.saturating_sub(self.untold)),
            rate(self.accepted.saturating_sub(self.untold)),
        )
    }

    /// Publish streams that were without credit, on average over the time.
    pub fn blocked_streams(&self) -> f64 {
        Self::ratio(self.blocked_nanos, self.nanos)
    }

    /// Publish streams that had anything unacknowledged, on average over the time.
    pub fn active_streams(&self) -> f64 {
        Self::ratio(self.active_nanos, self.nanos)
    }

    /// The part of their active time that publishers spent without credit, 0 to 1.
    pub fn blocked_fraction(&self) -> f64 {
        Self::ratio(self.blocked_nanos, self.active_nanos).min(1.0)
    }

    /// CPU used, in cores.
    pub fn cores(&self) -> f64 {
        Self::ratio(self.cpu_nanos, self.nanos)
    }

    /// CPU used, as a part of so many cores; 0 where these are unknown, which is 0 as well.
    pub fn utilization(&self, cores: f64) -> f64 {
        if cores > 0.0 { self.cores() / cores } else { 0.0 }
    }

    /// Consumers that had messages waiting and no credit, on average over the time.
    pub fn starved_consumers(&self) -> f64 {
        Self::ratio(self.starved_nanos, self.nanos)
    }

    /// Messages a commit, as it was; 0 without commits.
    pub fn batch(&self) -> f64 {
        Self::ratio(self.acked, self.commits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(uptime_seconds: u64, acked: u64) -> BrokerCounters {
        BrokerCounters {
            boot_id: 7,
            uptime_nanos: uptime_seconds * 1_000_000_000,
            accepted_messages: acked,
            acked_messages: acked,
            publisher_active_nanos: uptime_seconds * 4_000_000_000,
            publisher_blocked_nanos: uptime_seconds * 1_000_000_000,
            cpu_nanos: uptime_seconds * 200_000_000,
            ..BrokerCounters::default()
        }
    }

    #[test]
    fn rates_are_by_the_brokers_own_clock() {
        let interval = difference(&counters(10, 1_000), &counters(12, 5_000)).unwrap();
        assert_eq!(interval.acked_rate(), 2_000.0);
        assert_eq!(interval.blocked_fraction(), 0.25);
        assert_eq!(interval.cores(), 0.2);
    }

    #[test]
    fn reports_that_cannot_be_compared_give_nothing() {
        let before = counters(10, 1_000);
        let other_boot = BrokerCounters {
            boot_id: 8,
            ..counters(12, 5_000)
        };
        let fallen = counters(12, 999);
        for (name, after) in [
            ("duplicate", before),
            ("late", counters(9, 900)),
            ("restarted", other_boot),
            ("a counter fell", fallen),
        ] {
            assert_eq!(difference(&before, &after), None, "{name}");
        }
    }

    #[test]
    fn a_missed_report_loses_nothing() {
        let (first, second, third) = (counters(1, 10), counters(2, 500), counters(3, 700));
        let mut sum = difference(&first, &second).unwrap();
        sum += &difference(&second, &third).unwrap();
        assert_eq!(difference(&first, &third), Some(sum));
    }

    #[test]
    fn an_empty_interval_has_finite_rates() {
        let nothing = Interval::default();
        for rate in [
            nothing.acked_rate(),
            nothing.blocked_fraction(),
            nothing.cores(),
            nothing.batch(),
            nothing.starved_consumers(),
        ] {
            assert_eq!(rate, 0.0);
        }
    }
}
