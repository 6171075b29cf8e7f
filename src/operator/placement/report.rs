//! What a MessageTopic's status says about its partitions, and what keeps a leaving broker: pure.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::chain;
use super::model::{Broker, EntryKey, Model};
use crate::api::broker_status::HoldingCounts;
use crate::api::conditions::{self, Finding};
use crate::api::topic_status::{Holding, MessageTopicStatus, PartitionStatus};

/// How many partitions a message names.
const NAMED: usize = 8;

/// Which topic is described.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// The generation of its spec.
    pub generation: Option<i64>,
}

/// Brings notes, `holding` and conditions of a topic up to date.
pub fn describe(model: &Model, about: &About<'_>, status: &mut MessageTopicStatus, now: &Time) {
    let leaving = model.brokers.iter().find(|broker| broker.leaving);
    for partition in &mut status.partitions {
        partition.note = note(model, about.name, partition);
        partition.holding = leaving.and_then(|broker| holding(model, broker, about.uid, partition));
    }
    status.observed_generation = about.generation;
    for finding in findings(&status.partitions) {
        conditions::set(&mut status.conditions, finding, about.generation, now);
    }
}

fn note(model: &Model, topic: &str, partition: &PartitionStatus) -> String {
    let Some(owner) = chain::owner(partition) else {
        return "no broker is ready to take it".to_owned();
    };
    match model.broker(owner) {
        Some(broker) if broker.serving => {
            let refused = broker
                .lasting_problems
                .contains(&(topic.to_owned(), partition.index));
            if refused {
                format!("{owner} does not take appends yet")
            } else {
                String::new()
            }
        }
        _ => format!("{owner} is away; it is the only one that has this partition's newest messages"),
    }
}

fn findings(partitions: &[PartitionStatus]) -> [Finding; 2] {
    let unassigned = named(partitions, |partition| chain::owner(partition).is_none());
    let unavailable = named(partitions, |partition| !partition.note.is_empty());
    let assigned = match &unassigned {
        None => Finding::new(
            conditions::PARTITIONS_ASSIGNED,
            true,
            "AllAssigned",
            "every partition has an owner",
        ),
        Some(names) => Finding::new(
            conditions::PARTITIONS_ASSIGNED,
            false,
            "WaitingForBrokers",
            format!("{names}: no broker is ready to take them"),
        ),
    };
    let ready = match (unassigned, unavailable) {
        (Some(names), _) => Finding::new(
            conditions::READY,
            false,
            "PartitionsUnassigned",
            format!("{names}: no broker is ready to take them"),
        ),
        (None, Some(names)) => {
            let first = partitions.iter().find(|partition| !partition.note.is_empty());
            let why = first.map_or("", |partition| partition.note.as_str());
            Finding::new(
                conditions::READY,
                false,
                "PartitionsUnavailable",
                format!("{names}: {why}"),
            )
        }
        (None, None) => Finding::new(
            conditions::READY,
            true,
            "AllServing",
            "every partition takes messages",
        ),
    };
    [assigned, ready]
}

fn named(partitions: &[PartitionStatus], which: impl Fn(&PartitionStatus) -> bool) -> Option<String> {
    let indexes: Vec<u32> = partitions
        .iter()
        .filter(|one| which(one))
        .map(|one| one.index)
        .collect();
    if indexes.is_empty() {
        return None;
    }
    let shown: Vec<String> = indexes.iter().take(NAMED).map(u32::to_string).collect();
    let more = if indexes.len() > NAMED { " …" } else { "" };
    let noun = if indexes.len() == 1 {
        "partition"
    } else {
        "partitions"
    };
    Some(format!("{} {noun} ({}{more})", indexes.len(), shown.join(", ")))
}

/// What of this partition keeps the leaving broker.
fn holding(model: &Model, broker: &Broker, uid: &str, partition: &PartitionStatus) -> Option<Holding> {
    let placed = partition
        .chain
        .iter()
        .filter(|entry| entry.brokers.contains(&broker.name));
    let epochs: Vec<u64> = placed.map(|entry| entry.epoch).collect();
    if epochs.is_empty() {
        let on_disk = broker
            .held
            .iter()
            .flatten()
            .any(|(key, _)| key.topic_uid == uid && key.partition == partition.index);
        return on_disk.then(|| Holding {
            broker: broker.name.clone(),
            epochs: Vec::new(),
            message: "moved away; what was here is being deleted".to_owned(),
        });
    }
    let message = if chain::owner(partition) == Some(broker.name.as_str()) {
        match (broker.serving, others_serve(model, broker)) {
            (false, _) => format!("{} is away, so its open entry cannot be sealed", broker.name),
            (true, false) => "no other broker is ready to take it".to_owned(),
            (true, true) => "about to be sealed and extended elsewhere".to_owned(),
        }
    } else if broker.serving {
        "its sealed data is being copied".to_owned()
    } else {
        format!("{} is away, so its sealed data cannot be copied", broker.name)
    };
    Some(Holding {
        broker: broker.name.clone(),
        epochs,
        message,
    })
}

