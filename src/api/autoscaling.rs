//! How the number of brokers follows the backpressure.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationString, InvalidField, schema};

/// The autoscaler of the brokers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule_at(
        "minReplicas",
        "self.minReplicas <= self.maxReplicas",
        "autoscaling.minReplicas must not exceed autoscaling.maxReplicas; lower the one or raise the other"
    ),
    schema::rule_at(
        "fallback.replicas",
        "self.minReplicas > self.maxReplicas || \
         self.fallback.replicas >= self.minReplicas && self.fallback.replicas <= self.maxReplicas",
        "autoscaling.fallback.replicas (3 unless given) must lie within autoscaling.minReplicas and \
         autoscaling.maxReplicas; set it to a number between them"
    ),
]))]
pub struct Autoscaling {
    /// What the autoscaler may do. Write `"Off"` with quotes in YAML, where a plain `Off` is a boolean.
    pub mode: AutoscalingMode,
    /// The fewest brokers that it asks for.
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: u32,
    /// The most brokers that it asks for.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u32,
    /// How much of what the brokers can carry the demand should be, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub target_utilization_percent: u32,
    /// In what time the brokers should work off what has piled up.
    #[schemars(extend("x-kubernetes-validations" = schema::duration_between("autoscaling.catchUp", "1s", "1h")))]
    pub catch_up: DurationString,
    /// How old a broker's last report may be.
    #[schemars(extend("x-kubernetes-validations" =
        schema::duration_between("autoscaling.metricsStaleness", "1s", "10m")))]
    pub metrics_staleness: DurationString,
    /// How fast to scale: of the same shape and meaning as in HorizontalPodAutoscaler v2.
    pub behavior: Behavior,
    /// What to do when the brokers' reports stay away.
    pub fallback: Fallback,
    /// How a broker is emptied before it is removed.
    pub drain: Drain,
}

impl Autoscaling {
    /// `catchUp`.
    ///
    /// # Errors
    /// If it is not a duration.
    pub fn catch_up(&self) -> Result<Duration, InvalidField> {
        self.catch_up.parse("spec.autoscaling.catchUp")
    }

    /// `metricsStaleness`.
    ///
    /// # Errors
    /// If it is not a duration.
    pub fn metrics_staleness(&self) -> Result<Duration, InvalidField> {
        self.metrics_staleness.parse("spec.autoscaling.metricsStaleness")
    }
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self {
            mode: AutoscalingMode::default(),
            min_replicas: 1,
            max_replicas: 10,
            target_utilization_percent: 70,
            catch_up: "60s".into(),
            metrics_staleness: "15s".into(),
            behavior: Behavior::default(),
            fallback: Fallback::default(),
            drain: Drain::default(),
        }
    }
}

/// What the autoscaler may do.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoscalingMode {
    /// Nothing.
    #[default]
    Off,
    /// Decide, and only say so in the status.
    Recommend,
    /// Add brokers, never remove any.
    ScaleUpOnly,
    /// Add and remove brokers.
    Auto,
}

impl AutoscalingMode {
    /// Whether the autoscaler's number of brokers is what there is to be, and not only shown.
    pub fn acts(self) -> bool {
        matches!(self, Self::ScaleUpOnly | Self::Auto)
    }
}

/// How fast to scale, each way.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Behavior {
    /// How fast to add brokers.
    pub scale_up: ScaleUp,
    /// How fast to remove brokers; each one is emptied first, which takes the time that it takes.
    pub scale_down: ScaleDown,
}

/// The fields of `scaleUp` and `scaleDown`: one shape, two sets of defaults.
macro_rules! scaling_rules {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            /// Seconds over which the most cautious recommendation counts.
            #[schemars(range(min = 0, max = 3600))]
            pub stabilization_window_seconds: u32,
            /// How far the recommendation must be off for anything to be done, in percent.
            #[schemars(range(min = 0, max = 100))]
            pub tolerance_percent: u32,
            /// Which of the policies counts.
            pub select_policy: SelectPolicy,
            /// How much may change in a period.
            #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
            pub policies: Vec<ScalingPolicy>,
        }
    };
}

