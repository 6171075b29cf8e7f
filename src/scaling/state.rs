//! What the loops remember from one call to the next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::behavior::{Recommendations, ScaleEvents};
use super::capacity::{self, Correction};
use super::jump::Jump;
use super::observed::Observed;
use super::policy::{AutoscalingPolicy, Policy};
use super::seen::Seen;
use super::time::Time;
use super::window::{Histories, History, WINDOW};

/// The part that must survive the operator: it goes into `status.autoscaling.state`, and changes only when
/// a decision changes something or when the brokers are saturated.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct Durable {
    /// The `spec.replicas` that the current number of brokers started from.
    pub starting_replicas: Option<u32>,
    /// When the number of brokers last changed.
    pub last_scale: Option<Time>,
    /// The changes that rate policies still count.
    pub events: ScaleEvents,
    /// The jump whose brokers are being waited for.
    pub jump: Option<Jump>,
    /// When a step was found to have been in vain.
    pub in_vain: Option<Time>,
    /// `k` of the capacity model.
    pub correction: Correction,
    /// What a broker was seen to do.
    pub seen: Seen,
    /// Messages a second that a broker could do when that was last written down.
    pub capacity_per_broker: Option<u64>,
}

/// Everything the loops remember.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct State {
    /// What must survive.
    pub durable: Durable,
    /// When this memory began.
    pub(super) started: Time,
    /// Whether it began from a `Durable`.
    pub(super) resumed: bool,
    pub(super) histories: Histories,
    pub(super) recommendations: Recommendations,
    /// Means leave out what was before: it was distorted by a jump's old debt.
    pub(super) mean_from: Time,
    /// When any ready broker was last heard, or could not have been.
    pub(super) heard: Time,
    /// The last capacity that could be estimated, messages a second.
    pub(super) capacity: Option<f64>,
    pub(super) channel_changed: Option<Time>,
}

impl State {
    /// A memory that begins now, for a cluster that was never scaled.
    pub fn new(now: Time) -> Self {
        Self {
            durable: Durable::default(),
            started: now,
            resumed: false,
            histories: Histories::default(),
            recommendations: Recommendations::default(),
            mean_from: Time::default(),
            heard: now,
            capacity: None,
            channel_changed: None,
        }
    }

    /// A memory that begins now from what an operator before this one wrote down.
    pub fn resume(durable: Durable, now: Time) -> Self {
        let capacity = durable.capacity_per_broker.map(|capacity| capacity as f64);
        Self {
            resumed: true,
            capacity: capacity.filter(|capacity| *capacity > 0.0),
            durable,
            ..Self::new(now)
        }
    }

    /// Takes in what was observed; the same again changes nothing, so each loop may do it first.
    pub(super) fn observe(&mut self, policy: &Policy, observed: &Observed, now: Time) {
        self.started = self.started.min(now);
        self.heard = self.heard.min(now);
        self.mean_from = self.mean_from.min(now);
        self.channel_changed = self.channel_changed.map(|at| at.min(now));
        self.durable.last_scale = self.durable.last_scale.map(|at| at.min(now));
        self.durable.in_vain = self.durable.in_vain.map(|at| at.min(now));
        self.durable.events.prune(&policy.autoscaling.behavior, now);
        for name in self.histories.take(observed, now) {
            let Some(history) = self.histories.of(&name) else {
                continue;
            };
            if let Some(sample) = history.latest(0) {
                self.durable.correction.learn(sample);
            }
            self.durable.seen.learn(history, &policy.channel);
        }
        let correction = self.durable.correction;
        self.durable.seen.fade(now, || {
            let all = self.histories.all();
            let samples = |history| History::since(history, Time::default());
            capacity::estimate(&all, samples, &policy.channel, correction).map(|capacity| capacity.per_broker)
        });
        let staleness = policy.autoscaling.metrics_staleness;
        let heard = observed
            .ready()
            .filter_map(|broker| broker.report)
            .filter(|report| report.is_fresh(staleness, now))
            .map(|report| report.received.min(now))
            .max();
        if let Some(heard) = heard {
            self.heard = self.heard.max(heard);
        } else if observed.ready_brokers() == 0 {
            self.heard = now;
        }
    }

    /// How long this memory must be before it may speak for fewer brokers.
    pub(super) fn full_window(policy: &AutoscalingPolicy) -> Duration {
        policy.behavior.scale_down.stabilization_window.max(WINDOW)
    }
}