fn others_serve(model: &Model, broker: &Broker) -> bool {
    model
        .brokers
        .iter()
        .any(|other| other.stays && other.serving && other.name != broker.name)
}

/// What the leaving broker holds in all, and what it waits for. `None`: nothing, and it said so itself, or no
/// container of it ever ran.
pub fn leaving_holds(model: &Model, broker: &Broker, running: bool) -> Option<(HoldingCounts, String)> {
    let mut partitions = BTreeSet::new();
    let (mut entries, mut bytes) = (0u32, 0u64);
    let mut first = String::new();
    for topic in &model.topics {
        for partition in &topic.partitions {
            for entry in partition
                .chain
                .iter()
                .filter(|entry| entry.brokers.contains(&broker.name))
            {
                partitions.insert((topic.uid.clone(), partition.index));
                entries += 1;
                if first.is_empty()
                    && let Some(holding) = holding(model, broker, &topic.uid, partition)
                {
                    first = format!("{}/{}: {}", topic.name, partition.index, holding.message);
                }
                let key = EntryKey {
                    topic_uid: topic.uid.clone(),
                    partition: partition.index,
                    epoch: entry.epoch,
                };
                bytes += model.held(&broker.name, &key).map_or(0, |held| held.bytes);
            }
        }
    }
    let counts = |partitions: usize, entries, bytes| HoldingCounts {
        partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
        entries,
        bytes,
    };
    if entries > 0 {
        return Some((counts(partitions.len(), entries, bytes), first));
    }
    match &broker.held {
        Some(held) if broker.serving && held.is_empty() => None,
        Some(held) if broker.serving => {
            let bytes = held.values().map(|held| held.bytes).sum();
            let entries = u32::try_from(held.len()).unwrap_or(u32::MAX);
            let partitions: BTreeSet<_> = held.keys().map(|key| (&key.topic_uid, key.partition)).collect();
            Some((
                counts(partitions.len(), entries, bytes),
                "what was moved away is being deleted".to_owned(),
            ))
        }
        _ if !running => None,
        _ => Some((
            HoldingCounts::default(),
            format!("{} does not say what it holds", broker.name),
        )),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::super::model::Topic;
    use super::*;
    use crate::api::topic_status::ChainEntry;

    fn model(serving: bool, chain: Vec<ChainEntry>) -> Model {
        let partition = PartitionStatus {
            epoch: chain.last().map_or(0, |entry| entry.epoch),
            chain,
            ..PartitionStatus::default()
        };
        let broker = Broker {
            name: "orders-0".to_owned(),
            serving,
            current: serving,
            leaving: true,
            ..Broker::default()
        };
        Model {
            brokers: vec![broker],
            topics: vec![Topic {
                name: "t".to_owned(),
                uid: "u".to_owned(),
                wanted: 1,
                partitions: vec![partition],
            }],
            ..Model::default()
        }
    }

    fn open() -> Vec<ChainEntry> {
        vec![ChainEntry {
            epoch: 1,
            brokers: vec!["orders-0".to_owned()],
            sealed_at: None,
        }]
    }

    fn described(model: &Model, second: i64, before: MessageTopicStatus) -> MessageTopicStatus {
        let mut status = MessageTopicStatus {
            partitions: model.topics[0].partitions.clone(),
            ..before
        };
        let now = Time(Timestamp::from_second(second).expect("valid"));
        let about = About {
            name: "t",
            uid: "u",
            generation: Some(3),
        };
        describe(model, &about, &mut status, &now);
        status
    }

    #[test]
    fn the_same_again_is_the_same_status() {
        let model = model(true, open());
        let first = described(&model, 10, MessageTopicStatus::default());
        assert!(conditions::is_true(&first.conditions, conditions::READY));
        assert_eq!(described(&model, 20, first.clone()), first);
    }

    #[test]
    fn a_partition_whose_broker_is_away_says_so_and_stays() {
        let status = described(&model(false, open()), 10, MessageTopicStatus::default());
        let ready = conditions::find(&status.conditions, conditions::READY).expect("there");
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", "PartitionsUnavailable")
        );
        assert!(ready.message.contains("orders-0 is away"), "{}", ready.message);
        assert!(conditions::is_true(
            &status.conditions,
            conditions::PARTITIONS_ASSIGNED
        ));
        assert!(
            status.partitions[0]
                .holding
                .as_ref()
                .expect("held")
                .message
                .contains("cannot be sealed")
        );
    }

    #[test]
    fn a_broker_that_does_not_answer_is_not_empty_unless_it_never_ran() {
        let model = model(false, Vec::new());
        assert!(leaving_holds(&model, &model.brokers[0], true).is_some());
        assert!(leaving_holds(&model, &model.brokers[0], false).is_none());
    }
}