scaling_rules!(
    /// How fast to add brokers.
    ScaleUp
);
scaling_rules!(
    /// How fast to remove brokers.
    ScaleDown
);

impl Default for ScaleUp {
    fn default() -> Self {
        Self {
            stabilization_window_seconds: 0,
            tolerance_percent: 10,
            select_policy: SelectPolicy::Max,
            policies: vec![
                ScalingPolicy {
                    type_: PolicyType::Percent,
                    value: 400,
                    period_seconds: 15,
                },
                ScalingPolicy {
                    type_: PolicyType::Pods,
                    value: 4,
                    period_seconds: 15,
                },
            ],
        }
    }
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self {
            stabilization_window_seconds: 300,
            tolerance_percent: 15,
            select_policy: SelectPolicy::Max,
            policies: vec![ScalingPolicy {
                type_: PolicyType::Pods,
                value: 1,
                period_seconds: 15,
            }],
        }
    }
}

/// Which of several policies counts.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SelectPolicy {
    /// The one that allows the largest change.
    #[default]
    Max,
    /// The one that allows the smallest change.
    Min,
    /// None: never scale this way.
    Disabled,
}

/// How much may change in a period.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScalingPolicy {
    /// What `value` counts.
    #[serde(rename = "type")]
    pub type_: PolicyType,
    /// How much.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub value: u32,
    /// In how many seconds.
    #[schemars(range(min = 1, max = 1800))]
    pub period_seconds: u32,
}

/// What the value of a policy counts.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyType {
    /// Brokers.
    Pods,
    /// Percent of the brokers there were at the start of the period.
    Percent,
}

/// What to do when the brokers' reports stay away.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct Fallback {
    /// After how many evaluations in a row without reports.
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u32,
    /// How many brokers to ask for then.
    pub behavior: FallbackBehavior,
    /// The number that `behavior` speaks of.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: u32,
}

impl Default for Fallback {
    fn default() -> Self {
        Self {
            failure_threshold: 3,
            behavior: FallbackBehavior::default(),
            replicas: 3,
        }
    }
}

/// How many brokers to ask for when the reports stay away.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FallbackBehavior {
    /// `replicas`.
    Static,
    /// As many as there are.
    CurrentReplicas,
    /// As many as there are, at least `replicas`.
    #[default]
    CurrentReplicasIfHigher,
    /// As many as there are, at most `replicas`.
    CurrentReplicasIfLower,
}

/// How a broker is emptied before it is removed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule_at(
    "settle",
    &format!(
        "!({} && duration(self.settle) >= duration(self.timeout))",
        schema::both_durations("self.settle", "self.timeout")
    ),
    "autoscaling.drain.settle must be shorter than autoscaling.drain.timeout, or every drain would be reported as stuck"
)]))]
pub struct Drain {
    /// How long it must have held nothing before it is removed.
    #[schemars(extend("x-kubernetes-validations" = schema::duration_between("autoscaling.drain.settle", "0s", "1h")))]
    pub settle: DurationString,
    /// After how long a drain is reported as stuck. It goes on; nothing is removed that holds anything.
    #[schemars(extend("x-kubernetes-validations" = schema::duration_between("autoscaling.drain.timeout", "1s", "24h")))]
    pub timeout: DurationString,
}

impl Drain {
    /// `settle`.
    ///
    /// # Errors
    /// If it is not a duration.
    pub fn settle(&self) -> Result<Duration, InvalidField> {
        self.settle.parse("spec.autoscaling.drain.settle")
    }

    /// `timeout`.
    ///
    /// # Errors
    /// If it is not a duration.
    pub fn timeout(&self) -> Result<Duration, InvalidField> {
        self.timeout.parse("spec.autoscaling.drain.timeout")
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            settle: "10s".into(),
            timeout: "10m".into(),
        }
    }
}
