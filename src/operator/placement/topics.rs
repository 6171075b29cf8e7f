//! The MessageTopics of a cluster as they are stored, and changes of their status by compare-and-swap.

use std::collections::BTreeMap;

use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use serde_json::Value;

use super::model::Topic;
use crate::api::topic_status::{MessageTopicStatus, PartitionStatus};
use crate::api::{MessageTopic, MessageTopicSpec};
use crate::operator::error::ApiError;
use crate::operator::kube_io::{Kube, timed};
use crate::pb;

/// One MessageTopic, whether its spec can be read or not.
#[derive(Clone, Debug)]
pub struct StoredTopic {
    /// The object as it is on the wire.
    pub object: DynamicObject,
    /// Its spec, or the last one that could be read.
    pub spec: MessageTopicSpec,
    /// Its status.
    pub status: MessageTopicStatus,
}

impl StoredTopic {
    /// Its name.
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    /// What placement looks at: every partition that it should have or has, by index.
    pub fn model(&self) -> Topic {
        Topic {
            name: self.name().to_owned(),
            uid: self.uid().to_owned(),
            wanted: self.spec.partitions,
            partitions: complete(&self.status.partitions, self.spec.partitions),
        }
    }

    /// What brokers are told.
    pub fn configuration(&self) -> pb::TopicConfiguration {
        let spec = &self.spec;
        let age = spec.retention.age().ok().flatten();
        pb::TopicConfiguration {
            name: self.name().to_owned(),
            uid: self.uid().to_owned(),
            partitions: self
                .status
                .partitions
                .iter()
                .map(partition_configuration)
                .collect(),
            ack_deadline: spec.ack_deadline().ok().and_then(|age| age.try_into().ok()),
            max_deliveries: spec.max_deliveries,
            dead_letter_topic: spec.dead_letter_topic.clone().unwrap_or_default(),
            retention: Some(pb::Retention {
                age: age.and_then(|age| age.try_into().ok()),
                bytes: spec.retention.bytes().ok().flatten().unwrap_or(0),
                work_queue: spec.retention.policy == crate::api::topic::RetentionPolicy::WorkQueue,
            }),
        }
    }
}

/// Partitions 0 to `wanted`, those that there are and empty ones for the rest.
pub fn complete(present: &[PartitionStatus], wanted: u32) -> Vec<PartitionStatus> {
    let mut by_index: BTreeMap<u32, PartitionStatus> =
        present.iter().map(|one| (one.index, one.clone())).collect();
    for index in 0..wanted {
        by_index.entry(index).or_insert_with(|| PartitionStatus {
            index,
            ..PartitionStatus::default()
        });
    }
    by_index.into_values().collect()
}

fn partition_configuration(partition: &PartitionStatus) -> pb::PartitionConfiguration {
    pb::PartitionConfiguration {
        index: partition.index,
        epoch: partition.epoch,
        chain: partition
            .chain
            .iter()
            .map(|entry| pb::ChainEntry {
                epoch: entry.epoch,
                brokers: entry.brokers.clone(),
                sealed_at: entry.sealed_at,
            })
            .collect(),
    }
}

/// Every MessageTopic of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Those that can be worked with, by name.
    pub topics: Vec<StoredTopic>,
    /// Uids of those whose status cannot be read: they exist, and nothing of theirs is touched.
    pub unreadable: Vec<String>,
}

/// Reads the topics of `cluster` from the API server, not from any cache. A topic whose spec cannot be read keeps
/// the one in `known`, by uid, which is brought up to date.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn list(
    kube: &Kube,
    namespace: &str,
    cluster: &str,
    known: &mut BTreeMap<String, MessageTopicSpec>,
) -> Result<Listed, ApiError> {
    let api: Api<DynamicObject> = Api::namespaced_with(kube.client.clone(), namespace, &resource());
    let params = ListParams::default().fields(&format!("spec.brokerRef.name={cluster}"));
    let what = format!("MessageTopic {namespace}");
    let list = timed("list", what, api.list(&params)).await?;
    let mut listed = Listed::default();
    for object in list.items {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        match read(object, cluster, known) {
            Some(topic) => {
                known.insert(uid, topic.spec.clone());
                listed.topics.push(topic);
            }
            None => listed.unreadable.push(uid),
        }
    }
    listed.topics.sort_by(|a, b| a.name().cmp(b.name()));
    let exists = |uid: &String| {
        listed.topics.iter().any(|topic| topic.uid() == uid) || listed.unreadable.contains(uid)
    };
    known.retain(|uid, _| exists(uid));
    Ok(listed)
}

fn read(
    object: DynamicObject,
    cluster: &str,
    known: &BTreeMap<String, MessageTopicSpec>,
) -> Option<StoredTopic> {
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let part = |name: &str| object.data.get(name).cloned().unwrap_or(Value::Null);
    let status: MessageTopicStatus = match part("status") {
        Value::Null => MessageTopicStatus::default(),
        status => serde_json::from_value(status).ok()?,
    };
    let spec = serde_json::from_value(part("spec")).unwrap_or_else(|_| {
        known.get(&uid).cloned().unwrap_or_else(|| MessageTopicSpec {
            partitions: u32::try_from(status.partitions.len()).unwrap_or(0),
            ..MessageTopicSpec::new(cluster)
        })
    });
    Some(StoredTopic { object, spec, status })
}

/// Stores a topic's status if nobody changed the object since it was read; `topic` then is what was stored.
///
/// # Errors
/// A conflict: read it again. Or the API server did not answer, or refused.
pub async fn store(kube: &Kube, topic: &mut StoredTopic, status: MessageTopicStatus) -> Result<(), ApiError> {
    let mut object = topic.object.clone();
    let value = serde_json::to_value(&status).unwrap_or(Value::Null);
    if let Value::Object(fields) = &mut object.data {
        fields.insert("status".to_owned(), value);
    }
    topic.object = kube.replace_dynamic_status(&resource(), &object).await?;
    topic.status = status;
    Ok(())
}

fn resource() -> ApiResource {
    ApiResource::erase::<MessageTopic>(&())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn a_topic_whose_spec_cannot_be_read_keeps_its_partitions() {
        let broken = object(json!({
            "metadata": {"name": "t", "uid": "u"},
            "spec": {"brokerRef": {"name": "orders"}, "partitions": "many"},
            "status": {"partitions": [{"index": 0, "epoch": 1, "chain": [{"epoch": 1, "brokers": ["orders-0"]}]}]}
        }));
        let topic = read(broken, "orders", &BTreeMap::new()).expect("its status can be read");
        assert_eq!(topic.configuration().partitions.len(), 1);
    }

    #[test]
    fn a_topic_whose_status_cannot_be_read_is_left_alone() {
        let broken = object(json!({"metadata": {"name": "t", "uid": "u"}, "status": {"partitions": 5}}));
        assert!(read(broken, "orders", &BTreeMap::new()).is_none());
    }

    #[test]
    fn partitions_may_grow_and_never_shrink() {
        let present = complete(&[], 2);
        assert_eq!(complete(&present, 4).len(), 4);
        assert_eq!(complete(&present, 1).len(), 2);
    }
}
