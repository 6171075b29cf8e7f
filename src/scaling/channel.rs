//! The fast loop: how many messages fit between the network and the log of each broker.
//!
//! Little's law: what fits is a rate times the delay that one is willing to queue. Whether the queue is a burst or
//! standing is CoDel's test (RFC 8289): the *shortest* wait over a whole interval.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counters::Interval;
use super::observed::Observed;
use super::policy::{ChannelMode, ChannelPolicy, Policy};
use super::state::State;
use super::time::Time;
use super::window::{History, Sample};

/// What is looked at before the channel shrinks, and the time between two changes of which one is no growth.
const INTERVAL: Duration = Duration::from_secs(5);
/// The same where it grows: what publishers wait for meanwhile costs more than room, and the target delay bounds that anyway.
const GROWTH_INTERVAL: Duration = Duration::from_secs(2);
/// Samples of a broker that an interval must have.
const LEAST_SAMPLES: usize = 2;
/// Changes smaller than this are not made.
const DEAD_BAND: f64 = 0.1;
/// Blocked time from which publishers count as held back: a burst of 50 ms in five seconds. More room costs nothing as long as
/// the queue does not stand, and a tenth of the messages may come in a hundredth of the time.
const BLOCKED: f64 = 0.01;
/// Commits' worth of messages that must fit: those that one takes, and those that come meanwhile for the next one.
const ROOM: f64 = 2.0;
/// Commits that a message may wait for: the rest of the one that runs, one before its own, and its own.
const COMMITS: f64 = 3.0;
/// Room above what a burst needs.
const HEADROOM: f64 = 1.25;
/// The least growth where what is needed cannot be told: more than any step, so that `maxChangePercent` alone bounds it.
const LEAST_GROWTH: f64 = 2.0;

/// The capacity of the channels, and why.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ChannelDecision {
    /// The capacity so far, in messages.
    pub from: u32,
    /// The capacity to set in every broker, in messages.
    pub capacity: u32,
    /// Why.
    pub reason: ChannelReason,
    /// The shortest wait in the interval, at the broker where it was longest.
    pub shortest_wait: Duration,
    /// The part of their active time that publishers were without credit, in percent.
    pub blocked_percent: u32,
}

impl ChannelDecision {
    /// Whether there is anything to do.
    pub fn changes(&self) -> bool {
        self.capacity != self.from
    }
}

/// Why the capacity of the channels is as it is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelReason {
    /// The mode is `Fixed`.
    Fixed,
    /// It was outside `min` and `max`.
    OutOfBounds,
    /// Brokers are being emptied or restarted, or added, in which case it may grow.
    Frozen,
    /// The last change is too recent, or there are too few reports since.
    Measuring,
    /// Reports of some brokers are missing.
    MetricsMissing,
    /// Nothing was acknowledged yet: what a broker can do is unknown.
    CapacityUnknown,
    /// Messages wait longer than the target all the time: room would only add latency.
    StandingQueue,
    /// Publishers were held back while the queue was shorter than the target allows.
    Burst,
    /// Publishers were held back, and the queue delay or the memory allows no more room.
    AtCeiling,
    /// Nothing speaks for another capacity.
    Steady,
}

impl fmt::Display for ChannelDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait = self.shortest_wait.as_millis();
        match self.reason {
            ChannelReason::Fixed => write!(f, "the channel's mode is Fixed"),
            ChannelReason::OutOfBounds => write!(f, "the capacity was outside min and max"),
            ChannelReason::Frozen => write!(f, "brokers are being added, emptied or restarted"),
            ChannelReason::Measuring => write!(f, "too few reports since the last change"),
            ChannelReason::MetricsMissing => write!(f, "reports of some brokers are missing"),
            ChannelReason::CapacityUnknown => write!(f, "what a broker can do is not known yet"),
            ChannelReason::StandingQueue => write!(f, "messages never waited less than {wait} ms"),
            ChannelReason::Burst => write!(
                f,
                "publishers were blocked {} % of the time while the shortest wait was {wait} ms",
                self.blocked_percent
            ),
            ChannelReason::AtCeiling => write!(
                f,
                "publishers were blocked {} % of the time, but the target delay and the memory allow no more room",
                self.blocked_percent
            ),
            ChannelReason::Steady => write!(f, "nothing speaks for another capacity"),
        }?;
        if self.changes() {
            write!(f, ": {} -> {} messages", self.from, self.capacity)
        } else {
            write!(f, ": stays at {} messages", self.from)
        }
    }
}

