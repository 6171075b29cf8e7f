//! Everything that a decision on the number of brokers is made on, put together from the state and what was
//! observed.

use std::time::Duration;

use super::capacity::{self, Capacity};
use super::decision::Inputs;
use super::demand::{MOSTLY, Reading, SATURATED, Sizing};
use super::guards::Uneven;
use super::observed::{Observed, Report};
use super::policy::Policy;
use super::state::State;
use super::time::Time;
use super::trend::Trend;
use super::window::History;

/// Seconds of reports that a mean must cover to be acted on.
pub(super) const SHORTEST_MEAN: f64 = 30.0;
/// Seconds of reports over which noise evens out well enough to correct a jump by, or to keep a broker for.
const EVENED_OUT: f64 = 10.0;
/// The part of what the brokers can do from which a demand has crept up to it, rather than jumped beyond it.
const CREPT: f64 = 0.85;
/// How far above what was before a demand that crept up may be.
const CREEPING: f64 = 1.25;
/// How far two readings may differ to agree.
const AGREEMENT: f64 = 0.2;

/// Everything that is known now, in plain numbers.
pub(super) struct View<'a> {
    pub(super) policy: &'a Policy,
    pub(super) observed: &'a Observed,
    pub(super) now: Time,
    /// Brokers that are Ready; of those, brokers with a fresh report; of those, brokers with a rate.
    pub(super) ready: u32,
    pub(super) fresh: u32,
    pub(super) measured: u32,
    /// The last three readings, the newest first.
    pub(super) latest: [Option<Reading>; 3],
    /// Over the window, and how many seconds of it there are.
    pub(super) mean: Option<Reading>,
    pub(super) mean_seconds: f64,
    /// What a broker can do, by the last two reports and by the window.
    pub(super) capacity_now: Option<f64>,
    pub(super) capacity_mean: Option<f64>,
    /// Since the jump that is under way was decided on, once that is long enough for noise to even out.
    pub(super) since_jump: Option<Reading>,
    /// A demand that rises steadily.
    pub(super) trend: Option<Trend>,
    /// The most that a demand can be of which blocked time only tells that it is more than the brokers can do.
    pub(super) plausible: f64,
    /// A broker that gets far more than the others.
    pub(super) uneven: Option<Uneven>,
    queued: u64,
    queue_delay_p99: Duration,
}

impl<'a> View<'a> {
    pub(super) fn new(policy: &'a Policy, observed: &'a Observed, state: &State, now: Time) -> Self {
        let staleness = policy.autoscaling.metrics_staleness;
        let measured = state.histories.measured(observed, staleness, now);
        let all = state.histories.all();
        let correction = state.durable.correction;
        // What was seen is the least that a broker can do, whatever the model says; and the most, where publishers were held
        // back most of the time and the model speaks of requests that are larger than any that were seen.
        let seen = state.durable.seen;
        let counts_requests = |history: &&History| history.latest(0).is_some_and(|s| s.interval.requests > 0);
        let is_limited = seen.is_firm() && all.iter().any(counts_requests);
        let rate = |capacity: Option<Capacity>| {
            let modelled = capacity
                .filter(|_| !is_limited)
                .map_or(0.0, |capacity| capacity.per_broker);
            Some(modelled.max(seen.rate())).filter(|rate| *rate > 0.0)
        };
        let capacity_mean = rate(capacity::estimate(
            &all,
            |history| history.since(Time::default()),
            &policy.channel,
            correction,
        ))
        .or(state.capacity);
        let capacity_now = rate(capacity::estimate(
            &measured,
            |history| history.newest(2),
            &policy.channel,
            correction,
        ))
        .or(capacity_mean);
        let (mean, mean_seconds) = since(state, state.mean_from, capacity_mean);
        let mut latest = [0, 1, 2].map(|back| {
            Reading::take(
                &measured,
                |history| history.newest(back + 1).skip(back),
                capacity_now,
                None,
            )
        });
        let since_jump = state.durable.jump.and_then(|jump| {
            let span = state.histories.span_since(jump.at).as_secs_f64();
            let samples = |history| History::since(history, jump.at);
            (span >= EVENED_OUT)
                .then(|| Reading::take(&all, samples, capacity_now, Some(span)))
                .flatten()
        });
        let before = Reading::take(
            &measured,
            |history| history.newest(13).skip(3),
            capacity_now,
            None,
        );
        let known_to_tell = latest.iter().flatten().chain(&before).any(Reading::is_told);
        for reading in latest.iter_mut().flatten() {
            reading.known_to_tell = known_to_tell && reading.do_tell();
        }
        let plausible = before
            .zip(capacity_now)
            .filter(|(before, capacity)| {
                before.hidden < MOSTLY && before.accepted >= CREPT * capacity * f64::from(before.brokers)
            })
            .zip(latest[0])
            .map_or(f64::INFINITY, |((before, _), now)| {
                CREEPING * before.accepted.max(now.accepted)
            });
        let fresh = |report: &Report| report.is_fresh(staleness, now);
        let reports = || observed.ready().filter_map(|broker| broker.report).filter(fresh);
        Self {
            policy,
            observed,
            now,
            ready: observed.ready_brokers(),
            fresh: reports().count() as u32,
            measured: measured.len() as u32,
            latest,
            mean,
            mean_seconds,
            capacity_now,
            capacity_mean,
            since_jump,
            trend: Trend::of(&all, state.mean_from),
            plausible,
            uneven: Uneven::find(
                observed,
                state,
                capacity_now,
                policy.autoscaling.target_utilization(),
            ),
            queued: reports().fold(0, |sum, report| {
                sum.saturating_add(report.gauges.channel_messages)
            }),
            queue_delay_p99: Duration::from_nanos(
                reports()
                    .map(|report| report.gauges.sojourn_p99_nanos)
                    .max()
                    .unwrap_or(0),
            ),
        }
    }

