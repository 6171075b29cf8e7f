//! From a payload on the wire to a message for the log: what is refused, and which partition takes it.

use std::sync::Arc;

use tonic::Code;

use crate::api::partitioner::{murmur2, partition_for_key};
use crate::broker::store::{NewMessage, Partition, TopicView};
use crate::pb;

/// More headers than this are refused.
const MOST_HEADERS: usize = 64;
/// A longer producer id is refused.
const LONGEST_PRODUCER_ID: usize = 128;

/// Why one payload will never be stored as it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    /// A google.rpc.Code.
    pub code: Code,
    /// What is wrong and what to do.
    pub text: String,
}

fn bad(text: String) -> Bad {
    Bad {
        code: Code::InvalidArgument,
        text,
    }
}

/// Bytes of key, headers and body: what credit and limits count.
pub(super) fn size(payload: &pb::Payload) -> u64 {
    let headers: usize = payload
        .headers
        .iter()
        .map(|header| header.name.len() + header.value.len())
        .sum();
    (payload.key.len() + headers + payload.body.len()) as u64
}

/// Checks everything that can be wrong with a payload alone.
///
/// # Errors
/// It is bad; the others of its batch are not.
pub(super) fn check(
    payload: &pb::Payload,
    size: u64,
    max_message_bytes: u64,
    partitions: u32,
) -> Result<(), Bad> {
    if size > max_message_bytes {
        return Err(bad(format!(
            "the message has {size} bytes and the limit is {max_message_bytes} (limits.maxMessageBytes); send less"
        )));
    }
    if payload.headers.len() > MOST_HEADERS {
        return Err(bad(format!(
            "the message has {} headers and the limit is {MOST_HEADERS}; put the rest into the body",
            payload.headers.len()
        )));
    }
    if payload.headers.iter().any(|header| header.name.is_empty()) {
        return Err(bad("a header has no name".to_owned()));
    }
    match payload.partition {
        Some(partition) if partition >= partitions => Err(bad(format!(
            "partition {partition} does not exist; the topic has 0 to {}",
            partitions.max(1) - 1
        ))),
        _ => Ok(()),
    }
}

/// Checks a producer id.
///
/// # Errors
/// It is too long.
pub(super) fn check_producer(id: &str) -> Result<(), Bad> {
    if id.len() > LONGEST_PRODUCER_ID {
        return Err(bad(format!(
            "the producer id has {} bytes and the limit is {LONGEST_PRODUCER_ID}",
            id.len()
        )));
    }
    Ok(())
}

/// Spreads a stream's messages over its topic's partitions.
#[derive(Debug)]
pub(super) struct Spread {
    next: u32,
    /// A producer's sequence always goes to the same partition, or it would not be known there when it comes again.
    fixed: bool,
}

impl Spread {
    /// For a stream with or without a producer id.
    pub(super) fn new(producer: &str) -> Self {
        if producer.is_empty() {
            Self {
                next: rand::random(),
                fixed: false,
            }
        } else {
            Self {
                next: murmur2(producer.as_bytes()),
                fixed: true,
            }
        }
    }

    /// The partition of a payload: as it says, by its key, or one after the other; batches stay together and go,
    /// where that is free to choose, to partitions that are owned here.
    pub(super) fn place(&mut self, key: &[u8], chosen: Option<u32>, sequence: u64, topic: &TopicView) -> u32 {
        let partitions = topic.partitions.len().max(1) as u32;
        if let Some(partition) = chosen {
            partition
        } else if !key.is_empty() {
            partition_for_key(key, partitions)
        } else if self.fixed {
            self.next.wrapping_add((sequence >> 6) as u32) % partitions
        } else {
            self.next % partitions
        }
    }

    /// Goes on to the next partition for what has no key.
    pub(super) fn turn(&mut self, topic: &TopicView) {
        if self.fixed {
            return;
        }
        let is_ours = |partition: &Arc<Partition>| partition.is_ours();
        for _ in 0..topic.partitions.len() {
            self.next = self.next.wrapping_add(1);
            let index = self.next as usize % topic.partitions.len();
            if topic.partitions.get(index).is_some_and(is_ours) {
                break;
            }
        }
    }
}

/// The message for the log.
pub(super) fn message(payload: pb::Payload) -> NewMessage {
    NewMessage {
        key: payload.key,
        headers: payload
            .headers
            .into_iter()
            .map(|header| (header.name, header.value))
            .collect(),
        body: payload.body,
        sequence: payload.sequence,
    }
}

/// The payload for another broker.
pub(super) fn payload(message: &NewMessage, partition: u32) -> pb::Payload {
    pb::Payload {
        key: message.key.clone(),
        headers: headers(message.headers.clone()),
        body: message.body.clone(),
        sequence: message.sequence,
        partition: Some(partition),
    }
}

/// Headers for the wire.
pub(super) fn headers(headers: Vec<(String, bytes::Bytes)>) -> Vec<pb::Header> {
    headers
        .into_iter()
        .map(|(name, value)| pb::Header { name, value })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_payload_is_named_with_what_to_do() {
        let payload = pb::Payload {
            partition: Some(4),
            ..pb::Payload::default()
        };
        let refused = check(&payload, 0, 10, 4).unwrap_err();
        assert_eq!(refused.text, "partition 4 does not exist; the topic has 0 to 3");
        assert!(
            check(&pb::Payload::default(), 11, 10, 4)
                .unwrap_err()
                .text
                .contains("maxMessageBytes")
        );
        assert_eq!(check(&pb::Payload::default(), 10, 10, 4), Ok(()));
    }
}