/// Decides on the capacity of the channels.
pub fn decide_channel(policy: &Policy, observed: &Observed, state: &mut State, now: Time) -> ChannelDecision {
    state.observe(policy, observed, now);
    let channel = &policy.channel;
    let from = match observed.channel_capacity {
        0 => channel.capacity.max(1),
        capacity => capacity,
    };
    let staleness = policy.autoscaling.metrics_staleness;
    let histories = state.histories.measured(observed, staleness, now);
    let start = (now - INTERVAL).max(state.channel_changed.unwrap_or_default());
    let may_change = |interval| state.channel_changed.is_none_or(|at| now.since(at) >= interval);
    let is_interrupted = observed.rolling_out || observed.draining;
    // Most of the time there is nothing to do: then nothing is summed up either.
    let due = channel.mode == ChannelMode::Auto && !is_interrupted && may_change(GROWTH_INTERVAL);
    let signals = if due {
        Signals::take(&histories, start)
    } else {
        Signals::default()
    };
    let keep = |reason| (from, reason);
    let (capacity, reason) = if channel.mode == ChannelMode::Fixed {
        (channel.capacity.max(1), ChannelReason::Fixed)
    } else if channel.within_bounds(from) != from {
        (channel.within_bounds(from), ChannelReason::OutOfBounds)
    } else if is_interrupted {
        keep(ChannelReason::Frozen)
    } else if histories.len() < observed.ready_brokers() as usize {
        keep(ChannelReason::MetricsMissing)
    } else {
        let judged = judge(channel, from, &signals, &histories, state);
        // Soon after a change and while brokers are on their way there is only growth: publishers that wait are waiting now.
        if judged.0 > from {
            judged
        } else if are_starting(observed, state) {
            keep(ChannelReason::Frozen)
        } else if !may_change(INTERVAL) {
            keep(ChannelReason::Measuring)
        } else {
            judged
        }
    };
    let decision = ChannelDecision {
        from,
        capacity,
        reason,
        shortest_wait: Duration::from_nanos(signals.shortest_wait_nanos),
        blocked_percent: (signals.blocked * 100.0).round() as u32,
    };
    if decision.changes() {
        state.channel_changed = Some(now);
    }
    decision
}

/// What the reports alone speak for.
fn judge(
    channel: &ChannelPolicy,
    from: u32,
    signals: &Signals,
    histories: &[&History],
    state: &State,
) -> (u32, ChannelReason) {
    if signals.fewest_samples < LEAST_SAMPLES {
        return (from, ChannelReason::Measuring);
    }
    if !signals.is_standing(channel) && signals.blocked < BLOCKED {
        let known = histories
            .iter()
            .any(|history| history.newest(usize::MAX).any(|sample| sample.interval.acked > 0));
        return (
            from,
            if known {
                ChannelReason::Steady
            } else {
                ChannelReason::CapacityUnknown
            },
        );
    }
    let estimate = super::capacity::estimate(
        histories,
        |history| history.since(Time::default()),
        channel,
        state.durable.correction,
    );
    match estimate {
        Some(mu) => resize(channel, from, (signals, Window::take(histories)), mu.per_broker),
        None => (from, ChannelReason::CapacityUnknown),
    }
}

/// Whether brokers that were decided on do not serve yet.
fn are_starting(observed: &Observed, state: &State) -> bool {
    let waiting = state.durable.jump.is_some_and(|jump| jump.ready_since.is_none());
    waiting || observed.ready_brokers() != observed.current_replicas
}

/// What the channels felt.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Signals {
    /// Samples in the interval, of the broker that has fewest.
    fewest_samples: usize,
    /// The shortest wait at the broker where it was longest; of brokers whose every sample let anything pass.
    shortest_wait_nanos: u64,
    /// Publishers' time without credit, 0 to 1.
    blocked: f64,
    /// How long a commit took, in seconds, at the broker where it took longest.
    commit_seconds: f64,
}

/// What a broker had to do over the whole window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Window {
    /// The 95th percentile of the demand, messages a second.
    demand_p95: f64,
    /// 0 where nothing was acknowledged.
    bytes_per_message: f64,
}

impl Signals {
    /// CoDel's test: even the shortest wait was too long.
    fn is_standing(&self, channel: &ChannelPolicy) -> bool {
        self.shortest_wait_nanos as f64 / 1e9 > self.at_least(channel, COMMITS)
    }

