//! What waits to be sent on a publish stream: merged, so that it is bounded by the stream's credit.

use std::collections::VecDeque;
use std::time::Duration;

use super::outbox::Queue;
use crate::pb;
use crate::pb::publish_response::Response;

/// In the order in which it is sent: what names payloads goes out before the [`pb::Ack`] that covers them.
#[derive(Debug, Default)]
pub struct PublishOut {
    welcome: Option<pb::PublishWelcome>,
    go_away: Option<pb::GoAway>,
    /// Answers that refuse payloads, in the order in which those were refused: a client that reads of a later one first would send
    /// it again first.
    refused: VecDeque<Response>,
    /// Payloads named in them.
    refusals: usize,
    credit: Option<pb::Credit>,
    ack: Option<Acked>,
    /// Messages and bytes that the acks sent so far gave back.
    taken: (u64, u64),
}

#[derive(Debug)]
struct Acked {
    ack: pb::Ack,
    messages: u64,
    bytes: u64,
}

impl Queue for PublishOut {
    type Item = pb::PublishResponse;

    fn pop(&mut self) -> Option<Self::Item> {
        let response = if let Some(welcome) = self.welcome.take() {
            Response::Welcome(welcome)
        } else if let Some(go_away) = self.go_away.take() {
            Response::GoAway(go_away)
        } else if let Some(refused) = self.refused.pop_front() {
            self.refusals -= payloads(&refused);
            refused
        } else if let Some(credit) = self.credit.take() {
            Response::Credit(credit)
        } else {
            let acked = self.ack.take()?;
            self.taken.0 += acked.messages;
            self.taken.1 += acked.bytes;
            Response::Ack(acked.ack)
        };
        Some(pb::PublishResponse {
            response: Some(response),
        })
    }
}

impl PublishOut {
    /// The first answer.
    pub fn welcome(&mut self, welcome: pb::PublishWelcome) {
        self.welcome = Some(welcome);
    }

    /// The broker stops.
    pub fn go_away(&mut self, reason: &str) {
        self.go_away = Some(pb::GoAway {
            reason: reason.to_owned(),
        });
    }

    /// One bad payload.
    pub fn reject(&mut self, rejected: pb::Rejected) {
        self.refusals += 1;
        self.refused.push_back(Response::Rejected(rejected));
    }

    /// Payloads whose partition another broker owns. Merged with the last refusal, if that says the same.
    pub fn moved(&mut self, moved: pb::Moved) {
        self.refusals += moved.sequences.len();
        match self.refused.back_mut() {
            Some(Response::Moved(last)) if last.partition == moved.partition => {
                last.sequences.extend(moved.sequences);
                last.address = moved.address;
                last.epoch = moved.epoch;
            }
            _ => self.refused.push_back(Response::Moved(moved)),
        }
    }

    /// Payloads to send again later. Merged with the last refusal, if that says the same.
    pub fn throttle(&mut self, sequences: &[u64], after: Duration, reason: &str) {
        self.refusals += sequences.len();
        match self.refused.back_mut() {
            Some(Response::Throttled(last)) if last.reason == reason => {
                last.sequences.extend_from_slice(sequences);
            }
            _ => self.refused.push_back(Response::Throttled(pb::Throttled {
                sequences: sequences.to_vec(),
                retry_after: prost_types::Duration::try_from(after).ok(),
                reason: reason.to_owned(),
            })),
        }
    }

    /// Another credit; it replaces one that was not sent yet.
    pub fn credit(&mut self, credit: pb::Credit) {
        self.credit = Some(credit);
    }

    /// More is settled. Merged with an ack that was not sent yet.
    pub fn ack(&mut self, ack: pb::Ack, messages: u64, bytes: u64) {
        match &mut self.ack {
            None => self.ack = Some(Acked { ack, messages, bytes }),
            Some(known) => {
                known.messages += messages;
                known.bytes += bytes;
                known.ack.sequence = ack.sequence;
                known.ack.payloads = ack.payloads;
                known.ack.durability = ack.durability;
                known.ack.duplicates += ack.duplicates;
                merge_offsets(&mut known.ack.offsets, ack.offsets);
            }
        }
    }

