//! When not to scale, whatever the demand says.

use std::time::Duration;

use super::capacity;
use super::counters::Interval;
use super::decision::Reason;
use super::demand::{Reading, SATURATED};
use super::jump::Jump;
use super::observed::Observed;
use super::policy::AutoscalingPolicy;
use super::state::State;
use super::time::Time;
use super::view::View;

/// Consumers out of credit, on average, from which they count as short.
const STARVED: f64 = 0.5;

/// How many times what the other brokers get on average is far more.
const FAR_MORE: f64 = 1.5;
/// How busy a broker is that is nearly used up.
const USED_UP: f64 = 0.9;
/// How much busier than they should be the others may be to count as not busy.
const A_LITTLE: f64 = 1.1;
/// The part of what a step should have gained below which it was in vain.
const IN_VAIN: f64 = 0.1;
/// How long nothing more is tried after a step in vain, unless publishers are relieved before.
const RESIGNED: Duration = Duration::from_secs(600);

/// One broker is used up by what it gets, and the others are not: its partitions are to be moved, or one of them is too much
/// for any broker. Another broker would take its part from the others.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Uneven {
    /// Which broker.
    pub(super) broker: String,
}

impl Uneven {
    /// Looks at the last two reports of every broker that is to stay: one that is being emptied gets nothing, however much the
    /// others get. `capacity` is what one can do, messages a second, and `target` the part of it that it should.
    pub(super) fn find(
        observed: &Observed,
        state: &State,
        capacity: Option<f64>,
        target: f64,
    ) -> Option<Self> {
        let load = |name: &String| {
            let history = state.histories.of(name)?;
            let total = Interval::sum(history.newest(2).map(|sample| &sample.interval))?;
            let quota = history.latest(0)?.gauges.cpu_quota_nanos;
            let busy = capacity::busy(&total, quota, capacity);
            let filling = total.accepted.saturating_sub(total.acked) as f64;
            let held_back =
                total.blocked_fraction() >= SATURATED || filling >= SATURATED * total.accepted as f64;
            Some((name.clone(), total.accepted_rate(), busy, held_back))
        };
        let staying = observed.brokers.iter().take(observed.current_replicas as usize);
        let loads: Vec<_> = staying
            .filter(|broker| broker.ready)
            .filter_map(|broker| load(&broker.name))
            .collect();
        let (name, most, busy, held_back) = loads.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        let others = || loads.iter().filter(|(other, ..)| other != name);
        let count = others().count() as f64;
        let mean = others().map(|(_, rate, ..)| rate).sum::<f64>() / count;
        let idle = others().all(|(_, _, busy, _)| *busy < A_LITTLE * target);
        (count >= 1.0 && *held_back && *busy >= USED_UP && idle && *most >= FAR_MORE * mean)
            .then(|| Self { broker: name.clone() })
    }
}

/// What forbids to add a broker although publishers are held back, the first that applies.
pub(super) fn forbids_up(view: &View<'_>, state: &State) -> Option<Reason> {
    if view.uneven.is_some() {
        return Some(Reason::HotPartition);
    }
    let since = state.durable.in_vain?;
    (view.now.since(since) < RESIGNED).then_some(Reason::IneffectiveScaling)
}

/// Whether the brokers of a jump gained nothing: publishers are still held back, and of what was to be gained less than a tenth is
/// acknowledged. `capacity` is what a broker could do when it was decided, messages a second.
pub(super) fn was_in_vain(view: &View<'_>, capacity: Option<u64>, jump: &Jump) -> bool {
    let two = || view.latest.iter().take(2).flatten();
    let held_back = two().count() == 2 && two().all(Reading::is_saturated);
    let after = two().map(|reading| reading.acked).fold(0.0, f64::max);
    let added = jump.to.saturating_sub(jump.from);
    let could = capacity.unwrap_or(0).saturating_mul(u64::from(added));
    let gain = could.min(jump.demand.saturating_sub(jump.acked)) as f64;
    held_back && gain > 0.0 && after - (jump.acked as f64) < IN_VAIN * gain
}

/// A reason to leave everything as it is, or to take the fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Change nothing.
    Hold(Reason),
    /// Take this number of brokers, within the bounds and the policies.
    Fallback(u32),
}

/// What forbids any change, the first that applies.
pub(super) fn blocks(view: &View<'_>, state: &State) -> Option<Guard> {
    let observed = view.observed;
    if observed.rolling_out {
        return Some(Guard::Hold(Reason::Rollout));
    }
    if observed.draining {
        return Some(Guard::Hold(Reason::Draining));
    }
    if view.ready == 0 {
        return Some(Guard::Hold(Reason::NoBrokers));
    }
    let policy = &view.policy.autoscaling;
    if view.fresh == 0 {
        let fallback = &policy.fallback;
        let failures = failures(policy, state.heard, view.now);
        return Some(if failures >= u128::from(fallback.failure_threshold.max(1)) {
            Guard::Fallback(fallback.replicas(observed.current_replicas))
        } else {
            Guard::Hold(Reason::MetricsMissing)
        });
    }
    (view.measured == 0).then_some(Guard::Hold(Reason::Measuring))
}

/// How many periods of `metricsStaleness` have passed without any report. Time, not calls, is counted: how often
/// the loop runs must not matter.
fn failures(policy: &AutoscalingPolicy, heard: Time, now: Time) -> u128 {
    let period = policy.metrics_staleness.max(Duration::from_secs(1));
    now.since(heard).as_millis() / period.as_millis()
}

/// What forbids to remove a broker, the first that applies.
pub(super) fn forbids_down(view: &View<'_>, state: &State) -> Option<Reason> {
    if view.measured < view.ready {
        return Some(Reason::MetricsMissing);
    }
    if view.now.since(state.started) < State::full_window(&view.policy.autoscaling) {
        return Some(if state.resumed {
            Reason::OperatorRestarted
        } else {
            Reason::Measuring
        });
    }
    // Brokers that do not serve may go if they are the last ones: those are what would be removed.
    let first_unready = view.observed.brokers.iter().position(|broker| !broker.ready);
    let gap = first_unready.is_some_and(|at| view.observed.brokers.iter().skip(at).any(|b| b.ready));
    (gap || view.is_distressed() || view.trend.is_some()).then_some(Reason::Unsettled)
}

/// Whether consumers are short while brokers are not: adding brokers helps nobody.
pub(super) fn consumer_bound(view: &View<'_>) -> bool {
    let target = view.policy.autoscaling.target_utilization();
    view.latest.iter().take(2).all(|reading| {
        reading.is_some_and(|reading| {
            reading.starved >= STARVED && reading.busiest < target && reading.hidden < SATURATED
        })
    })
}
