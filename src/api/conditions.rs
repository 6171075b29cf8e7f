//! Conditions of the standard type, and how they change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Everything that the spec asks for is there and serves.
pub const READY: &str = "Ready";
/// The children (StatefulSet, Services, …) are as the spec wants them.
pub const RESOURCES_SYNCED: &str = "ResourcesSynced";
/// All desired brokers are ready.
pub const BROKERS_AVAILABLE: &str = "BrokersAvailable";
/// Every ready broker runs with the configuration of this generation.
pub const CONFIGURATION_APPLIED: &str = "ConfigurationApplied";
/// The brokers' pressure reports are recent enough to scale on.
pub const METRICS_FRESH: &str = "MetricsFresh";
/// The autoscaler can decide, and acts where its mode lets it.
pub const SCALING_ACTIVE: &str = "ScalingActive";
/// Something (a bound, a policy, a guard) keeps the autoscaler from what the demand asks for.
pub const SCALING_LIMITED: &str = "ScalingLimited";
/// A broker is being emptied before it is removed.
pub const DRAINING: &str = "Draining";
/// `spec.paused` is set: nothing is changed.
pub const PAUSED: &str = "Paused";
/// Of a `MessageTopic`: every partition has an owner that takes appends.
pub const PARTITIONS_ASSIGNED: &str = "PartitionsAssigned";

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can say at the moment.
    Unknown,
}

impl ConditionStatus {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// What was found of one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// One of the constants of this module.
    pub type_: &'static str,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, as one CamelCase word from a closed set.
    pub reason: &'static str,
    /// Why, for a person. Must not change while nothing changes: no times, no counters.
    pub message: String,
}

impl Finding {
    /// A finding with all its parts.
    pub fn new(
        type_: &'static str,
        status: impl Into<ConditionStatus>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            type_,
            status: status.into(),
            reason,
            message: message.into(),
        }
    }
}

/// Records a finding about `generation`. `lastTransitionTime` becomes `now` only where the status changed. Says
/// whether anything changed.
pub fn set(conditions: &mut Vec<Condition>, finding: Finding, generation: Option<i64>, now: &Time) -> bool {
    let status = finding.status.as_str();
    let previous = conditions
        .iter_mut()
        .find(|condition| condition.type_ == finding.type_);
    let since = match &previous {
        Some(previous) if previous.status == status => previous.last_transition_time.clone(),
        _ => now.clone(),
    };
    let condition = Condition {
        last_transition_time: since,
        message: finding.message,
        observed_generation: generation,
        reason: finding.reason.to_owned(),
        status: status.to_owned(),
        type_: finding.type_.to_owned(),
    };
    match previous {
        Some(previous) if *previous == condition => false,
        Some(previous) => {
            *previous = condition;
            true
        }
        None => {
            conditions.push(condition);
            true
        }
    }
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is there and `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == ConditionStatus::True.as_str())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).expect("a valid time"))
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        assert!(set(
            &mut conditions,
            Finding::new(READY, false, "Starting", "0 of 3"),
            Some(1),
            &at(10)
        ));
        assert!(set(
            &mut conditions,
            Finding::new(READY, false, "Starting", "1 of 3"),
            Some(2),
            &at(20)
        ));
        assert_eq!(conditions[0].last_transition_time, at(10));
        assert_eq!(
            (conditions[0].observed_generation, conditions[0].message.as_str()),
            (Some(2), "1 of 3")
        );
        assert!(set(
            &mut conditions,
            Finding::new(READY, true, "AllReady", ""),
            Some(2),
            &at(30)
        ));
        assert_eq!(conditions[0].last_transition_time, at(30));
        assert!(is_true(&conditions, READY) && conditions.len() == 1);
    }

    #[test]
    fn the_same_finding_again_changes_nothing() {
        let mut conditions = Vec::new();
        let finding = Finding::new(PAUSED, ConditionStatus::Unknown, "Unknown", "");
        assert!(set(&mut conditions, finding.clone(), Some(1), &at(10)));
        assert!(!set(&mut conditions, finding, Some(1), &at(20)));
    }
}
