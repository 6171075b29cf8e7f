//! A spec that the API server accepted, turned into what can be used, and what of it cannot: pure.
//!
//! One bad field does not stop the others: it keeps what is live, or its default, and is reported.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Affinity, PodTemplateSpec, TopologySpreadConstraint};

use crate::api::autoscaling::Drain;
use crate::api::limits::Limits;
use crate::api::{InvalidField, MessageBrokerSpec};
use crate::pb::LimitsConfiguration;

/// What can be used of a spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// `spec.podTemplate.affinity`.
    pub affinity: Option<Affinity>,
    /// `spec.podTemplate.topologySpreadConstraints`; empty: the default ones.
    pub spread: Vec<TopologySpreadConstraint>,
    /// `spec.limits`.
    pub limits: LimitsConfiguration,
    /// `spec.autoscaling.drain.settle`.
    pub settle: Duration,
    /// `spec.autoscaling.drain.timeout`.
    pub timeout: Duration,
    /// The fields that cannot be used.
    pub invalid: Vec<InvalidField>,
}

/// Reads `spec`; `live` is the pod template that runs, whose parts stay where the spec's cannot be read.
pub fn validate(spec: &MessageBrokerSpec, live: Option<&PodTemplateSpec>) -> Validated {
    let mut invalid = Vec::new();
    let live = live.and_then(|template| template.spec.as_ref());
    let affinity = spec.pod_template.affinity().unwrap_or_else(|error| {
        invalid.push(error);
        live.and_then(|live| live.affinity.clone())
    });
    let spread = spec
        .pod_template
        .topology_spread_constraints()
        .unwrap_or_else(|error| {
            invalid.push(error);
            live.and_then(|live| live.topology_spread_constraints.clone())
                .unwrap_or_default()
        });
    let mut or_default =
        |value: Result<u64, InvalidField>, default: fn() -> Result<u64, InvalidField>| match value {
            Ok(value) => value,
            Err(error) => {
                invalid.push(error);
                default().unwrap_or(0)
            }
        };
    let limits = LimitsConfiguration {
        max_connections: spec.limits.max_connections,
        max_streams_per_connection: spec.limits.max_streams_per_connection,
        max_message_bytes: or_default(spec.limits.max_message_bytes(), || {
            Limits::default().max_message_bytes()
        }),
        max_inflight_bytes: or_default(spec.limits.max_inflight_bytes(), || {
            Limits::default().max_inflight_bytes()
        }),
    };
    let drain = &spec.autoscaling.drain;
    let mut duration = |value: Result<Duration, InvalidField>,
                        default: fn() -> Result<Duration, InvalidField>| match value {
        Ok(value) => value,
        Err(error) => {
            invalid.push(error);
            default().unwrap_or(Duration::from_secs(10))
        }
    };
    let settle = duration(drain.settle(), || Drain::default().settle());
    let timeout = duration(drain.timeout(), || Drain::default().timeout());
    for other in [
        spec.autoscaling.catch_up().err(),
        spec.autoscaling.metrics_staleness().err(),
        spec.channel.target_queue_delay().err(),
        spec.channel.burst_window().err(),
        spec.storage.size_bytes().err(),
        spec.topic_defaults
            .retention
            .age
            .parse("spec.topicDefaults.retention.age")
            .err(),
    ] {
        invalid.extend(other);
    }
    Validated {
        affinity,
        spread,
        limits,
        settle,
        timeout,
        invalid,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn validated(spec: serde_json::Value) -> Validated {
        validate(&serde_json::from_value(spec).expect("a spec"), None)
    }

    #[test]
    fn the_default_spec_is_valid() {
        let validated = validated(json!({}));
        assert_eq!(validated.invalid, []);
        assert_eq!(validated.settle, Duration::from_secs(10));
        assert_eq!(validated.limits.max_message_bytes, 4 << 20);
    }

    #[test]
    fn each_bad_field_is_named_and_the_others_count() {
        for (spec, field) in [
            (
                json!({"podTemplate": {"affinity": {"podAntiAfinity": {}}}}),
                "spec.podTemplate.affinity.podAntiAfinity",
            ),
            (
                json!({"podTemplate": {"topologySpreadConstraints": [{"maxSkew": "x"}]}}),
                "spec.podTemplate.topologySpreadConstraints[0]",
            ),
            (
                json!({"autoscaling": {"drain": {"settle": "soon"}}}),
                "spec.autoscaling.drain.settle",
            ),
            (
                json!({"channel": {"burstWindow": "5"}}),
                "spec.channel.burstWindow",
            ),
            (
                json!({"limits": {"maxMessageBytes": "big"}}),
                "spec.limits.maxMessageBytes",
            ),
        ] {
            let validated = validated(spec);
            assert_eq!(validated.invalid.len(), 1, "{field}");
            assert_eq!(validated.invalid[0].field, field);
            assert_eq!(validated.timeout, Duration::from_secs(600));
        }
    }
}
