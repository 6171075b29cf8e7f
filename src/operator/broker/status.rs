//! The status of a MessageBroker, from what was applied and seen: pure, and the same for the same input.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::build::selector_text;
use super::findings;
use super::health::Problem;
use super::plan::Scale;
use crate::api::broker_status::{AutoscalingStatus, BrokerStatus, DrainStatus, HoldingCounts, Summary};
use crate::api::conditions::{self, Finding};
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
    /// Another autoscaler is in the way.
    pub conflict: Option<&'a Problem>,
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
    for finding in findings::findings(input, ready, &status) {
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
    } else if facts.holding == HoldingCounts::default() && drain.empty_since.is_some() {
        // Nobody says that it holds anything, only the broker was not asked yet, as after a restart of the operator:
        // what was found before stands, and need not be written away and back. Removing it asks again in any case.
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

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
