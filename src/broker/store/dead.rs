//! Dead letters: what they say, and how each of them is stored exactly once.
//!
//! A letter is sent as an idempotent producer whose name and sequence follow from the message's place and group. So a
//! letter that was stored before a crash, and whose message was not done yet, is recognised when it comes again.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{EntryId, NewMessage, Offset, Store, StoredMessage};
use crate::api::partitioner::{murmur2, partition_for_key};
use crate::broker::group::Hub;
use crate::broker::partition::Partition;
use crate::broker::partition::read::ReadError;

/// A message that a group gives up.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) hub: Arc<Hub>,
    pub(crate) partition: Arc<Partition>,
    /// The epoch under which it was delivered.
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    /// Deliveries so far.
    pub(crate) count: u32,
    /// Why, in words.
    pub(crate) reason: &'static str,
    /// Told when it is done.
    pub(crate) done: Option<oneshot::Sender<()>>,
}

/// Why a letter is not stored yet.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Its topic takes none: others of the same topic need not try.
    Topic(String, String),
    /// The message itself cannot be read or settled now.
    Letter(String),
}

/// Positions that share a producer. A partition remembers as many sequences of each producer, so that none of them
/// is ever too old.
const TOGETHER: u64 = crate::broker::partition::REMEMBERED as u64;

/// Who sends the letter of a message, and under which sequence: the same each time.
fn identity(id: &EntryId, group: &str, offset: Offset) -> (String, u64) {
    // A producer id has 128 bytes at most; a long name is told from others by its hash.
    const LONGEST: usize = 40;
    let group = if group.len() > LONGEST {
        format!("{:032x}", fnv1a(group.as_bytes()))
    } else {
        group.to_owned()
    };
    let block = offset.position() / TOGETHER;
    let producer = format!(
        "dead/{}/{}/{}.{block}/{group}",
        id.topic_uid,
        id.partition,
        offset.epoch()
    );
    (producer, offset.position() % TOGETHER)
}

/// FNV-1a of 128 bits.
fn fnv1a(bytes: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes
        .iter()
        .fold(BASIS, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

/// The partition of a dead-letter topic that a letter goes to: the same each time, or it would not be recognised.
pub(crate) fn partition_of(key: &[u8], producer: &str, partitions: u32) -> u32 {
    if key.is_empty() {
        murmur2(producer.as_bytes()) % partitions.max(1)
    } else {
        partition_for_key(key, partitions.max(1))
    }
}

impl Store {
    /// The dead-letter topic that a message would go to now; empty: none.
    pub(super) fn grave(&self, dead: &Dead) -> String {
        let id = dead.partition.entry_id(dead.epoch);
        let topic = self.find_topic(&id.topic);
        topic.map_or_else(String::new, |topic| topic.settings().dead_letter_topic)
    }

    /// Stores the letter of a message, and then notes that the message is done. Returns whether it is: the partition
    /// may have moved, and then its next owner sees to it.
    pub(crate) async fn bury_one(&self, dead: &Dead) -> Result<bool, Problem> {
        if !dead.hub.is_dying(dead) {
            return Ok(false);
        }
        let target = self.grave(dead);
        let mut counter = &self.counters.given_up_messages;
        if !target.is_empty() {
            let offset = Offset(dead.offset);
            match self.read_messages(&dead.partition, offset).await {
                Ok(messages) => {
                    let message = messages.into_iter().next();
                    let message =
                        message.ok_or_else(|| Problem::Letter("the message is not there".to_owned()))?;
                    let id = dead.partition.entry_id(offset.epoch());
                    let (producer, sequence) = identity(&id, dead.hub.name(), offset);
                    let letter = letter(dead, &id.topic, message, sequence);
                    let sent = self.send_letter(&target, &producer, letter).await;
                    sent.map_err(|why| Problem::Topic(target, why))?;
                    counter = &self.counters.dead_lettered_messages;
                }
                // There is nothing to keep any more.
                Err(ReadError::Damaged(_) | ReadError::Gone(_)) => {}
                Err(error) => return Err(Problem::Letter(error.to_string())),
            }
        }
        let finished = dead.hub.finish_dead(dead).await;
        let is_done = finished.map_err(|refused| Problem::Letter(refused.to_string()))?;
        counter.add(u64::from(is_done));
        Ok(is_done)
    }

    async fn send_letter(&self, target: &str, producer: &str, letter: NewMessage) -> Result<(), String> {
        let partitions = self.find_topic(target).map(|topic| topic.partitions());
        let here = partitions.and_then(|partitions| {
            let index = partition_of(&letter.key, producer, partitions.len() as u32);
            partitions.into_iter().nth(index as usize)
        });
        let Some(partition) = here.filter(|partition| partition.is_ours()) else {
            let sink = self.dead_letters.read().clone();
            let sink = sink.ok_or_else(|| format!("topic {target:?} has no partition on this broker"))?;
            return sink.publish(target, producer, letter).await;
        };
        let ticket = partition
            .append_with(vec![letter], producer, None, None)
            .map_err(|refused| refused.error.to_string())?;
        ticket.done().await.map(drop).map_err(|error| error.to_string())
    }
}

fn letter(dead: &Dead, topic: &str, message: StoredMessage, sequence: u64) -> NewMessage {
    let mut headers = message.headers;
    let mut add = |name: &str, value: String| {
        headers.push((format!("sluice-dead-letter-{name}"), Bytes::from(value)));
    };
    add("reason", dead.reason.to_owned());
    add("topic", topic.to_owned());
    add("partition", dead.partition.index().to_string());
    add("offset", dead.offset.to_string());
    add("group", dead.hub.name().to_owned());
    add("deliveries", dead.count.to_string());
    if !message.producer.is_empty() {
        add("producer", message.producer);
        add("sequence", message.sequence.to_string());
    }
    NewMessage {
        key: message.key,
        headers,
        body: message.body,
        sequence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_and_group_has_an_identity_of_its_own_that_fits() {
        let id = |partition| EntryId {
            topic: "orders".to_owned(),
            topic_uid: "01234567-0123-0123-0123-0123456789ab".to_owned(),
            partition,
            epoch: 1,
        };
        let long = "g".repeat(128);
        let longer = format!("{}h", "g".repeat(127));
        let mut seen = std::collections::HashSet::new();
        for group in ["a", "b", &long, &longer] {
            for partition in [0, u32::MAX] {
                for offset in [
                    Offset::new(1, 0),
                    Offset::new(2, 0),
                    Offset::new(2, TOGETHER),
                    Offset::new(1 << 23, (1 << 40) - 1),
                ] {
                    let identity = identity(&id(partition), group, offset);
                    assert!(identity.0.len() <= 128, "{}", identity.0);
                    assert!(identity.1 < TOGETHER);
                    assert!(seen.insert(identity));
                }
            }
        }
    }
}
