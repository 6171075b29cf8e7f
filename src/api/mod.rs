//! What operator and broker share: the custom resources, names, labels and ports.
//!
//! Both kinds are `sluice.dev/v1alpha1`. Their schemas carry every default and every rule, as CEL, so that the API
//! server refuses what can be refused without looking at anything else; `sluice crd` prints them.

pub mod autoscaling;
pub mod broker;
pub mod broker_status;
pub mod channel;
pub mod conditions;
pub mod duration;
pub mod embedded;
pub mod invalid;
pub mod limits;
pub mod names;
pub mod partitioner;
pub mod pod_template;
pub mod quantity;
mod schema;
pub mod storage;
pub mod topic;
pub mod topic_status;

pub use broker::{MessageBroker, MessageBrokerSpec};
pub use broker_status::MessageBrokerStatus;
pub use duration::DurationString;
pub use embedded::Embedded;
pub use invalid::InvalidField;
pub use topic::{MessageTopic, MessageTopicSpec};
pub use topic_status::MessageTopicStatus;
