//! Policies, as the custom resource's rules admit them.

use std::time::Duration;

use crate::input::Input;
use crate::scaling::behavior::{RatePolicy, RatePolicyKind, ScalingRules, SelectPolicy};
use crate::scaling::{ChannelMode, FallbackBehavior, Mode, Policy};

/// All modes.
pub(super) const MODES: [Mode; 4] = [Mode::Auto, Mode::ScaleUpOnly, Mode::Recommend, Mode::Off];

/// Changes parts of a policy. At most `most` brokers.
pub(super) fn edit(policy: &mut Policy, most: u32, input: &mut Input<'_>) {
    let (autoscaling, channel) = (&mut policy.autoscaling, &mut policy.channel);
    let what = input.byte();
    let is_edited = |bit: u8| what & (1 << bit) != 0;
    if is_edited(0) {
        autoscaling.mode = input.one_of(MODES);
    }
    if is_edited(1) {
        autoscaling.min_replicas = input.between32(1, most);
        autoscaling.max_replicas = input.between32(autoscaling.min_replicas, most);
    }
    if is_edited(2) {
        autoscaling.target_utilization_percent = input.between32(1, 100);
        autoscaling.catch_up = Duration::from_millis(input.between(1_000, 3_600_000));
        autoscaling.metrics_staleness = Duration::from_millis(input.between(1_000, 600_000));
    }
    if is_edited(3) {
        edit_rules(&mut autoscaling.behavior.scale_up, input);
    }
    if is_edited(4) {
        edit_rules(&mut autoscaling.behavior.scale_down, input);
    }
    if is_edited(5) {
        autoscaling.fallback.failure_threshold = input.between32(1, 100);
        autoscaling.fallback.behavior = input.one_of([
            FallbackBehavior::Static,
            FallbackBehavior::CurrentReplicas,
            FallbackBehavior::CurrentReplicasIfHigher,
            FallbackBehavior::CurrentReplicasIfLower,
        ]);
        autoscaling.fallback.replicas = input.between32(1, most);
    }
    if is_edited(6) {
        channel.min = input.between32(1, 1 << 20);
        channel.max = input.between32(channel.min, 1 << 20);
        channel.mode = input.one_of([ChannelMode::Auto, ChannelMode::Fixed]);
        channel.capacity = input.between32(1, 1 << 20);
    }
    if is_edited(7) {
        channel.target_queue_delay = Duration::from_millis(input.between(1, 60_000));
        channel.burst_window = Duration::from_millis(input.between(10, 300_000));
        channel.max_change_percent = input.between32(1, 100);
        channel.max_inflight_bytes = input.between(64 << 10, 1 << 40);
    }
    let (min, max) = (autoscaling.min_replicas, autoscaling.max_replicas);
    autoscaling.fallback.replicas = autoscaling.fallback.replicas.clamp(min, max);
    if channel.mode == ChannelMode::Auto {
        channel.capacity = channel.capacity.clamp(channel.min, channel.max);
    }
}

fn edit_rules(rules: &mut ScalingRules, input: &mut Input<'_>) {
    rules.stabilization_window = Duration::from_secs(input.between(0, 3_600));
    rules.tolerance_percent = input.between32(0, 100);
    rules.select_policy = input.one_of([SelectPolicy::Max, SelectPolicy::Min, SelectPolicy::Disabled]);
    let policy = |input: &mut Input<'_>| RatePolicy {
        kind: input.one_of([RatePolicyKind::Pods, RatePolicyKind::Percent]),
        value: input.between32(1, 1_000_000),
        period: Duration::from_secs(input.between(1, 1_800)),
    };
    rules.policies = (0..input.between(1, 8)).map(|_| policy(input)).collect();
}
