//! The conditions of a MessageBroker: pure.

use super::health::Problem;
use super::status::StatusInput;
use crate::api::autoscaling::AutoscalingMode;
use crate::api::conditions::{self, ConditionStatus, Finding};
use crate::api::{MessageBrokerStatus, names};

/// Every condition but that of a pause, in the order in which they are shown.
pub fn findings(input: &StatusInput<'_>, ready: u32, status: &MessageBrokerStatus) -> Vec<Finding> {
    let synced = synced(input);
    let available = available(input, ready);
    let drain = draining(input, status);
    let stuck = drain.reason == "DrainStuck";
    vec![
        ready_finding(&synced, &available, stuck.then_some(&drain)),
        synced,
        available,
        configured(input),
        metrics(input, ready),
        active(input),
        limited(input),
        drain,
        Finding::new(conditions::PAUSED, false, "NotPaused", "spec.paused is false"),
    ]
}

fn ready_finding(synced: &Finding, available: &Finding, stuck: Option<&Finding>) -> Finding {
    let failed = [synced, available]
        .into_iter()
        .find(|finding| finding.status != ConditionStatus::True);
    match (failed, stuck) {
        (Some(finding), _) => Finding::new(conditions::READY, false, finding.reason, finding.message.clone()),
        (None, Some(stuck)) => Finding::new(conditions::READY, true, stuck.reason, stuck.message.clone()),
        (None, None) => Finding::new(
            conditions::READY,
            true,
            "AllServing",
            "everything that the spec asks for is there and serves",
        ),
    }
}

fn synced(input: &StatusInput<'_>) -> Finding {
    match input.sync_problems.first() {
        None => Finding::new(
            conditions::RESOURCES_SYNCED,
            true,
            "Synced",
            "every object is as the spec asks for",
        ),
        Some(problem) => Finding::new(
            conditions::RESOURCES_SYNCED,
            false,
            problem.reason,
            told(input.sync_problems),
        ),
    }
}

fn told(problems: &[Problem]) -> String {
    let first = problems.first().map_or("", |problem| problem.message.as_str());
    match problems.len() {
        0 | 1 => first.to_owned(),
        more => format!("{first} (and {} more)", more - 1),
    }
}

fn available(input: &StatusInput<'_>, ready: u32) -> Finding {
    let type_ = conditions::BROKERS_AVAILABLE;
    let serve = format!("{ready} of {} brokers serve", input.wanted);
    if ready >= input.wanted && input.scale.replicas >= input.wanted {
        let outdated = input.members.len() > input.updated.len();
        return if outdated {
            Finding::new(
                type_,
                true,
                "RollingOut",
                "every broker serves; some are still to be restarted with the newest template",
            )
        } else {
            Finding::new(type_, true, "AllReady", "every broker serves")
        };
    }
    if let Some(problem) = input.health_problems.first() {
        return Finding::new(
            type_,
            false,
            problem.reason,
            format!("{serve}: {}", told(input.health_problems)),
        );
    }
    if !input.scale.waiting.is_empty() {
        return Finding::new(
            type_,
            false,
            "WaitingForRemoval",
            format!("{serve}; waiting for {}", input.scale.waiting),
        );
    }
    let rolling = input.members.len() > input.updated.len();
    let reason = if rolling { "RollingOut" } else { "BrokersStarting" };
    let waiting: Vec<&str> = input
        .members
        .iter()
        .filter(|member| !member.ready)
        .map(|member| member.name.as_str())
        .collect();
    let message = if waiting.is_empty() {
        serve
    } else {
        format!("{serve}; not ready: {}", waiting.join(", "))
    };
    Finding::new(type_, false, reason, message)
}

fn configured(input: &StatusInput<'_>) -> Finding {
    let type_ = conditions::CONFIGURATION_APPLIED;
    let facts = input.facts;
    if !facts.problem.is_empty() {
        return Finding::new(type_, false, "PlacementStopped", facts.problem.clone());
    }
    let away = input
        .members
        .iter()
        .filter(|member| member.ready)
        .find(|member| !facts.links.get(&member.name).is_some_and(|link| link.connected));
    match away {
        Some(member) => {
            let error = facts
                .links
                .get(&member.name)
                .map_or("", |link| link.error.as_str());
            let why = if error.is_empty() {
                String::new()
            } else {
                format!(": {error}")
            };
            Finding::new(
                type_,
                false,
                "BrokerUnreachable",
                format!("{} does not take the operator's configuration{why}", member.name),
            )
        }
        None => Finding::new(
            type_,
            true,
            "Applied",
            "every ready broker has the operator's configuration",
        ),
    }
}

