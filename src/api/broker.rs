//! `MessageBroker`: a cluster of brokers.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    autoscaling::Autoscaling,
    broker_status::MessageBrokerStatus,
    channel::Channel,
    limits::{Limits, Tls},
    pod_template::{PodTemplate, Resources},
    schema,
    storage::Storage,
    topic::TopicDefaults,
};

/// The longest name of a MessageBroker: its StatefulSet's revision label must fit into 63 characters.
pub const MAX_NAME_LENGTH: usize = 52;
/// The most brokers that a cluster may have.
pub const MAX_REPLICAS: u32 = 1000;

/// What a cluster of brokers should be.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "MessageBroker",
    plural = "messagebrokers",
    shortname = "mb",
    category = "all",
    category = "sluice",
    namespaced,
    status = "MessageBrokerStatus",
    derive = "PartialEq",
    doc = "A cluster of gRPC message brokers that is scaled on backpressure.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether everything that the spec asks for is there and serves."
    ),
    printcolumn(
        name = "Brokers",
        type_ = "string",
        json_path = ".status.summary.brokers",
        description = "Ready and desired brokers."
    ),
    printcolumn(
        name = "Channel",
        type_ = "integer",
        json_path = ".status.channelCapacity",
        description = "Messages that fit between the network and the log of each broker."
    ),
    printcolumn(
        name = "Pressure",
        type_ = "string",
        json_path = ".status.summary.pressure",
        description = "Demand relative to what the ready brokers can carry."
    ),
    printcolumn(
        name = "Scaling",
        type_ = "string",
        json_path = ".status.summary.scaling",
        description = "Why the autoscaler decided as it last did."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Endpoint",
        type_ = "string",
        json_path = ".status.endpoint",
        priority = 1,
        description = "Where clients connect."
    ),
    validation = Rule::new("size(self.metadata.name) <= 52").message(
        "metadata.name must have at most 52 characters, so that the names of pods and Services fit; choose a shorter one"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name must be a DNS label, since Services are named by it: lower-case letters, digits and '-', \
         beginning with a letter"
    )
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(transform = schema::known_formats)]
pub struct MessageBrokerSpec {
    /// How many brokers. Used as it is while `autoscaling.mode` is `Off` or `Recommend`; else where the autoscaler
    /// starts from, again after every change of this field.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: u32,
    /// The brokers' image. Empty: the operator's own image as it was when the MessageBroker was created; changing the
    /// operator never rolls brokers by itself.
    #[schemars(
        length(max = 512),
        extend("x-kubernetes-validations" = [schema::rule(
            "self.matches('^[^[:space:]]*$')",
            "image must be an image reference without spaces, such as registry.example.com/sluice:1.2.3, or empty"
        )])
    )]
    pub image: String,
    /// What a broker's container requests, and its limits. The autoscaler takes the CPU limit as the broker's size.
    pub resources: Resources,
    /// Where messages are kept.
    pub storage: Storage,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// The bounded channel between the network and the log, in each broker.
    pub channel: Channel,
    /// How the number of brokers follows the backpressure.
    pub autoscaling: Autoscaling,
    /// What a topic gets that is published to and does not exist.
    pub topic_defaults: TopicDefaults,
    /// What one broker accepts.
    pub limits: Limits,
    /// Encryption of the brokers' ports.
    pub tls: Tls,
    /// What to add to the brokers' pods.
    pub pod_template: PodTemplate,
    /// The PodDisruptionBudget, which lets one broker go at a time.
    pub pod_disruption_budget: Toggle,
    /// The NetworkPolicy, which closes every port but the brokers' own.
    pub network_policy: Toggle,
    /// Change nothing at all until this is false again. The brokers go on serving.
    pub paused: bool,
}

impl Default for MessageBrokerSpec {
    fn default() -> Self {
        Self {
            replicas: 3,
            image: String::new(),
            resources: Resources::default(),
            storage: Storage::default(),
            durability: Durability::default(),
            channel: Channel::default(),
            autoscaling: Autoscaling::default(),
            topic_defaults: TopicDefaults::default(),
            limits: Limits::default(),
            tls: Tls::default(),
            pod_template: PodTemplate::default(),
            pod_disruption_budget: Toggle::default(),
            network_policy: Toggle::default(),
            paused: false,
        }
    }
}

/// What an acknowledgement promises; each one says which it was.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The message survived an fdatasync on its owner's disk.
    #[default]
    Fsync,
    /// The message is in its owner's memory.
    Memory,
}

/// A child that can be left out.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct Toggle {
    /// Whether the operator makes it.
    pub enabled: bool,
}

impl Default for Toggle {
    fn default() -> Self {
        Self { enabled: true }
    }
}
