//! The status of a `MessageBroker`.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{DurationString, schema};

/// How many decisions of the autoscaler are kept.
pub const MAX_DECISIONS: usize = 10;

/// What a cluster of brokers is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default, rename_all = "camelCase")]
#[schemars(transform = schema::known_formats)]
pub struct MessageBrokerStatus {
    /// The generation that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Brokers that there are.
    pub replicas: u32,
    /// Brokers that serve.
    pub ready_replicas: u32,
    /// Brokers that run with the newest pod template.
    pub updated_replicas: u32,
    /// The label selector of the brokers' pods, for the scale subresource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Where clients connect, as host:port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// The image that the brokers run with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Messages that fit between the network and the log of each broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel_capacity: Option<u32>,
    /// What `kubectl get` shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// Each broker.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub brokers: Vec<BrokerStatus>,
    /// What the autoscaler thinks, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// The broker that is being emptied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
    /// What is true of the cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What `kubectl get` shows, as text.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct Summary {
    /// Ready and desired brokers, for example `3/4`.
    pub brokers: String,
    /// Demand relative to what the ready brokers can carry, for example `73%`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pressure: String,
    /// The reason of the autoscaler's last decision.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scaling: String,
}

/// One broker.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStatus {
    /// The broker's name, which is its pod's.
    pub name: String,
    /// Whether it serves.
    pub ready: bool,
    /// Demand relative to what it can carry, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<u32>,
    /// Messages a second that it can carry, as estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// Connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// The 99th percentile of the time that messages wait in the channel.
    #[serde(default, rename = "queueDelayP99", skip_serializing_if = "Option::is_none")]
    pub queue_delay_p99: Option<DurationString>,
    /// Partitions whose appends it orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions_led: Option<u32>,
}

/// What the autoscaler thinks, and why.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// The `spec.replicas` that `desiredReplicas` started from. Another number there is a new starting point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starting_replicas: Option<u32>,
    /// How many brokers there should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<u32>,
    /// How many brokers the demand asks for, before stabilisation, policies, bounds and guards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recommended_replicas: Option<u32>,
    /// Messages a second that publishers would send if nothing held them back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demand_per_second: Option<u64>,
    /// Messages a second that one broker can carry, as estimated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_per_broker: Option<u64>,
    /// The part of their time in which publishers are held back, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_percent: Option<u32>,
    /// The 99th percentile of the time that messages wait in a channel, in the worst broker.
    #[serde(rename = "queueDelayP99", skip_serializing_if = "Option::is_none")]
    pub queue_delay_p99: Option<DurationString>,
    /// Brokers whose reports are recent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brokers_reporting: Option<u32>,
    /// The bound, policy or guard that keeps `desiredReplicas` from `recommendedReplicas`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<String>,
    /// When `desiredReplicas` last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// The last ten decisions, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub decisions: Vec<Decision>,
    /// What the autoscaler keeps for itself across restarts of the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<OpaqueState>,
}

impl AutoscalingStatus {
    /// Adds a decision and forgets the oldest one beyond ten.
    pub fn record(&mut self, decision: Decision) {
        self.decisions.push(decision);
        let surplus = self.decisions.len().saturating_sub(MAX_DECISIONS);
        self.decisions.drain(..surplus);
    }
}

/// One decision of the autoscaler.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// When.
    pub time: Time,
    /// The number of brokers before.
    pub from: u32,
    /// The number of brokers from then on.
    pub to: u32,
    /// Why, as one word from a closed set.
    pub reason: String,
    /// Why, for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What it was decided on.
    pub inputs: DecisionInputs,
}

/// What a decision was made on.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DecisionInputs {
    /// Messages a second that publishers would send if nothing held them back.
    pub demand_per_second: u64,
    /// Messages a second that were accepted.
    pub accepted_per_second: u64,
    /// Messages a second that one broker can carry, as estimated.
    pub capacity_per_broker: u64,
    /// The part of their time in which publishers are held back, in percent.
    pub blocked_percent: u32,
    /// Messages that have piled up.
    pub backlog: u64,
    /// The 99th percentile of the time that messages wait in a channel, in the worst broker.
    #[serde(rename = "queueDelayP99", skip_serializing_if = "Option::is_none")]
    pub queue_delay_p99: Option<DurationString>,
    /// Brokers that serve.
    pub brokers_ready: u32,
    /// Brokers whose reports are recent.
    pub brokers_reporting: u32,
}

/// The broker that is being emptied, and what it still holds.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// Its ordinal.
    pub ordinal: u32,
    /// Since when it is being emptied.
    pub since: Time,
    /// Since when it has held nothing; it is removed when that has lasted for `drain.settle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_since: Option<Time>,
    /// What it still holds.
    #[serde(default)]
    pub holding: HoldingCounts,
    /// What is being waited for, for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What a leaving broker still holds.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct HoldingCounts {
    /// Partitions with anything there.
    pub partitions: u32,
    /// Entries of those partitions' chains.
    pub entries: u32,
    /// Bytes of those entries on its disk.
    pub bytes: u64,
}

/// An object that only its writer understands.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(transparent)]
pub struct OpaqueState(pub serde_json::Value);

impl JsonSchema for OpaqueState {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OpaqueState".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}