    /// Messages and bytes that the client knows to be settled.
    pub fn taken(&self) -> (u64, u64) {
        self.taken
    }

    /// Payloads that were refused and whose refusal the client has not read.
    pub fn refusals(&self) -> usize {
        self.refusals
    }

    /// Whether a credit waits to be sent.
    pub fn has_credit(&self) -> bool {
        self.credit.is_some()
    }
}

/// How many payloads an answer refuses.
fn payloads(refused: &Response) -> usize {
    match refused {
        Response::Rejected(_) => 1,
        Response::Moved(moved) => moved.sequences.len(),
        Response::Throttled(throttled) => throttled.sequences.len(),
        _ => 0,
    }
}

/// Keeps the last offset of each partition.
pub(super) fn merge_offsets(known: &mut Vec<pb::PartitionOffset>, new: Vec<pb::PartitionOffset>) {
    if known.is_empty() {
        *known = new;
        return;
    }
    for offset in new {
        match known.iter_mut().find(|one| one.partition == offset.partition) {
            Some(one) => one.offset = one.offset.max(offset.offset),
            None => known.push(offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_that_nobody_reads_become_one_and_refusals_go_first() {
        let mut out = PublishOut::default();
        let ack = |sequence, offset| pb::Ack {
            sequence,
            payloads: sequence,
            duplicates: 1,
            offsets: vec![pb::PartitionOffset { partition: 0, offset }],
            ..pb::Ack::default()
        };
        out.ack(ack(3, 7), 3, 30);
        out.throttle(&[4, 5], Duration::from_millis(100), "full");
        out.throttle(&[6], Duration::from_millis(100), "full");
        out.ack(ack(6, 9), 3, 30);
        let Some(Response::Throttled(throttled)) = out.pop().and_then(|one| one.response) else {
            panic!("the refusal goes first")
        };
        assert_eq!(throttled.sequences, [4, 5, 6]);
        assert_eq!(out.taken(), (0, 0));
        let Some(Response::Ack(merged)) = out.pop().and_then(|one| one.response) else {
            panic!("no ack")
        };
        assert_eq!(
            (merged.sequence, merged.duplicates, merged.offsets.len()),
            (6, 2, 1)
        );
        assert_eq!(merged.offsets[0].offset, 9);
        assert_eq!(out.taken(), (6, 60));
        assert!(out.pop().is_none());
    }

    #[test]
    fn refusals_are_told_in_the_order_in_which_they_came() {
        let mut out = PublishOut::default();
        let soon = Duration::from_millis(100);
        let moved = |sequence| pb::Moved {
            partition: 2,
            sequences: vec![sequence],
            ..pb::Moved::default()
        };
        out.throttle(&[4], soon, "away");
        out.throttle(&[5, 6], soon, "those before were refused");
        out.moved(moved(7));
        out.moved(moved(8));
        out.reject(pb::Rejected {
            sequence: 9,
            ..pb::Rejected::default()
        });
        out.throttle(&[10], soon, "away");
        assert_eq!(out.refusals(), 7);
        let told = std::iter::from_fn(|| out.pop()).map(|one| match one.response {
            Some(Response::Throttled(throttled)) => throttled.sequences,
            Some(Response::Moved(moved)) => moved.sequences,
            Some(Response::Rejected(rejected)) => vec![rejected.sequence],
            other => panic!("{other:?}"),
        });
        let told: Vec<_> = told.collect();
        assert_eq!(told, [vec![4], vec![5, 6], vec![7, 8], vec![9], vec![10]]);
        assert_eq!(out.refusals(), 0);
    }
}
