//! What to do next about the partitions: pure, and right to repeat after a crash at any point.

use std::collections::BTreeMap;

use super::balance::{self, Counts};
use super::chain;
use super::model::{Broker, EntryKey, Held, Model, Topic};
use crate::api::topic_status::{ChainEntry, PartitionStatus};

/// Copies at a time away from a leaving broker.
const LEAVING_COPIES: usize = 4;
/// Copies at a time for nothing but locality.
const LOCAL_COPIES: usize = 1;

/// A partition without any entry gets its first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assign {
    /// The topic's uid.
    pub topic_uid: String,
    /// The partition's index.
    pub partition: u32,
    /// The first owner.
    pub to: String,
}

/// A partition goes on elsewhere: seal, then extend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The open entry.
    pub key: EntryKey,
    /// The topic's name.
    pub topic: String,
    /// Who has it.
    pub from: String,
    /// Who goes on.
    pub to: String,
    /// With how many positions it was sealed, where the chain says so already.
    pub sealed_at: Option<u64>,
}

/// A sealed entry is brought to another broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyJob {
    /// The entry.
    pub key: EntryKey,
    /// The topic's name.
    pub topic: String,
    /// Its positions.
    pub sealed_at: u64,
    /// Who has it.
    pub from: String,
    /// Who gets it.
    pub to: String,
}

/// An entry that no chain places on this broker leaves its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropJob {
    /// The broker.
    pub broker: String,
    /// The entry.
    pub key: EntryKey,
    /// The topic's name.
    pub topic: String,
    /// It takes no appends any more.
    pub sealed: bool,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// First owners.
    pub assign: Vec<Assign>,
    /// Partitions that go on elsewhere.
    pub moves: Vec<Move>,
    /// Sealed entries that hold nothing and leave their chain.
    pub forget: Vec<EntryKey>,
    /// Sealed entries that are brought elsewhere.
    pub copies: Vec<CopyJob>,
    /// Entries that leave a disk.
    pub drops: Vec<DropJob>,
    /// Something is not as it should be and cannot be changed now: look again soon.
    pub waiting: bool,
}

/// What to do next.
pub fn plan(model: &Model) -> Plan {
    let mut plan = Plan::default();
    if !model.frozen {
        own(model, &mut plan);
        tidy(model, &mut plan);
    }
    plan.drops = drops(model);
    plan
}

/// Who should own what.
fn own(model: &Model, plan: &mut Plan) {
    let members: Vec<&Broker> = model
        .brokers
        .iter()
        .filter(|broker| broker.stays && (broker.serving || owns_any(model, &broker.name)))
        .collect();
    let serving: Vec<usize> = (0..members.len()).filter(|at| members[*at].serving).collect();
    if serving.is_empty() {
        plan.waiting |= model.topics.iter().any(|topic| !topic.partitions.is_empty());
        return;
    }
    let place: BTreeMap<&str, usize> = members
        .iter()
        .enumerate()
        .map(|(at, broker)| (broker.name.as_str(), at))
        .collect();
    let owners: Vec<Vec<Option<usize>>> = model
        .topics
        .iter()
        .map(|topic| {
            let owner = |partition| {
                let owner = open_here(model, topic, partition)?;
                place.get(owner).copied()
            };
            topic.partitions.iter().map(owner).collect()
        })
        .collect();
    let (totals, counts) = count(&owners, members.len());
    let targets = balance::targets(&totals, &counts, members.len());
    let mut load: Vec<u32> = (0..members.len())
        .map(|at| targets.iter().map(|topic| topic[at]).sum())
        .collect();
    for shift in balance::shifts(&owners, &targets) {
        let to = if members[shift.to].serving {
            shift.to
        } else {
            // Whoever should have it is away: the one that serves and has fewest, for now.
            let least = serving.iter().copied().min_by_key(|at| (load[*at], *at));
            least.unwrap_or(shift.to)
        };
        load[to] += 1;
        let topic = &model.topics[shift.topic];
        shift_one(
            model,
            topic,
            &topic.partitions[shift.partition],
            members[to],
            plan,
        );
    }
}

fn count(owners: &[Vec<Option<usize>>], members: usize) -> (Vec<u32>, Counts) {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let totals = owners.iter().map(|topic| number(topic.len())).collect();
    let counts = owners
        .iter()
        .map(|topic| {
            (0..members)
                .map(|at| number(topic.iter().filter(|owner| **owner == Some(at)).count()))
                .collect()
        })
        .collect();
    (totals, counts)
}

fn shift_one(model: &Model, topic: &Topic, partition: &PartitionStatus, to: &Broker, plan: &mut Plan) {
    let Some(last) = partition.chain.last() else {
        if model.patient {
            plan.waiting = true;
        } else {
            plan.assign.push(Assign {
                topic_uid: topic.uid.clone(),
                partition: partition.index,
                to: to.name.clone(),
            });
        }
        return;
    };
    let from = last.brokers.first().cloned().unwrap_or_default();
    // Without the broker's own answer nothing is sealed, and nothing goes on elsewhere.
    if last.sealed_at.is_none()
        && !model
            .broker(&from)
            .is_some_and(|broker| broker.serving && broker.current)
    {
        plan.waiting = true;
        return;
    }
    if from == to.name && last.sealed_at.is_none() && !sealed_on_disk(model, topic, partition, last) {
        return;
    }
    plan.moves.push(Move {
        key: key(topic, partition, last),
        topic: topic.name.clone(),
        from,
        to: to.name.clone(),
        sealed_at: last.sealed_at,
    });
}