    /// Over the end of the window.
    pub(super) fn recent(&self, state: &State) -> Option<Reading> {
        let from = self.now - Duration::from_secs_f64(EVENED_OUT);
        since(state, from.max(state.mean_from), self.capacity_mean).0
    }

    /// Brokers that were decided on lately are not Ready yet.
    pub(super) fn are_starting(&self, state: &State) -> bool {
        let patience = self.observed.start_time.saturating_mul(2);
        let lately = state
            .durable
            .last_scale
            .is_some_and(|at| self.now.since(at) < patience);
        lately && self.ready < self.observed.current_replicas
    }

    /// Publishers are held back by busy brokers, or messages wait and none is acknowledged.
    pub(super) fn is_distressed(&self) -> bool {
        self.latest[0].is_some_and(|reading| {
            reading.hidden >= SATURATED
                || (reading.acked <= 0.0 && (reading.accepted > 0.0 || self.queued > 0))
        })
    }

    pub(super) fn sizing(&self, demand: f64, capacity: f64) -> Sizing {
        Sizing {
            demand,
            capacity,
            queued: self.queued as f64,
            target_delay_seconds: self.policy.channel.target_queue_delay.as_secs_f64(),
            ready: self.ready,
            start_seconds: self.observed.start_time.as_secs_f64(),
        }
    }

    /// The demand that two saturated readings in a row agree on; of three that do not agree, the mean of the last two, so
    /// that a decision is never more than three reports away.
    pub(super) fn saturated_demand(&self) -> Option<(f64, Reading)> {
        let saturated = |reading: &Option<Reading>| reading.filter(Reading::is_saturated);
        let newest = saturated(&self.latest[0])?;
        let before = saturated(&self.latest[1])?;
        // What publishers tell outweighs what is concluded from their waiting.
        let (a, b) = match (newest.is_told(), before.is_told()) {
            (true, false) => (newest.demand(), newest.demand()),
            (false, true) => return None,
            _ => (newest.demand(), before.demand()),
        };
        if (a - b).abs() <= AGREEMENT * a.max(b) {
            Some((f64::midpoint(a, b), newest))
        } else if newest.is_told() && before.is_told() {
            // The older one may have begun before the load rose, and both are true of what they cover.
            Some((a.max(b), newest))
        } else if newest.do_tell() && !newest.is_told() {
            // Publishers that queue wait all the time as soon as anything is short, for a second that was busier.
            saturated(&self.latest[2]).map(|_| (a.min(b), newest))
        } else {
            // The oldest of three may have begun before the load rose.
            saturated(&self.latest[2]).map(|_| (f64::midpoint(a, b), newest))
        }
    }

    /// The demand while messages have waited for longer than they may at busy brokers, in three readings in a row; the
    /// lowest of the three. Not soon after a jump: messages then wait because old ones are worked off.
    pub(super) fn delayed_demand(&self) -> Option<(f64, Reading)> {
        let target = self.policy.channel.target_queue_delay.as_secs_f64();
        let [Some(newest), Some(second), Some(third)] = self.latest else {
            return None;
        };
        let all = [newest, second, third];
        let demand = all.iter().map(Reading::demand).fold(f64::INFINITY, f64::min);
        all.iter()
            .all(|reading| reading.delay > target && self.mean_seconds >= SHORTEST_MEAN)
            .then_some((demand, newest))
    }

    pub(super) fn inputs(&self, basis: &Basis) -> Inputs {
        Inputs {
            demand_per_second: basis.demand.round() as u64,
            accepted_per_second: basis.reading.accepted.round() as u64,
            capacity_per_broker: basis.capacity.map(|capacity| capacity.round().max(1.0) as u64),
            blocked_percent: (basis.reading.blocked * 100.0).round() as u32,
            backlog: self.queued,
            queue_delay_p99: self.queue_delay_p99,
            brokers_ready: self.ready,
            brokers_reporting: self.measured,
            target_utilization_percent: self.policy.autoscaling.target_utilization_percent,
        }
    }
}

/// All brokers together since a time, and over how many seconds that is.
fn since(state: &State, from: Time, capacity: Option<f64>) -> (Option<Reading>, f64) {
    let seconds = state.histories.span_since(from).as_secs_f64();
    let reading = Reading::take(
        &state.histories.all(),
        |history| history.since(from),
        capacity,
        (seconds > 0.0).then_some(seconds),
    );
    (reading, seconds)
}

/// The numbers that a proposal came from.
#[derive(Clone, Copy, Default)]
pub(super) struct Basis {
    pub(super) reading: Reading,
    pub(super) demand: f64,
    pub(super) capacity: Option<f64>,
}
