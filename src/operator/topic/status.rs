//! The status of a MessageTopic whose MessageBroker is not there: pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::conditions::{self, Finding};
use crate::api::{MessageTopic, MessageTopicStatus};

/// The status of a topic that has no MessageBroker. Its partitions stay: the volumes may come back.
pub fn without_broker(topic: &MessageTopic, now: &Time) -> MessageTopicStatus {
    let mut status = topic.status.clone().unwrap_or_default();
    let generation = topic.metadata.generation;
    status.observed_generation = generation;
    let message = format!(
        "spec.brokerRef.name: there is no MessageBroker {:?} in this namespace",
        topic.spec.broker_ref.name
    );
    for type_ in [conditions::READY, conditions::PARTITIONS_ASSIGNED] {
        let finding = Finding::new(type_, false, "BrokerNotFound", message.clone());
        conditions::set(&mut status.conditions, finding, generation, now);
    }
    status
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::api::MessageTopicSpec;

    #[test]
    fn a_topic_without_a_broker_says_so_once() {
        let mut topic = MessageTopic::new("t", MessageTopicSpec::new("orders"));
        let at = |second| Time(Timestamp::from_second(second).expect("valid"));
        let first = without_broker(&topic, &at(1));
        assert!(
            first
                .conditions
                .iter()
                .all(|one| one.message.contains("\"orders\""))
        );
        topic.status = Some(first.clone());
        assert_eq!(without_broker(&topic, &at(2)), first);
    }
}
