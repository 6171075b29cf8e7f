//! `MessageTopic`: a topic of a cluster of brokers.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationString, InvalidField, quantity, schema, topic_status::MessageTopicStatus};

/// The most partitions that a topic may have: where each one lives is kept in the topic's status.
pub const MAX_PARTITIONS: u32 = 1024;

/// What a topic should be. Its name is the object's.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "MessageTopic",
    plural = "messagetopics",
    shortname = "mt",
    category = "all",
    category = "sluice",
    namespaced,
    status = "MessageTopicStatus",
    derive = "PartialEq",
    doc = "A topic of a MessageBroker in the same namespace.",
    selectable = ".spec.brokerRef.name",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether every partition takes messages."
    ),
    printcolumn(
        name = "Broker",
        type_ = "string",
        json_path = ".spec.brokerRef.name",
        description = "The MessageBroker that the topic lives on."
    ),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".spec.partitions"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1,
        description = "Why it is ready or not."
    ),
    validation = Rule::new("!has(self.spec.deadLetterTopic) || self.spec.deadLetterTopic != self.metadata.name").message(
        "spec.deadLetterTopic must be another topic than this one"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(
    transform = schema::known_formats,
    extend("x-kubernetes-validations" = [schema::rule_at(
        "deadLetterTopic",
        "!has(self.deadLetterTopic) || self.maxDeliveries > 0",
        "deadLetterTopic is never used while maxDeliveries is 0 (deliver for ever); set maxDeliveries or remove \
         deadLetterTopic"
    )])
)]
pub struct MessageTopicSpec {
    /// The MessageBroker that the topic lives on, in the same namespace.
    pub broker_ref: BrokerRef,
    /// How many partitions. May grow, never shrink.
    #[serde(default = "default_partitions")]
    #[schemars(
        range(min = 1, max = 1024),
        extend("x-kubernetes-validations" = [schema::rule(
            "self >= oldSelf",
            "partitions can grow and never shrink; keep the present number or ask for more"
        )])
    )]
    pub partitions: u32,
    /// How long messages are kept.
    #[serde(default)]
    pub retention: TopicRetention,
    /// How long a consumer has for a message before it is delivered again.
    #[serde(default = "default_ack_deadline")]
    #[schemars(extend("x-kubernetes-validations" = schema::duration_between("ackDeadline", "100ms", "12h")))]
    pub ack_deadline: DurationString,
    /// How often a message is delivered before it is given up; 0: for ever. A message that is given up goes to the
    /// dead-letter topic if there is one, and counts as done.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub max_deliveries: u32,
    /// The topic of the same MessageBroker that gets what was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 253),
        extend("x-kubernetes-validations" = [schema::object_name("deadLetterTopic")])
    )]
    pub dead_letter_topic: Option<String>,
}

impl MessageTopicSpec {
    /// A topic of `broker` with every default.
    pub fn new(broker: impl Into<String>) -> Self {
        Self {
            broker_ref: BrokerRef { name: broker.into() },
            partitions: default_partitions(),
            retention: TopicRetention::default(),
            ack_deadline: default_ack_deadline(),
            max_deliveries: 0,
            dead_letter_topic: None,
        }
    }

    /// `ackDeadline`.
    ///
    /// # Errors
    /// If it is not a duration.
    pub fn ack_deadline(&self) -> Result<Duration, InvalidField> {
        self.ack_deadline.parse("spec.ackDeadline")
    }
}

fn default_partitions() -> u32 {
    16
}

fn default_ack_deadline() -> DurationString {
    "30s".into()
}

/// Names a MessageBroker in the same namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BrokerRef {
    /// The name of the MessageBroker. Cannot be changed.
    #[schemars(
        length(min = 1, max = 52),
        extend("x-kubernetes-validations" = [
            schema::object_name("brokerRef.name"),
            schema::rule(
                "self == oldSelf",
                "brokerRef.name cannot be changed: a topic's messages do not move to another MessageBroker; make a new \
                 MessageTopic"
            ),
        ])
    )]
    pub name: String,
}

/// What a topic gets that is published to and does not exist.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicDefaults {
    /// Whether it is created at all, as a MessageTopic that anyone can see and edit.
    pub auto_create: bool,
    /// How many partitions.
    #[schemars(range(min = 1, max = 1024))]
    pub partitions: u32,
    /// How long messages are kept.
    pub retention: DefaultRetention,
}

impl Default for TopicDefaults {
    fn default() -> Self {
        Self {
            auto_create: true,
            partitions: default_partitions(),
            retention: DefaultRetention::default(),
        }
    }
}

/// How long the messages of a topic are kept that was created by being published to.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultRetention {
    /// Older messages may go; `0s`: no limit.
    #[schemars(extend("x-kubernetes-validations" =
        schema::duration_between_or_zero("topicDefaults.retention.age", "1s", "87600h")))]
    pub age: DurationString,
    /// The oldest messages may go while a partition has more than this; absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        schema_with = "schema::optional_quantity",
        extend("x-kubernetes-validations" = [schema::bytes_between("topicDefaults.retention.bytes", "1Mi", "64Ti")])
    )]
    pub bytes: Option<Quantity>,
}

impl Default for DefaultRetention {
    fn default() -> Self {
        Self {
            age: "24h".into(),
            bytes: None,
        }
    }
}

/// How long the messages of a topic are kept.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicRetention {
    /// Older messages may go; `0s`: no limit.
    #[schemars(extend("x-kubernetes-validations" =
        schema::duration_between_or_zero("retention.age", "1s", "87600h")))]
    pub age: DurationString,
    /// The oldest messages may go while a partition has more than this; absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        schema_with = "schema::optional_quantity",
        extend("x-kubernetes-validations" = [schema::bytes_between("retention.bytes", "1Mi", "64Ti")])
    )]
    pub bytes: Option<Quantity>,
    /// Whether messages also go when every group is done with them.
    pub policy: RetentionPolicy,
}

impl TopicRetention {
    /// `age`; `None`: no limit.
    ///
    /// # Errors
    /// If it is not a duration.
    pub fn age(&self) -> Result<Option<Duration>, InvalidField> {
        Ok(Some(self.age.parse("spec.retention.age")?).filter(|age| !age.is_zero()))
    }

    /// `bytes`; `None`: no limit.
    ///
    /// # Errors
    /// If it is not a quantity.
    pub fn bytes(&self) -> Result<Option<u64>, InvalidField> {
        self.bytes
            .as_ref()
            .map(|bytes| quantity::whole(bytes, "spec.retention.bytes"))
            .transpose()
    }
}

impl Default for TopicRetention {
    fn default() -> Self {
        DefaultRetention::default().into()
    }
}

impl From<DefaultRetention> for TopicRetention {
    fn from(DefaultRetention { age, bytes }: DefaultRetention) -> Self {
        Self {
            age,
            bytes,
            policy: RetentionPolicy::default(),
        }
    }
}

/// When messages go, besides by age and size.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetentionPolicy {
    /// Not otherwise.
    #[default]
    Log,
    /// When every group is done with them.
    WorkQueue,
}