/// The broker that takes this partition's appends; `None` also where it was sealed and the chain does not say so.
fn open_here<'a>(model: &Model, topic: &Topic, partition: &'a PartitionStatus) -> Option<&'a str> {
    let entry = chain::open_entry(partition)?;
    if sealed_on_disk(model, topic, partition, entry) {
        return None;
    }
    entry.brokers.first().map(String::as_str)
}

fn sealed_on_disk(model: &Model, topic: &Topic, partition: &PartitionStatus, entry: &ChainEntry) -> bool {
    let owner = entry.brokers.first().map_or("", String::as_str);
    model
        .held(owner, &key(topic, partition, entry))
        .is_some_and(|held| held.sealed)
}

fn owns_any(model: &Model, broker: &str) -> bool {
    let mut partitions = model.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.any(|partition| chain::owner(partition) == Some(broker))
}

fn key(topic: &Topic, partition: &PartitionStatus, entry: &ChainEntry) -> EntryKey {
    EntryKey {
        topic_uid: topic.uid.clone(),
        partition: partition.index,
        epoch: entry.epoch,
    }
}

/// Sealed entries: those that hold nothing leave their chain, the others follow their partition's owner.
fn tidy(model: &Model, plan: &mut Plan) {
    let mut from_leaving = Vec::new();
    let mut for_locality = Vec::new();
    for topic in &model.topics {
        for partition in &topic.partitions {
            let Some(owner) = ready_owner(model, topic, partition) else {
                plan.waiting |= partition.chain.len() > 1;
                continue;
            };
            for entry in partition.chain.iter().rev().skip(1) {
                let (Some(sealed_at), Some(from)) = (entry.sealed_at, entry.brokers.first()) else {
                    continue;
                };
                let key = key(topic, partition, entry);
                let expired = |held: &Held| held.start >= sealed_at;
                if sealed_at == 0 || model.held(from, &key).is_some_and(expired) {
                    plan.forget.push(key);
                } else if from != owner {
                    let leaving = model.broker(from).is_none_or(|broker| !broker.stays);
                    if !model.serves(from) {
                        plan.waiting = true;
                        continue;
                    }
                    let job = CopyJob {
                        key,
                        topic: topic.name.clone(),
                        sealed_at,
                        from: from.clone(),
                        to: owner.to_owned(),
                    };
                    if leaving {
                        from_leaving.push(job);
                    } else {
                        for_locality.push(job);
                    }
                }
            }
        }
    }
    plan.waiting |= !from_leaving.is_empty() || !for_locality.is_empty();
    from_leaving.truncate(LEAVING_COPIES);
    for_locality.truncate(if model.quiet && from_leaving.is_empty() {
        LOCAL_COPIES
    } else {
        0
    });
    plan.copies = from_leaving;
    plan.copies.append(&mut for_locality);
}

/// The owner, if it takes appends: then it also knows what the sealed entries' brokers knew of groups and producers.
fn ready_owner<'a>(model: &Model, topic: &Topic, partition: &'a PartitionStatus) -> Option<&'a str> {
    let owner = open_here(model, topic, partition)?;
    let broker = model.broker(owner)?;
    let fine =
        broker.serving && broker.current && !broker.problems.contains(&(topic.name.clone(), partition.index));
    fine.then_some(owner)
}

/// What is on a disk and no chain places there. Nothing of a topic that could not be read.
fn drops(model: &Model) -> Vec<DropJob> {
    let mut drops = Vec::new();
    for broker in model
        .brokers
        .iter()
        .filter(|broker| broker.serving && broker.current)
    {
        for (key, held) in broker.held.iter().flatten() {
            if model.unreadable.contains(&key.topic_uid) || needed(model, &broker.name, key) {
                continue;
            }
            drops.push(DropJob {
                broker: broker.name.clone(),
                key: key.clone(),
                topic: held.topic.clone(),
                sealed: held.sealed,
            });
        }
    }
    drops
}

fn needed(model: &Model, broker: &str, key: &EntryKey) -> bool {
    let Some(topic) = model.topic(&key.topic_uid) else {
        return false;
    };
    let Some(partition) = topic
        .partitions
        .iter()
        .find(|partition| partition.index == key.partition)
    else {
        // A partition that the topic does not know: never the effect of anything that the operator does.
        return true;
    };
    if key.epoch > partition.epoch {
        return true;
    }
    let entry = partition.chain.iter().find(|entry| entry.epoch == key.epoch);
    entry.is_some_and(|entry| {
        let placed = entry.brokers.iter().any(|name| name == broker);
        let being_copied_here = chain::owner(partition) == Some(broker);
        placed || being_copied_here
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
