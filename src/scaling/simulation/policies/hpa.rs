//! HorizontalPodAutoscaler v2 on CPU utilization.
//!
//! Source: <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details>:
//! `desiredReplicas = ceil(currentReplicas × currentMetricValue / desiredMetricValue)`, every 15 s, nothing within a
//! tolerance of 10 %; pods that are not ready count as 0 % where that keeps from scaling up too far. `behavior` has its
//! published defaults: up by 100 % or 4 pods in 15 s, whichever is more, at once; down to the highest of five minutes.

use std::time::Duration;

use super::{Autoscaler, Decided};
use crate::scaling::AutoscalingPolicy;
use crate::scaling::behavior::{
    Behavior, RatePolicy, RatePolicyKind, Recommendations, ScaleEvents, ScalingRules, SelectPolicy,
};
use crate::scaling::simulation::Cluster;

/// Seconds between two decisions.
pub(super) const SYNC: u64 = 15;
/// Nothing is done within this of the target.
pub(super) const TOLERANCE: f64 = 0.1;

/// The part that is the same for every metric: stabilisation, rate policies and bounds.
pub(super) struct Limits {
    bounds: AutoscalingPolicy,
    behavior: Behavior,
    recommendations: Recommendations,
    events: ScaleEvents,
}

impl Limits {
    pub(super) fn new(bounds: &AutoscalingPolicy) -> Self {
        let rules = |window, policies: &[(RatePolicyKind, u32)]| ScalingRules {
            stabilization_window: Duration::from_secs(window),
            tolerance_percent: 10,
            select_policy: SelectPolicy::Max,
            policies: policies
                .iter()
                .map(|(kind, value)| RatePolicy {
                    kind: *kind,
                    value: *value,
                    period: Duration::from_secs(15),
                })
                .collect(),
        };
        Self {
            bounds: bounds.clone(),
            behavior: Behavior {
                scale_up: rules(0, &[(RatePolicyKind::Percent, 100), (RatePolicyKind::Pods, 4)]),
                scale_down: rules(300, &[(RatePolicyKind::Percent, 100)]),
            },
            recommendations: Recommendations::default(),
            events: ScaleEvents::default(),
        }
    }

    pub(super) fn apply(&mut self, cluster: &Cluster, wanted: u32) -> u32 {
        let (current, now) = (cluster.desired, cluster.now());
        self.events.prune(&self.behavior, now);
        self.recommendations.record(wanted, &self.behavior, now);
        let stable = self.recommendations.stabilize(current, &self.behavior, now);
        let up = self.events.up_limit(&self.behavior.scale_up, current, now);
        let down = self.events.down_limit(&self.behavior.scale_down, current, now);
        let replicas = self.bounds.within_bounds(stable.clamp(down, up));
        self.events.record(current, replicas, now);
        replicas
    }
}

pub(super) struct Hpa {
    target: f64,
    limits: Limits,
    /// Of each broker: utilization summed over the seconds in which it was Ready since the last decision.
    sums: Vec<(f64, u32)>,
}

impl Hpa {
    pub(super) fn new(policy: &AutoscalingPolicy) -> Self {
        Self {
            target: policy.target_utilization(),
            limits: Limits::new(policy),
            sums: Vec::new(),
        }
    }

    /// The number of pods for the mean utilization of the ready ones, before the limits.
    fn wanted(&self, cluster: &Cluster) -> (u32, f64) {
        let current = cluster.brokers.len() as u32;
        let measured: Vec<f64> = self
            .sums
            .iter()
            .filter(|(_, seconds)| *seconds > 0)
            .map(|(sum, seconds)| sum / f64::from(*seconds))
            .collect();
        if measured.is_empty() {
            return (current, 0.0);
        }
        let sum: f64 = measured.iter().sum();
        let mean = sum / measured.len() as f64;
        let ratio = mean / self.target;
        let missing = current.saturating_sub(measured.len() as u32);
        if (ratio - 1.0).abs() <= TOLERANCE {
            return (current, mean);
        }
        if missing == 0 {
            return ((ratio * f64::from(current)).ceil() as u32, mean);
        }
        // Not ready or missing: 0 % when scaling up, 100 % of the target when scaling down.
        let assumed = if ratio > 1.0 { 0.0 } else { self.target };
        let damped = (sum + assumed * f64::from(missing)) / f64::from(current) / self.target;
        if (damped - 1.0).abs() <= TOLERANCE || (damped > 1.0) != (ratio > 1.0) {
            return (current, mean);
        }
        ((damped * f64::from(current)).ceil() as u32, mean)
    }
}

impl Autoscaler for Hpa {
    fn decide(&mut self, cluster: &Cluster) -> Decided {
        self.sums.resize(cluster.brokers.len(), (0.0, 0));
        let observed = cluster.observed();
        for ((sum, broker), seen) in self.sums.iter_mut().zip(&cluster.brokers).zip(&observed.brokers) {
            if seen.ready {
                sum.0 += broker.utilization;
                sum.1 += 1;
            }
        }
        if !cluster.second.is_multiple_of(SYNC) {
            return Decided::new(cluster.desired, cluster.desired, "", String::new);
        }
        let (wanted, mean) = self.wanted(cluster);
        let replicas = self.limits.apply(cluster, wanted);
        self.sums.clear();
        Decided::new(replicas, cluster.desired, "Utilization", || {
            format!("CPU utilization {:.0} %", mean * 100.0)
        })
    }
}
