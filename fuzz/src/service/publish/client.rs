//! A client, and what it may expect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::PARTITIONS;
use crate::input::Input;
use crate::pb;
use crate::pb::publish_response::Response;
use crate::stand_in::Partition;

/// The largest body; more than is taken.
const LARGEST: u64 = 300;

/// How a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// On its way.
    Sent,
    /// Not stored: to be sent again.
    Refused,
    /// Never to be stored.
    Rejected,
    /// Stored.
    Acked,
}

#[derive(Debug, Clone)]
struct Payload {
    partition: u32,
    bytes: u64,
    fate: Fate,
    /// Where it is in what was sent, the last time.
    place: usize,
}

/// A client. Unless it is wild, it keeps to what the protocol asks of it: sequences that increase, no more than its credit, and
/// what was refused again in its order.
#[derive(Default)]
pub(super) struct Client {
    is_wild: bool,
    /// Something may be stored that was answered otherwise.
    pub(super) is_unsure: bool,
    credit: Option<pb::Credit>,
    payloads: BTreeMap<u64, Payload>,
    /// Sequences in the order in which they were sent, again and again included.
    sent: Vec<u64>,
    acked: pb::Ack,
    /// Messages that had been stored before.
    duplicates: u64,
}

impl Client {
    pub(super) fn new(is_wild: bool) -> Self {
        Self {
            is_wild,
            ..Self::default()
        }
    }

    /// The next batch; `None` where the credit allows none.
    pub(super) fn batch(&mut self, input: &mut Input<'_>) -> Option<pb::PublishBatch> {
        if !self.is_wild && self.credit.is_none() {
            return None;
        }
        let count = input.between(0, 6);
        let mut payloads = Vec::new();
        for _ in 0..count {
            payloads.extend(if self.is_wild {
                Some(self.wild(input))
            } else {
                self.again(input).or_else(|| self.fresh(input))
            });
        }
        if payloads.is_empty() && count > 0 {
            return None;
        }
        Some(pb::PublishBatch {
            payloads,
            waited_nanos: input.number(),
            offered_messages: input.flag().then(|| input.number() >> 16),
        })
    }

    fn with(&self, fate: Fate) -> impl Iterator<Item = (u64, &Payload)> {
        let all = self
            .payloads
            .iter()
            .map(|(&sequence, payload)| (sequence, payload));
        all.filter(move |(_, payload)| payload.fate == fate)
    }

    fn fits(&self, bytes: u64) -> bool {
        let Some(credit) = &self.credit else { return false };
        let out = self.with(Fate::Sent);
        let (count, sum) = out.fold((0, 0), |(count, sum), (_, payload)| {
            (count + 1, sum + payload.bytes)
        });
        count < credit.messages && sum + bytes <= credit.bytes
    }

    /// The first one that was refused, of a partition whose answers are all here.
    fn again(&mut self, input: &mut Input<'_>) -> Option<pb::Payload> {
        let first = |partition: u32| {
            let is_there = |(_, payload): &(u64, &Payload)| payload.partition == partition;
            let refused = self.with(Fate::Refused).find(is_there)?;
            // Of those that are sent again together, none is answered yet.
            let is_behind = |(sequence, payload): (u64, &Payload)| {
                payload.partition == partition && (sequence > refused.0 || !self.is_again(sequence))
            };
            (!self.with(Fate::Sent).any(is_behind)).then_some(refused.0)
        };
        let first: Vec<u64> = (0..PARTITIONS).filter_map(first).collect();
        let at = usize::from(input.byte()) % first.len().max(1);
        self.send(*first.get(at)?)
    }

    /// Whether it was sent more than once.
    fn is_again(&self, sequence: u64) -> bool {
        self.sent.iter().filter(|&&sent| sent == sequence).count() > 1
    }

    fn fresh(&mut self, input: &mut Input<'_>) -> Option<pb::Payload> {
        let sequence = self.payloads.last_key_value().map_or(1, |(last, _)| last + 1);
        let payload = Payload {
            partition: input.between32(0, PARTITIONS - 1),
            bytes: input.between(0, LARGEST),
            fate: Fate::Refused,
            place: 0,
        };
        if !self.fits(payload.bytes) {
            return None;
        }
        self.payloads.insert(sequence, payload);
        self.send(sequence)
    }

    fn send(&mut self, sequence: u64) -> Option<pb::Payload> {
        let bytes = self.payloads.get(&sequence)?.bytes;
        if !self.fits(bytes) {
            return None;
        }
        let payload = self.payloads.get_mut(&sequence)?;
        payload.fate = Fate::Sent;
        payload.place = self.sent.len();
        self.sent.push(sequence);
        Some(pb::Payload {
            sequence,
            partition: Some(payload.partition),
            body: Bytes::from(vec![0; bytes as usize]),
            ..pb::Payload::default()
        })
    }

