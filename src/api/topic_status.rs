//! The status of a `MessageTopic`: where each partition lives.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// What a topic is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default, rename_all = "camelCase")]
#[schemars(transform = schema::known_formats)]
pub struct MessageTopicStatus {
    /// The generation that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where each partition lives. This is the source of truth: it is only changed by compare-and-swap.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["index"]))]
    pub partitions: Vec<PartitionStatus>,
    /// What is true of the topic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Where one partition lives.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStatus {
    /// Which one, from 0.
    pub index: u32,
    /// The epoch of the last entry of the chain.
    pub epoch: u64,
    /// The entries of its log, oldest first. The last one is open unless it has `sealedAt`.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["epoch"]))]
    pub chain: Vec<ChainEntry>,
    /// What still keeps a leaving broker from being removed; absent: nothing of this partition does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding: Option<Holding>,
    /// What else a person should know, for example why nobody takes appends.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// One entry of a partition's log.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ChainEntry {
    /// Grows along the chain.
    pub epoch: u64,
    /// The brokers that have it; the first one orders the appends.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub brokers: Vec<String>,
    /// How many positions it has; absent: it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_at: Option<u64>,
}

/// What still keeps a leaving broker from being removed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// The leaving broker.
    pub broker: String,
    /// The epochs of the entries that are only there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub epochs: Vec<u64>,
    /// What is being waited for, for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
