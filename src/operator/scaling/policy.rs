//! `spec.autoscaling` and `spec.channel` as the pure loops take them.

use std::time::Duration;

use crate::api::MessageBrokerSpec;
use crate::api::autoscaling as api;
use crate::api::channel::ChannelMode as ApiChannelMode;
use crate::scaling::behavior::{Behavior, RatePolicy, RatePolicyKind, ScalingRules, SelectPolicy};
use crate::scaling::{
    AutoscalingPolicy, ChannelMode, ChannelPolicy, Fallback, FallbackBehavior, Mode, Policy,
};

/// The policy of a spec. A duration that cannot be read counts as its default; validate has said so already.
pub fn policy(spec: &MessageBrokerSpec) -> Policy {
    let autoscaling = &spec.autoscaling;
    let defaults = AutoscalingPolicy::default();
    let channel_defaults = ChannelPolicy::default();
    let channel = &spec.channel;
    Policy {
        autoscaling: AutoscalingPolicy {
            mode: match autoscaling.mode {
                api::AutoscalingMode::Off => Mode::Off,
                api::AutoscalingMode::Recommend => Mode::Recommend,
                api::AutoscalingMode::ScaleUpOnly => Mode::ScaleUpOnly,
                api::AutoscalingMode::Auto => Mode::Auto,
            },
            min_replicas: autoscaling.min_replicas,
            max_replicas: autoscaling.max_replicas,
            target_utilization_percent: autoscaling.target_utilization_percent,
            catch_up: autoscaling.catch_up().unwrap_or(defaults.catch_up),
            metrics_staleness: autoscaling
                .metrics_staleness()
                .unwrap_or(defaults.metrics_staleness),
            behavior: behavior(&autoscaling.behavior),
            fallback: fallback(autoscaling.fallback),
        },
        channel: ChannelPolicy {
            mode: match channel.mode {
                ApiChannelMode::Auto => ChannelMode::Auto,
                ApiChannelMode::Fixed => ChannelMode::Fixed,
            },
            capacity: channel.capacity,
            min: channel.min,
            max: channel.max,
            target_queue_delay: channel
                .target_queue_delay()
                .unwrap_or(channel_defaults.target_queue_delay),
            burst_window: channel.burst_window().unwrap_or(channel_defaults.burst_window),
            max_change_percent: channel.max_change_percent,
            max_inflight_bytes: spec
                .limits
                .max_inflight_bytes()
                .unwrap_or(channel_defaults.max_inflight_bytes),
        },
    }
}

fn behavior(behavior: &api::Behavior) -> Behavior {
    let (up, down) = (&behavior.scale_up, &behavior.scale_down);
    Behavior {
        scale_up: ScalingRules {
            stabilization_window: seconds(up.stabilization_window_seconds),
            tolerance_percent: up.tolerance_percent,
            select_policy: select(up.select_policy),
            policies: up.policies.iter().map(rate).collect(),
        },
        scale_down: ScalingRules {
            stabilization_window: seconds(down.stabilization_window_seconds),
            tolerance_percent: down.tolerance_percent,
            select_policy: select(down.select_policy),
            policies: down.policies.iter().map(rate).collect(),
        },
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}

fn select(policy: api::SelectPolicy) -> SelectPolicy {
    match policy {
        api::SelectPolicy::Max => SelectPolicy::Max,
        api::SelectPolicy::Min => SelectPolicy::Min,
        api::SelectPolicy::Disabled => SelectPolicy::Disabled,
    }
}

fn rate(policy: &api::ScalingPolicy) -> RatePolicy {
    RatePolicy {
        kind: match policy.type_ {
            api::PolicyType::Pods => RatePolicyKind::Pods,
            api::PolicyType::Percent => RatePolicyKind::Percent,
        },
        value: policy.value,
        period: seconds(policy.period_seconds),
    }
}

fn fallback(fallback: api::Fallback) -> Fallback {
    Fallback {
        failure_threshold: fallback.failure_threshold,
        behavior: match fallback.behavior {
            api::FallbackBehavior::Static => FallbackBehavior::Static,
            api::FallbackBehavior::CurrentReplicas => FallbackBehavior::CurrentReplicas,
            api::FallbackBehavior::CurrentReplicasIfHigher => FallbackBehavior::CurrentReplicasIfHigher,
            api::FallbackBehavior::CurrentReplicasIfLower => FallbackBehavior::CurrentReplicasIfLower,
        },
        replicas: fallback.replicas,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_api_are_the_defaults_of_the_loops() {
        assert_eq!(policy(&MessageBrokerSpec::default()), Policy::default());
    }
}
