//! Which payloads of a publish stream are settled. Payloads that came together form a round; rounds are
//! acknowledged in the order in which they came.

use std::collections::VecDeque;

use super::credit::Reserved;
use super::publish_out::merge_offsets;
use crate::pb;

/// Payloads that came together, until all of them are settled.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Parts that are not settled yet.
    pub open: usize,
    /// The highest sequence in it.
    pub highest: u64,
    /// The lowest sequence in it.
    pub lowest: u64,
    /// Payloads in it, refused ones included.
    pub payloads: u64,
    /// Messages that its acknowledgement gives back.
    pub messages: u64,
    /// Bytes that its acknowledgement gives back.
    pub bytes: u64,
    /// Where its messages went.
    pub offsets: Vec<pb::PartitionOffset>,
    /// How many had been stored before.
    pub duplicates: u64,
    /// Its part of the bound on memory.
    pub reserved: Vec<Reserved>,
}

/// The rounds of a stream.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    rounds: VecDeque<Round>,
    /// The number of the first one in `rounds`.
    first: u64,
    acked: u64,
    payloads: u64,
}

/// Rounds that are settled together.
#[derive(Debug)]
pub(super) struct Settled {
    /// The acknowledgement; its durability is not filled in.
    pub ack: pb::Ack,
    /// Messages that it gives back.
    pub messages: u64,
    /// Bytes that it gives back.
    pub bytes: u64,
}

impl Rounds {
    /// Adds a round; returns its number.
    pub(super) fn push(&mut self, round: Round) -> u64 {
        self.rounds.push_back(round);
        self.first + self.rounds.len() as u64 - 1
    }

    /// A round that is not acknowledged yet.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Round> {
        self.rounds
            .get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Whether everything is acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.rounds.is_empty()
    }

    /// Takes the rounds from the first one on that are settled. A cumulative sequence must not cover a payload
    /// that was sent again with a lower sequence and is not settled yet: then it waits for that. `forming` is the
    /// lowest sequence of what has no round yet.
    pub(super) fn take_settled(&mut self, forming: Option<u64>) -> Option<Settled> {
        let count = self.rounds.iter().take_while(|round| round.open == 0).count();
        let highest = self.rounds.iter().take(count).map(|round| round.highest).max()?;
        if self
            .rounds
            .iter()
            .skip(count)
            .any(|round| round.lowest <= highest)
            || forming.is_some_and(|lowest| lowest <= highest)
        {
            return None;
        }
        self.acked = self.acked.max(highest);
        self.first += count as u64;
        let mut settled = Settled {
            ack: pb::Ack::default(),
            messages: 0,
            bytes: 0,
        };
        for round in self.rounds.drain(..count) {
            self.payloads += round.payloads;
            settled.messages += round.messages;
            settled.bytes += round.bytes;
            settled.ack.duplicates += round.duplicates;
            merge_offsets(&mut settled.ack.offsets, round.offsets);
        }
        settled.ack.sequence = self.acked;
        settled.ack.payloads = self.payloads;
        Some(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(lowest: u64, highest: u64, open: usize) -> Round {
        Round {
            open,
            lowest,
            highest,
            payloads: highest - lowest + 1,
            messages: 1,
            ..Round::default()
        }
    }

    #[test]
    fn rounds_are_acknowledged_in_the_order_in_which_they_came() {
        let mut rounds = Rounds::default();
        let first = rounds.push(round(1, 3, 1));
        let second = rounds.push(round(4, 6, 1));
        rounds.get_mut(second).unwrap().open = 0;
        assert!(rounds.take_settled(None).is_none());
        rounds.get_mut(first).unwrap().open = 0;
        let settled = rounds.take_settled(None).unwrap();
        assert_eq!(
            (settled.ack.sequence, settled.ack.payloads, settled.messages),
            (6, 6, 2)
        );
        assert!(rounds.is_empty());
        assert_eq!(rounds.push(round(7, 7, 0)), 2);
    }

    #[test]
    fn an_ack_never_covers_what_was_sent_again_and_is_not_stored_yet() {
        let mut rounds = Rounds::default();
        rounds.push(round(7, 9, 0));
        let again = rounds.push(round(5, 5, 1));
        assert!(rounds.take_settled(None).is_none());
        rounds.get_mut(again).unwrap().open = 0;
        assert_eq!(rounds.take_settled(None).unwrap().ack.sequence, 9);
    }
}
