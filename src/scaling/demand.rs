//! What publishers would send if nothing held them back, and how many brokers that takes.

use super::capacity::busy;
use super::counters::Interval;
use super::policy::AutoscalingPolicy;
use super::window::{History, Sample};

/// The most that blocked time may hide of the demand: at 0.9, ten times what is accepted.
pub const MOST_HIDDEN: f64 = 0.9;

/// Hidden demand from which the brokers count as saturated.
pub const SATURATED: f64 = 0.1;

/// Hidden demand from which publishers are held back most of the time.
pub const MOSTLY: f64 = 0.5;

/// Hidden demand over a minute from which a demand above the target is felt.
pub const FELT: f64 = SATURATED / 2.0;

/// By how much what publishers were given must differ from what they sent to speak for itself.
const TOLD: f64 = 0.1;

/// How busy a broker must be for its publishers' blocked time to speak for more brokers. Where it is less,
/// they are held back by something else, such as a channel that is too small for the moment.
const BUSY_ENOUGH: f64 = 0.5;

/// What all brokers together felt over the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Messages accepted a second.
    pub accepted: f64,
    /// Messages acknowledged a second.
    pub acked: f64,
    /// `b`: the part of their active time that publishers spent without credit at brokers that were busy or that
    /// acknowledged nothing; at most [`MOST_HIDDEN`].
    pub hidden: f64,
    /// The part of their active time that publishers spent without credit, whatever the reason, 0 to 1.
    pub blocked: f64,
    /// Consumers that had messages waiting and no credit, on average.
    pub starved: f64,
    /// The part of what was accepted that busy brokers had not acknowledged by the end, 0 to 1: it fills their channels.
    /// However large a channel is, it so shows at once that more comes in than goes out.
    pub filling: f64,
    /// How busy the busiest broker was.
    pub busiest: f64,
    /// The 99th percentile of the wait in the channel at the busy broker where it was longest, in seconds.
    pub delay: f64,
    /// Messages a second that publishers were given to send, of those that say so, and what was accepted of them.
    pub told: (f64, f64),
    /// Most publishers tell, and were given more or less than they sent a moment ago: what they tell is the demand also while it
    /// happens to be what they send. Only set where it is known what was before.
    pub known_to_tell: bool,
    /// How many brokers are in it.
    pub brokers: u32,
}

impl Reading {
    /// Adds up what `samples` picks of each broker's history, against what a broker can do (messages a second).
    /// `None` where it picks nothing.
    ///
    /// `span` is the time in seconds that all of it is taken over: a broker that was there for a part of it only
    /// counts for that part, or load that moves between brokers would count twice. Without it, each broker's rates
    /// are over its own time.
    pub fn take<'a, S, I>(
        histories: &[&'a History],
        samples: S,
        capacity: Option<f64>,
        span: Option<f64>,
    ) -> Option<Self>
    where
        S: Fn(&'a History) -> I,
        I: Iterator<Item = &'a Sample> + Clone,
    {
        let mut reading = Self::default();
        let (mut blocked, mut hidden, mut active, mut filled) = (0.0, 0.0, 0.0, 0.0);
        for &history in histories {
            let picked = samples(history);
            let intervals = picked.clone().map(|sample| &sample.interval);
            let Some(total) = Interval::sum(intervals) else {
                continue;
            };
            let quota = history.latest(0).map_or(0, |s| s.gauges.cpu_quota_nanos);
            let busy = busy(&total, quota, capacity);
            let part = span.map_or(1.0, |span| total.seconds() / span);
            reading.accepted += total.accepted_rate() * part;
            reading.acked += total.acked_rate() * part;
            let (offered, accepted) = total.told_rates();
            reading.told.0 += offered * part;
            reading.told.1 += accepted * part;
            reading.starved += total.starved_consumers() * part;
            reading.busiest = reading.busiest.max(busy);
            reading.brokers += 1;
            let streams = total.blocked_streams().min(total.active_streams()) * part;
            blocked += streams;
            active += total.active_streams() * part;
            if busy >= BUSY_ENOUGH || total.acked == 0 {
                hidden += streams;
                filled += total.accepted.saturating_sub(total.acked) as f64 / total.seconds() * part;
                let longest = picked.map(|sample| sample.gauges.sojourn_p99_nanos).max();
                reading.delay = reading.delay.max(longest.unwrap_or(0) as f64 / 1e9);
            }
        }
        if reading.accepted > 0.0 {
            reading.filling = filled / reading.accepted;
        }
        if active > 0.0 {
            reading.blocked = blocked / active;
            reading.hidden = (hidden / active).min(MOST_HIDDEN);
        }
        (reading.brokers > 0).then_some(reading)
    }

    /// `accepted / (1 - b)`, in messages a second. The true rate of Flink's autoscaler (DS2, OSDI 2018, adapted to
    /// blocked time), with what backpressure hides bounded.
    ///
    /// Where publishers say what they were given to send and it is not what they sent, or lately was not, that is the demand.
    pub fn demand(&self) -> f64 {
        if self.is_told() || self.known_to_tell {
            self.offered()
        } else {
            self.accepted / (1.0 - self.hidden)
        }
    }

    /// What publishers tell that they were given, and of those that tell nothing what blocked time lets conclude; messages a
    /// second.
    pub fn offered(&self) -> f64 {
        let others = (self.accepted - self.told.1).max(0.0);
        self.told.0 + others / (1.0 - self.hidden)
    }

    /// Whether publishers were given more or less than they sent, so that the demand is known from them. As much given as sent
    /// says nothing: so it is with those that wait until there is room.
    pub fn is_told(&self) -> bool {
        let (offered, accepted) = self.told;
        offered > 0.0 && (offered - accepted).abs() > TOLD * accepted
    }

    /// Whether most publishers say what they were given: then blocked time hides little that they do not tell, or they are such
    /// that wait until there is room.
    pub fn do_tell(&self) -> bool {
        self.told.1 > 0.5 * self.accepted
    }

    /// Whether busy brokers get more than they can do.
    pub fn is_saturated(&self) -> bool {
        self.hidden >= SATURATED || self.filling >= SATURATED
    }

    /// Whether blocked time hides so much that the demand is only known to be at least this.
    pub fn is_censored(&self) -> bool {
        self.hidden >= MOST_HIDDEN && !self.is_told() && !self.known_to_tell
    }
}

/// What the number of brokers is computed from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizing {
    /// Messages a second.
    pub demand: f64,
    /// Messages a second that one broker can do.
    pub capacity: f64,
    /// Messages in the channels; more than the target delay allows is not the brokers' debt but a channel that is
    /// too large.
    pub queued: f64,
    /// How long a message may wait in the channel, in seconds.
    pub target_delay_seconds: f64,
    /// Brokers that serve.
    pub ready: u32,
    /// Seconds until a broker that is decided on now serves.
    pub start_seconds: f64,
}

