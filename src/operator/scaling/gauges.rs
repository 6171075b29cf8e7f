//! What a decision was made on and what came of it, as gauges: every input and every output, by MessageBroker.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::scaling::{Decision, LimitedBy};

/// Which MessageBroker.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ClusterLabels {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Why it was decided so.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    namespace: String,
    name: String,
    reason: &'static str,
    limited_by: &'static str,
}

type Numbers = Family<ClusterLabels, Gauge<f64, AtomicU64>>;

/// Names without the prefix `sluice_operator_scaling_`, and what they say, in the order of [`values`].
const GAUGES: [(&str, &str); 14] = [
    (
        "demand_per_second",
        "Messages a second that publishers would send if nothing held them back",
    ),
    ("accepted_per_second", "Messages a second that were accepted"),
    (
        "capacity_per_broker",
        "Messages a second that one broker can do; NaN while unknown",
    ),
    (
        "blocked_ratio",
        "The part of their active time that publishers were without credit",
    ),
    ("backlog_messages", "Messages in the channels"),
    (
        "queue_delay_p99_seconds",
        "The 99th percentile of the wait in the channel, at the worst broker",
    ),
    ("brokers_ready", "Brokers that are Ready"),
    ("brokers_reporting", "Ready brokers whose reports are fresh"),
    (
        "target_utilization_ratio",
        "The part of what brokers can do that the demand should be",
    ),
    ("current_replicas", "Brokers decided on before"),
    (
        "recommended_replicas",
        "Brokers that the demand asks for, before stabilization, policies, bounds and guards",
    ),
    ("proposed_replicas", "Brokers that there would be in mode Auto"),
    ("desired_replicas", "Brokers that there are to be"),
    ("channel_capacity", "Messages that fit into each broker's channel"),
];

fn values(decision: &Decision, channel_capacity: u32) -> [f64; 14] {
    let inputs = &decision.inputs;
    [
        inputs.demand_per_second as f64,
        inputs.accepted_per_second as f64,
        inputs
            .capacity_per_broker
            .map_or(f64::NAN, |capacity| capacity as f64),
        f64::from(inputs.blocked_percent) / 100.0,
        inputs.backlog as f64,
        inputs.queue_delay_p99.as_secs_f64(),
        f64::from(inputs.brokers_ready),
        f64::from(inputs.brokers_reporting),
        f64::from(inputs.target_utilization_percent) / 100.0,
        f64::from(decision.from),
        f64::from(decision.recommended_replicas),
        f64::from(decision.proposed_replicas),
        f64::from(decision.desired_replicas),
        f64::from(channel_capacity),
    ]
}

/// The gauges of all MessageBrokers.
#[derive(Clone, Debug, Default)]
pub struct ScalingGauges {
    numbers: [Numbers; 14],
    reasons: Family<ReasonLabels, Gauge>,
    /// The reason that each one shows now, so that it can be taken back.
    shown: Arc<Mutex<std::collections::HashMap<ClusterLabels, ReasonLabels>>>,
}

impl ScalingGauges {
    /// None of any MessageBroker, in a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        for ((name, help), family) in GAUGES.iter().zip(&gauges.numbers) {
            registry.register(format!("scaling_{name}"), *help, family.clone());
        }
        let help = "1 with the reason of the last decision, and what limits it";
        registry.register("scaling_reason", help, gauges.reasons.clone());
        gauges
    }

    /// Shows a decision.
    pub fn show(&self, labels: &ClusterLabels, decision: &Decision, channel_capacity: u32) {
        for (family, value) in self.numbers.iter().zip(values(decision, channel_capacity)) {
            family.get_or_create(labels).set(value);
        }
        let reason = ReasonLabels {
            namespace: labels.namespace.clone(),
            name: labels.name.clone(),
            reason: decision.reason.as_str(),
            limited_by: decision.limited_by.map_or("", LimitedBy::as_str),
        };
        let mut shown = self.shown.lock();
        if shown.get(labels) != Some(&reason) {
            self.reasons.get_or_create(&reason).set(1);
            if let Some(before) = shown.insert(labels.clone(), reason) {
                self.reasons.remove(&before);
            }
        }
    }

    /// Shows nothing more of a MessageBroker.
    pub fn forget(&self, labels: &ClusterLabels) {
        for family in &self.numbers {
            family.remove(labels);
        }
        if let Some(reason) = self.shown.lock().remove(labels) {
            self.reasons.remove(&reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::{Observed, Policy, State, Time, decide};

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn every_input_and_output_is_shown_once_with_its_last_value_and_goes_with_its_broker() {
        let mut registry = Registry::with_prefix("sluice_operator");
        let gauges = ScalingGauges::register(&mut registry);
        let labels = ClusterLabels {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
        };
        let now = Time::from_millis(1);
        let observed = Observed {
            spec_replicas: 3,
            current_replicas: 3,
            ..Observed::default()
        };
        let mut policy = Policy::default();
        for mode in [crate::scaling::Mode::Off, crate::scaling::Mode::Auto] {
            policy.autoscaling.mode = mode;
            let decision = decide(&policy, &observed, &mut State::new(now), now);
            gauges.show(&labels, &decision, 128);
        }
        let shown = text(&registry);
        let of_orders = r#"{namespace="shop",name="orders"}"#;
        for (name, _) in GAUGES {
            let line = format!("sluice_operator_scaling_{name}{of_orders} ");
            assert_eq!(shown.matches(&line).count(), 1, "{name} in {shown}");
        }
        for line in [
            format!("sluice_operator_scaling_desired_replicas{of_orders} 3.0\n"),
            format!("sluice_operator_scaling_target_utilization_ratio{of_orders} 0.7\n"),
            format!("sluice_operator_scaling_channel_capacity{of_orders} 128.0\n"),
            r#"sluice_operator_scaling_reason{namespace="shop",name="orders",reason="NoBrokers",limited_by=""} 1"#
                .to_owned(),
        ] {
            assert!(shown.contains(&line), "{line} in {shown}");
        }
        assert!(!shown.contains("reason=\"Off\""), "{shown}");
        gauges.forget(&labels);
        assert!(!text(&registry).contains("orders"));
    }
}
