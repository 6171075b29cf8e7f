//! The status of a MessageBroker, from what was applied and seen: pure, and the same for the same input.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::build::selector_text;
use super::health::Problem;
use super::plan::Scale;
use crate::api::autoscaling::AutoscalingMode;
use crate::api::broker_status::{AutoscalingStatus, BrokerStatus, DrainStatus, HoldingCounts, Summary};
use crate::api::conditions::{self, ConditionStatus, Finding};
use crate::api::{MessageBroker, MessageBrokerStatus, names};
use crate::operator::cluster::{Facts, Member};
use crate::operator::scaling::figures::{self, Figures};

/// What a status is made of.
#[derive(Clone, Debug)]
pub struct StatusInput<'a> {
    /// The MessageBroker, with the status that it has.
    pub broker: &'a MessageBroker,
    /// How many brokers there should be.
    pub wanted: u32,
    /// What was planned.
    pub scale: &'a Scale,
    /// The pods.
    pub members: &'a [Member],
    /// Names of the pods that run with the newest template.
    pub updated: &'a [String],
    /// The image that brokers run with.
    pub image: String,
    /// What the children's application ran into.
    pub sync_problems: &'a [Problem],
    /// What is wrong with pods and volumes.
    pub health_problems: &'a [Problem],
    /// What is known of the brokers.
    pub facts: &'a Facts,
    /// The autoscaler's part.
    pub autoscaling: AutoscalingStatus,
    /// The autoscaler's figures.
    pub figures: &'a Figures,
    /// The capacity of each channel.
    pub channel_capacity: u32,
    /// The operator has not known this cluster for long: what it does not know yet stays as it was.
    pub settling: bool,
    /// How long a drain may take before it is called stuck.
    pub drain_timeout: Duration,
    /// Now.
    pub now: Time,
}

/// The whole status.
pub fn status(input: &StatusInput<'_>) -> MessageBrokerStatus {
    let meta = &input.broker.metadata;
    let (name, namespace) = (
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
    );
    let before = input.broker.status.clone().unwrap_or_default();
    let ready = count(input.members.iter().filter(|member| member.ready));
    let pressure = input.figures.pressure().map_or_else(
        || {
            before
                .summary
                .clone()
                .map(|summary| summary.pressure)
                .unwrap_or_default()
        },
        |percent| format!("{percent}%"),
    );
    let scaling = if input.figures.reason.is_empty() {
        before
            .summary
            .clone()
            .map(|summary| summary.scaling)
            .unwrap_or_default()
    } else {
        input.figures.reason.to_owned()
    };
    let mut status = MessageBrokerStatus {
        observed_generation: meta.generation,
        replicas: input.scale.replicas,
        ready_replicas: ready,
        updated_replicas: count(input.updated.iter()),
        selector: selector_text(name),
        endpoint: format!("{name}.{namespace}.svc:{}", names::BROKER_PORT),
        image: input.image.clone(),
        channel_capacity: Some(input.channel_capacity),
        summary: Some(Summary {
            brokers: format!("{ready}/{}", input.wanted),
            pressure,
            scaling,
        }),
        brokers: brokers(input, &before.brokers),
        autoscaling: Some(input.autoscaling.clone()),
        drain: drain(input),
        conditions: before.conditions,
    };
    for finding in findings(input, ready, &status) {
        if input.settling
            && depends_on_brokers(finding.type_)
            && conditions::find(&status.conditions, finding.type_).is_some()
        {
            continue;
        }
        conditions::set(&mut status.conditions, finding, meta.generation, &input.now);
    }
    status
}

/// The status of a paused MessageBroker: only that it is.
pub fn paused(broker: &MessageBroker, now: &Time) -> MessageBrokerStatus {
    let mut status = broker.status.clone().unwrap_or_default();
    status.observed_generation = broker.metadata.generation;
    let finding = Finding::new(
        conditions::PAUSED,
        true,
        "SpecPaused",
        "spec.paused is true: nothing is changed until it is false",
    );
    conditions::set(&mut status.conditions, finding, broker.metadata.generation, now);
    status
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

fn depends_on_brokers(type_: &str) -> bool {
    [
        conditions::CONFIGURATION_APPLIED,
        conditions::METRICS_FRESH,
        conditions::SCALING_ACTIVE,
        conditions::SCALING_LIMITED,
    ]
    .contains(&type_)
}

fn brokers(input: &StatusInput<'_>, before: &[BrokerStatus]) -> Vec<BrokerStatus> {
    let before: BTreeMap<&str, &BrokerStatus> = before.iter().map(|one| (one.name.as_str(), one)).collect();
    let known = input.facts.generation > 0 && !input.settling;
    let one = |member: &Member| {
        let old = before.get(member.name.as_str()).copied();
        let led = input.facts.led.get(&member.name).copied().unwrap_or(0);
        let shown = BrokerStatus {
            name: member.name.clone(),
            ready: member.ready,
            partitions_led: if known {
                Some(led)
            } else {
                old.and_then(|old| old.partitions_led)
            },
            ..BrokerStatus::default()
        };
        match (input.figures.brokers.get(&member.name), old) {
            (Some(figures), _) => BrokerStatus {
                pressure: figures.pressure,
                capacity: input.figures.capacity_per_broker,
                connections: Some(figures.connections),
                queue_delay_p99: Some(figures::millis(figures.queue_delay_ms)),
                ..shown
            },
            (None, Some(old)) if input.settling => BrokerStatus {
                pressure: old.pressure,
                capacity: old.capacity,
                connections: old.connections,
                queue_delay_p99: old.queue_delay_p99.clone(),
                ..shown
            },
            _ => shown,
        }
    };
    input.members.iter().map(one).collect()
}

fn drain(input: &StatusInput<'_>) -> Option<DrainStatus> {
    let mut drain = input.scale.drain.clone()?;
    let facts = input.facts;
    if input.scale.leaving != Some(drain.ordinal) {
        drain.message.clone_from(&input.scale.waiting);
        drain.holding = HoldingCounts::default();
        return Some(drain);
    }
    if facts.leaving != Some(drain.ordinal) {
        return Some(drain);
    }
    if facts.empty {
        drain.empty_since.get_or_insert_with(|| input.now.clone());
        drain.holding = HoldingCounts::default();
        "holds nothing; waiting for spec.autoscaling.drain.settle".clone_into(&mut drain.message);
    } else {
        drain.empty_since = None;
        drain.holding = HoldingCounts {
            bytes: coarse(facts.holding.bytes),
            ..facts.holding
        };
        drain.message.clone_from(&facts.waiting_for);
    }
    Some(drain)
}

/// Two binary digits are enough to see it fall.
fn coarse(bytes: u64) -> u64 {
    let shift = 62u32.saturating_sub(bytes.leading_zeros());
    bytes >> shift << shift
}

fn findings(input: &StatusInput<'_>, ready: u32, status: &MessageBrokerStatus) -> Vec<Finding> {
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
    Finding::new(type_, false, reason, serve)
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

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