fn metrics(input: &StatusInput<'_>, ready: u32) -> Finding {
    let type_ = conditions::METRICS_FRESH;
    let reporting = input.figures.brokers_reporting;
    if input.figures.reason.is_empty() {
        return Finding::new(
            type_,
            ConditionStatus::Unknown,
            "Measuring",
            "no reports were looked at yet",
        );
    }
    if ready == 0 {
        return Finding::new(type_, false, "NoBrokers", "no broker serves");
    }
    if reporting >= ready {
        Finding::new(
            type_,
            true,
            "AllReporting",
            "every ready broker reports its pressure",
        )
    } else {
        let message = "some ready brokers do not report their pressure, or not for long enough yet";
        Finding::new(type_, false, "ReportsMissing", message)
    }
}

fn active(input: &StatusInput<'_>) -> Finding {
    let type_ = conditions::SCALING_ACTIVE;
    let reason = if input.figures.reason.is_empty() {
        "Measuring"
    } else {
        input.figures.reason
    };
    if let Some(conflict) = input.conflict {
        // Whoever runs the other one has to see it where they look for what scales.
        let decides = input.broker.spec.autoscaling.mode.acts();
        return Finding::new(type_, decides, conflict.reason, conflict.message.clone());
    }
    match input.broker.spec.autoscaling.mode {
        AutoscalingMode::Off => Finding::new(type_, false, "Off", "spec.autoscaling.mode is Off"),
        AutoscalingMode::Recommend => Finding::new(
            type_,
            false,
            "RecommendOnly",
            "spec.autoscaling.mode is Recommend: decisions are shown and not acted on",
        ),
        AutoscalingMode::ScaleUpOnly | AutoscalingMode::Auto => match reason {
            "MetricsMissing" | "Fallback" | "NoBrokers" | "CapacityUnknown" => Finding::new(
                type_,
                false,
                reason,
                "the autoscaler cannot decide on the demand; see status.autoscaling",
            ),
            _ => Finding::new(
                type_,
                true,
                "Deciding",
                "the autoscaler decides on the brokers' reports",
            ),
        },
    }
}

fn limited(input: &StatusInput<'_>) -> Finding {
    let type_ = conditions::SCALING_LIMITED;
    match input.figures.limited_by {
        Some(limit) if input.broker.spec.autoscaling.mode != AutoscalingMode::Off => {
            let message = format!("{limit} keeps the number of brokers from what the demand asks for");
            Finding::new(type_, true, limit, message)
        }
        _ => Finding::new(
            type_,
            false,
            "NotLimited",
            "nothing keeps the autoscaler from what the demand asks for",
        ),
    }
}

fn draining(input: &StatusInput<'_>, status: &MessageBrokerStatus) -> Finding {
    let type_ = conditions::DRAINING;
    let Some(drain) = &status.drain else {
        return Finding::new(type_, false, "NotDraining", "no broker is being emptied");
    };
    let name = names::broker(
        input.broker.metadata.name.as_deref().unwrap_or_default(),
        drain.ordinal,
    );
    if input.scale.leaving != Some(drain.ordinal) {
        return Finding::new(
            type_,
            true,
            "Removing",
            format!("{name} has left; its pod and volume are being removed"),
        );
    }
    let took = input.now.0.duration_since(drain.since.0);
    let stuck = drain.empty_since.is_none()
        && took.as_secs() > i64::try_from(input.drain_timeout.as_secs()).unwrap_or(i64::MAX);
    let holding = drain.holding;
    let what = if drain.empty_since.is_some() {
        format!("{name} holds nothing any more")
    } else {
        let waits = if drain.message.is_empty() {
            String::new()
        } else {
            format!("; {}", drain.message)
        };
        format!(
            "{name} still holds {} partitions ({} entries){waits}",
            holding.partitions, holding.entries
        )
    };
    if stuck {
        let message = format!("{what}; this takes longer than spec.autoscaling.drain.timeout, and goes on");
        return Finding::new(type_, true, "DrainStuck", message);
    }
    Finding::new(type_, true, "Emptying", what)
}