impl Sizing {
    /// What will have piled up when new brokers serve: `Q + max(0, demand - mu * ready) * startTime`.
    pub fn debt(&self) -> f64 {
        let supply = self.capacity * f64::from(self.ready);
        let short = self.demand - supply;
        self.queued.min(supply * self.target_delay_seconds) + short.max(0.0) * self.start_seconds
    }

    /// `N* = max(demand / target, demand + debt / catchUp) / mu`, not rounded. `None` for what is no number.
    pub fn brokers(&self, policy: &AutoscalingPolicy) -> Option<f64> {
        let steady = self.demand / policy.target_utilization();
        let catching_up = self.demand + self.debt() / policy.catch_up_seconds();
        let brokers = steady.max(catching_up) / self.capacity;
        (brokers.is_finite() && brokers >= 0.0).then_some(brokers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(hidden: f64) -> Reading {
        Reading {
            accepted: 2_400.0,
            hidden,
            ..Reading::default()
        }
    }

    fn sizing(demand: f64, ready: u32) -> Sizing {
        Sizing {
            demand,
            capacity: 1_000.0,
            queued: 0.0,
            target_delay_seconds: 0.1,
            ready,
            start_seconds: 15.0,
        }
    }

    #[test]
    fn blocked_time_adds_what_it_hides_and_no_more_than_nine_tenths() {
        assert_eq!(reading(0.0).demand(), 2_400.0);
        assert_eq!(reading(0.5).demand(), 4_800.0);
        assert!(reading(MOST_HIDDEN).demand() <= 24_000.1);
        assert!(reading(MOST_HIDDEN).is_censored() && !reading(0.89).is_censored());
    }

    #[test]
    fn as_much_told_as_sent_is_the_demand_only_of_publishers_that_were_seen_to_tell() {
        let unknown = Reading {
            told: (2_400.0, 2_400.0),
            ..reading(MOST_HIDDEN)
        };
        assert!(unknown.demand() >= 23_999.9 && unknown.is_censored());
        let known = Reading {
            known_to_tell: true,
            ..unknown
        };
        assert_eq!(known.demand(), 2_400.0);
        assert!(!known.is_censored());
    }

    #[test]
    fn enough_brokers_for_the_target_and_for_the_debt() {
        let policy = AutoscalingPolicy::default();
        // 7000 / 0.7 = 10,000 outweighs 7000 + (7000 - 2000) * 15 / 60 = 8250.
        assert!((sizing(7_000.0, 2).brokers(&policy).unwrap() - 10.0).abs() < 1e-9);
        let tight = AutoscalingPolicy {
            target_utilization_percent: 100,
            ..policy.clone()
        };
        assert!((sizing(7_000.0, 2).brokers(&tight).unwrap() - 8.25).abs() < 1e-9);
        assert_eq!(sizing(0.0, 2).brokers(&policy), Some(0.0));
    }

    #[test]
    fn what_is_no_number_gives_none() {
        let policy = AutoscalingPolicy::default();
        for (demand, capacity) in [
            (f64::NAN, 1_000.0),
            (f64::INFINITY, 1_000.0),
            (1_000.0, 0.0),
            (0.0, 0.0),
            (1_000.0, f64::NAN),
            (-5.0, 1_000.0),
        ] {
            let sizing = Sizing {
                capacity,
                ..sizing(demand, 2)
            };
            assert_eq!(sizing.brokers(&policy), None, "{demand} {capacity}");
        }
    }

    #[test]
    fn a_channel_that_is_too_large_makes_no_debt() {
        let full = Sizing {
            queued: 1e6,
            ..sizing(1_000.0, 2)
        };
        assert!((full.debt() - 200.0).abs() < 1e-9);
    }
}