    /// The target delay, or what so many commits take if that is more: a disk that is slower than the target makes no queue that
    /// stands, and with room for less it would wait for messages between its commits.
    fn at_least(&self, channel: &ChannelPolicy, commits: f64) -> f64 {
        channel
            .target_queue_delay
            .as_secs_f64()
            .max(commits * self.commit_seconds)
    }

    fn take(histories: &[&History], start: Time) -> Self {
        let shortest = |history: &&History| {
            let waits = history.since(start).filter(|sample| sample.interval.acked > 0);
            waits.map(|sample| sample.gauges.sojourn_min_nanos).min()
        };
        let interval = |sample: &Sample| sample.interval;
        let recent: Vec<Interval> = histories
            .iter()
            .flat_map(|h| h.since(start))
            .map(interval)
            .collect();
        Self {
            fewest_samples: histories.iter().map(|h| h.count_since(start)).min().unwrap_or(0),
            shortest_wait_nanos: histories.iter().filter_map(shortest).max().unwrap_or(0),
            commit_seconds: histories
                .iter()
                .filter_map(|history| Interval::sum(history.since(start).map(|sample| &sample.interval)))
                .filter(|total| total.commits > 0)
                .map(|total| total.commit_nanos as f64 / 1e9 / total.commits as f64)
                .fold(0.0, f64::max),
            blocked: Interval::sum(&recent).map_or(0.0, |total| total.blocked_fraction()),
        }
    }
}

impl Window {
    fn take(histories: &[&History]) -> Self {
        let all = histories.iter().flat_map(|history| history.newest(usize::MAX));
        let window: Vec<Interval> = all.map(|sample| sample.interval).collect();
        let mut demands: Vec<f64> = window.iter().map(demand).collect();
        demands.sort_by(f64::total_cmp);
        let total = Interval::sum(&window).unwrap_or_default();
        Self {
            demand_p95: demands.get(demands.len() * 95 / 100).copied().unwrap_or(0.0),
            bytes_per_message: if total.acked > 0 {
                total.acked_bytes as f64 / total.acked as f64
            } else {
                0.0
            },
        }
    }
}

fn demand(interval: &Interval) -> f64 {
    interval.accepted_rate() / (1.0 - interval.blocked_fraction().min(super::demand::MOST_HIDDEN))
}

/// The capacity for what was felt, where a broker can do `mu` messages a second.
fn resize(
    channel: &ChannelPolicy,
    from: u32,
    (signals, window): (&Signals, Window),
    mu: f64,
) -> (u32, ChannelReason) {
    let current = f64::from(from);
    let by_delay = mu * signals.at_least(channel, ROOM);
    let by_memory = if window.bytes_per_message > 0.0 {
        channel.max_inflight_bytes as f64 / window.bytes_per_message
    } else {
        f64::INFINITY
    };
    let ceiling = by_delay.min(by_memory);
    let (wanted, reason) = if signals.is_standing(channel) {
        (ceiling.min(current), ChannelReason::StandingQueue)
    } else if signals.blocked >= BLOCKED {
        let burst = (window.demand_p95 - mu).max(0.0) * channel.burst_window.as_secs_f64();
        // Held back with room to spare in the delay: the channel is too small, whatever the estimate says of the burst.
        let wanted = (HEADROOM * burst).max(LEAST_GROWTH * current).min(ceiling);
        if wanted > current {
            (wanted, ChannelReason::Burst)
        } else {
            (current, ChannelReason::AtCeiling)
        }
    } else {
        (current, ChannelReason::Steady)
    };
    let capacity = step(channel, from, wanted);
    if capacity == from && reason == ChannelReason::Burst {
        return (from, ChannelReason::AtCeiling);
    }
    (capacity, reason)
}

/// `wanted` within the dead band, the step limit and the bounds.
fn step(channel: &ChannelPolicy, from: u32, wanted: f64) -> u32 {
    let current = f64::from(from);
    if !wanted.is_finite() || (wanted - current).abs() <= DEAD_BAND * current {
        return from;
    }
    // At least one message, or a small channel would never move.
    let most = (current * f64::from(channel.max_change_percent.min(100)) / 100.0)
        .floor()
        .max(1.0);
    let stepped = wanted.clamp(current - most, current + most);
    channel.within_bounds(stepped.round() as u32)
}
