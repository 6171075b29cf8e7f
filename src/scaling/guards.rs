//! When not to scale, whatever the demand says.
//!
//! `HotPartition` and `IneffectiveScaling` belong here too and are not there yet.

use std::time::Duration;

use super::decision::Reason;
use super::demand::SATURATED;
use super::policy::AutoscalingPolicy;
use super::state::State;
use super::time::Time;
use super::view::View;

/// Consumers out of credit, on average, from which they count as short.
const STARVED: f64 = 0.5;

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
    (gap || view.is_distressed()).then_some(Reason::Unsettled)
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