    /// Anything.
    fn wild(&mut self, input: &mut Input<'_>) -> pb::Payload {
        let kind = input.byte();
        let header = pb::Header {
            name: if kind & 1 == 0 {
                "a".to_owned()
            } else {
                String::new()
            },
            value: Bytes::new(),
        };
        let sequence = if kind & 2 == 0 {
            input.between(0, 40)
        } else {
            input.number()
        };
        self.sent.push(sequence);
        pb::Payload {
            sequence,
            partition: (kind & 4 == 0).then(|| input.between32(0, PARTITIONS)),
            key: Bytes::from(vec![input.byte(); usize::from(kind & 8) / 8]),
            headers: vec![header; usize::from(kind >> 4) % 3],
            body: Bytes::from(vec![0; input.between(0, LARGEST) as usize]),
        }
    }

    /// An answer.
    pub(super) fn hear(&mut self, response: Response, partitions: &[Arc<Partition>]) {
        match response {
            Response::Welcome(welcome) => {
                assert!(self.credit.is_none(), "welcomed twice");
                self.credit = welcome.credit;
            }
            Response::Credit(credit) => self.credit = Some(credit),
            Response::Ack(ack) => self.acknowledged(ack, partitions),
            Response::Throttled(throttled) => self.refused(&throttled.sequences, Fate::Refused, partitions),
            Response::Moved(moved) => self.refused(&moved.sequences, Fate::Refused, partitions),
            Response::Rejected(rejected) => self.refused(&[rejected.sequence], Fate::Rejected, partitions),
            Response::GoAway(_) => {}
        }
    }

    /// Only what is on its way is refused, and none of it is stored.
    fn refused(&mut self, sequences: &[u64], fate: Fate, partitions: &[Arc<Partition>]) {
        for sequence in sequences {
            assert!(self.sent.contains(sequence), "{sequence} was never sent");
            if self.is_wild {
                continue;
            }
            let payload = self.payloads.get_mut(sequence).expect("it was sent");
            assert_eq!(payload.fate, Fate::Sent, "{sequence} is refused as {fate:?}");
            payload.fate = fate;
            let is_stored = partitions[payload.partition as usize].stored().contains(sequence);
            assert!(!is_stored || self.is_unsure, "{sequence} is stored and {fate:?}");
        }
    }

    /// What is acknowledged is stored, and an acknowledgement never goes back.
    fn acknowledged(&mut self, ack: pb::Ack, partitions: &[Arc<Partition>]) {
        assert!(
            ack.sequence >= self.acked.sequence && ack.payloads >= self.acked.payloads,
            "{ack:?}"
        );
        assert!(
            ack.payloads <= self.sent.len() as u64,
            "{ack:?} of {}",
            self.sent.len()
        );
        for offset in &ack.offsets {
            let stored = partitions[offset.partition as usize].stored().len() as u64;
            assert!(offset.offset & ((1 << 40) - 1) < stored, "{ack:?}");
        }
        self.duplicates += ack.duplicates;
        let from = self.acked.payloads as usize;
        for (place, sequence) in self
            .sent
            .iter()
            .enumerate()
            .take(ack.payloads as usize)
            .skip(from)
        {
            assert!(*sequence <= ack.sequence, "{sequence} in {ack:?}");
            let Some(payload) = self.payloads.get_mut(sequence) else {
                continue;
            };
            if payload.fate == Fate::Sent && payload.place == place {
                let stored = partitions[payload.partition as usize].stored();
                assert!(
                    stored.contains(sequence),
                    "{sequence} is acknowledged and not stored"
                );
                payload.fate = Fate::Acked;
            }
        }
        self.acked = ack;
    }

    /// The stream ended well: all that was sent is answered and counted.
    pub(super) fn ended_well(&self, duplicates: u64) {
        assert_eq!(
            self.acked.payloads,
            self.sent.len() as u64,
            "not all of it is counted"
        );
        assert_eq!(self.duplicates, duplicates);
        let open: Vec<u64> = self.with(Fate::Sent).map(|(sequence, _)| sequence).collect();
        assert!(open.is_empty(), "{open:?} are not answered");
    }

    /// Each partition has a good client's payloads in their order.
    pub(super) fn check_order(&self, partitions: &[Arc<Partition>], has_id: bool) {
        for (index, partition) in partitions.iter().enumerate().filter(|_| !self.is_wild) {
            let mut seen = BTreeSet::new();
            for sequence in partition.stored() {
                let last = seen.last().copied();
                let is_first = seen.insert(sequence);
                assert!(is_first || !has_id, "{sequence} is stored twice");
                assert!(
                    !is_first || last < Some(sequence),
                    "{sequence} behind {last:?} in {index}"
                );
                let payload = &self.payloads[&sequence];
                assert_eq!(payload.partition as usize, index);
            }
        }
    }
}
