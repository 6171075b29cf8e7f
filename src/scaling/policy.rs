//! What the user asked for, in plain numbers: `spec.autoscaling`, `spec.channel` and the one limit that
//! bounds the channel.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::behavior::Behavior;

/// What the user asked for.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// `spec.autoscaling`.
    pub autoscaling: AutoscalingPolicy,
    /// `spec.channel`.
    pub channel: ChannelPolicy,
}

/// What the autoscaler may do.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: `spec.replicas` as it is.
    #[default]
    Off,
    /// Decide, and only say so.
    Recommend,
    /// Add brokers, never remove any.
    ScaleUpOnly,
    /// Add and remove brokers.
    Auto,
}

impl Mode {
    /// Whether the autoscaler's number of brokers is what there is to be, and not only shown.
    pub fn acts(self) -> bool {
        matches!(self, Self::ScaleUpOnly | Self::Auto)
    }
}

/// `spec.autoscaling`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct AutoscalingPolicy {
    /// What the autoscaler may do.
    pub mode: Mode,
    /// The fewest brokers that it asks for; below 1 counts as 1.
    pub min_replicas: u32,
    /// The most brokers that it asks for; below `min_replicas` counts as `min_replicas`.
    pub max_replicas: u32,
    /// The part of what the brokers can carry that the demand should be, in percent; kept within 1 to 100.
    pub target_utilization_percent: u32,
    /// In what time the brokers should work off what has piled up.
    pub catch_up: Duration,
    /// How old a broker's last report may be.
    pub metrics_staleness: Duration,
    /// How fast to scale.
    pub behavior: Behavior,
    /// What to do when the brokers' reports stay away.
    pub fallback: Fallback,
}

impl Default for AutoscalingPolicy {
    fn default() -> Self {
        Self {
            mode: Mode::Off,
            min_replicas: 1,
            max_replicas: 10,
            target_utilization_percent: 70,
            catch_up: Duration::from_secs(60),
            metrics_staleness: Duration::from_secs(15),
            behavior: Behavior::default(),
            fallback: Fallback::default(),
        }
    }
}

impl AutoscalingPolicy {
    /// `replicas` within the bounds.
    pub fn within_bounds(&self, replicas: u32) -> u32 {
        let min = self.min_replicas.max(1);
        replicas.clamp(min, self.max_replicas.max(min))
    }

    /// The target utilization as a fraction, above 0 and at most 1.
    pub fn target_utilization(&self) -> f64 {
        f64::from(self.target_utilization_percent.clamp(1, 100)) / 100.0
    }

    /// `catch_up` in seconds, never 0.
    pub fn catch_up_seconds(&self) -> f64 {
        self.catch_up.as_secs_f64().max(1.0)
    }
}

/// What to do when the brokers' reports stay away.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// After how many periods of `metrics_staleness` in a row without any report.
    pub failure_threshold: u32,
    /// How many brokers to ask for then.
    pub behavior: FallbackBehavior,
    /// The number that `behavior` speaks of.
    pub replicas: u32,
}

impl Default for Fallback {
    fn default() -> Self {
        Self {
            failure_threshold: 3,
            behavior: FallbackBehavior::CurrentReplicasIfHigher,
            replicas: 3,
        }
    }
}

impl Fallback {
    /// How many brokers to ask for where there are `current`.
    pub fn replicas(&self, current: u32) -> u32 {
        match self.behavior {
            FallbackBehavior::Static => self.replicas,
            FallbackBehavior::CurrentReplicas => current,
            FallbackBehavior::CurrentReplicasIfHigher => current.max(self.replicas),
            FallbackBehavior::CurrentReplicasIfLower => current.min(self.replicas),
        }
    }
}

/// How many brokers to ask for when the reports stay away.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FallbackBehavior {
    /// The configured number.
    Static,
    /// As many as there are.
    CurrentReplicas,
    /// As many as there are, at least the configured number.
    #[default]
    CurrentReplicasIfHigher,
    /// As many as there are, at most the configured number.
    CurrentReplicasIfLower,
}

/// Whether the operator changes the channel's capacity.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelMode {
    /// It does.
    #[default]
    Auto,
    /// It stays as configured.
    Fixed,
}

/// `spec.channel`, and the limit on what may be in flight.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ChannelPolicy {
    /// Whether the capacity changes.
    pub mode: ChannelMode,
    /// Messages that fit: at the start, or always if `mode` is `Fixed`.
    pub capacity: u32,
    /// The smallest capacity that `Auto` chooses.
    pub min: u32,
    /// The largest capacity that `Auto` chooses.
    pub max: u32,
    /// How long a message may wait in the channel.
    pub target_queue_delay: Duration,
    /// How long a burst is that the channel should take without holding publishers back.
    pub burst_window: Duration,
    /// How far one step may change the capacity, in percent of what it is.
    pub max_change_percent: u32,
    /// `spec.limits.maxInflightBytes`.
    pub max_inflight_bytes: u64,
}

impl Default for ChannelPolicy {
    fn default() -> Self {
        Self {
            mode: ChannelMode::Auto,
            capacity: 128,
            min: 64,
            max: 65_536,
            target_queue_delay: Duration::from_millis(100),
            burst_window: Duration::from_secs(2),
            max_change_percent: 50,
            max_inflight_bytes: 256 << 20,
        }
    }
}

impl ChannelPolicy {
    /// The largest batch that the channel can ever hold: `max`, or the one capacity there is. The capacity of
    /// the moment plays no part, lest the replicas depend on it.
    pub fn largest_batch(&self) -> u32 {
        match self.mode {
            ChannelMode::Auto => self.max.max(self.min),
            ChannelMode::Fixed => self.capacity,
        }
        .max(1)
    }

    /// `capacity` within the bounds; at least 1.
    pub fn within_bounds(&self, capacity: u32) -> u32 {
        let min = self.min.max(1);
        capacity.clamp(min, self.max.max(min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_contradict_each_other_never_panic() {
        let policy = AutoscalingPolicy {
            min_replicas: 5,
            max_replicas: 2,
            ..AutoscalingPolicy::default()
        };
        assert_eq!(policy.within_bounds(0), 5);
        assert_eq!(policy.within_bounds(9), 5);
        let channel = ChannelPolicy {
            min: 0,
            max: 0,
            ..ChannelPolicy::default()
        };
        assert_eq!(channel.within_bounds(0), 1);
    }

    #[test]
    fn each_fallback_asks_for_what_it_says() {
        let fallback = |behavior| Fallback {
            behavior,
            ..Fallback::default()
        };
        for (behavior, from_one, from_five) in [
            (FallbackBehavior::Static, 3, 3),
            (FallbackBehavior::CurrentReplicas, 1, 5),
            (FallbackBehavior::CurrentReplicasIfHigher, 3, 5),
            (FallbackBehavior::CurrentReplicasIfLower, 1, 3),
        ] {
            assert_eq!(fallback(behavior).replicas(1), from_one, "{behavior:?}");
            assert_eq!(fallback(behavior).replicas(5), from_five, "{behavior:?}");
        }
    }
}
