//! One group in one partition: a state machine without clock, disk or tasks.
//!
//! A message is at any moment in one of these places: done; outstanding at a member; reserved (being read for one);
//! ready or delayed (to be delivered again); behind another one of its key, in an ordered group; dying (on its way to the dead letters); skipped (it cannot be read);
//! or not delivered yet, at or above the cursor. Offsets are whole ones.

mod answering;
mod deadlines;
mod keys;
#[cfg(any(test, fuzzing))]
pub(crate) mod naive;
mod taking;
mod telling;

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use self::deadlines::Deadlines;
use self::keys::Keys;
pub(crate) use self::taking::{Placed, Reserved};
use crate::broker::partition::Ranges;
use crate::broker::partition::Span;
use crate::broker::partition::progress::Progress;

/// The most messages of one group and partition that are between taken and done: outstanding, waiting to come again,
/// waiting behind another one of their key, or on their way to the dead letters. At that many, no new ones are taken.
/// It bounds the group's memory, about 100 bytes a message at worst, and the done ranges between them on the disk.
pub(crate) const MOST_OPEN: usize = 1 << 18;

/// A message at a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outstanding {
    /// Who has it.
    pub(crate) member: u64,
    /// Until when.
    pub(crate) deadline: Instant,
    /// Deliveries of this message, this one included.
    pub(crate) count: u32,
    /// The number of this delivery.
    pub(crate) delivery: u64,
    /// The member asked for more time: it has begun.
    pub(crate) is_begun: bool,
    /// The member was asked to give it back.
    pub(crate) is_asked: bool,
}

/// A message that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenUp {
    pub(crate) offset: u64,
    pub(crate) count: u32,
}

/// The group's state in the partition.
#[derive(Debug)]
pub(crate) struct GroupState {
    floor: u64,
    done: Ranges,
    counts: BTreeMap<u64, u32>,
    cursor: u64,
    outstanding: BTreeMap<u64, Outstanding>,
    deadlines: Deadlines,
    ready: BTreeSet<u64>,
    delayed: BTreeSet<(Instant, u64)>,
    dying: BTreeSet<u64>,
    /// Cannot be read, and is not done.
    skipped: Ranges,
    /// One message of a key at a time.
    is_ordered: bool,
    /// An ordered group's new messages are being read: one reader at a time, so that it meets them in their order.
    is_scanning: bool,
    keys: Keys,
    next_delivery: u64,
    /// Retention took messages that members had.
    is_cut: bool,
    /// What the journal was not told yet.
    untold: Progress,
}

impl GroupState {
    /// Goes on where the journal says the group is.
    pub(crate) fn new(progress: Progress, is_ordered: bool) -> Self {
        Self {
            floor: progress.floor,
            cursor: progress.floor,
            untold: Progress {
                floor: progress.floor,
                ..Progress::default()
            },
            done: progress.done,
            counts: progress.counts,
            outstanding: BTreeMap::new(),
            deadlines: Deadlines::default(),
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            dying: BTreeSet::new(),
            skipped: Ranges::default(),
            is_ordered,
            is_scanning: false,
            keys: Keys::default(),
            next_delivery: 1,
            is_cut: false,
        }
    }

    /// The delivery, if it is still the one that counts.
    pub(crate) fn find(&self, offset: u64, delivery: u64) -> Option<Outstanding> {
        self.outstanding
            .get(&offset)
            .copied()
            .filter(|outstanding| outstanding.delivery == delivery)
    }

    /// Whether messages wait to be delivered again.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether a message is on its way to the dead letters.
    pub(crate) fn is_dying(&self, offset: u64) -> bool {
        self.dying.contains(&offset)
    }

    /// Everything below is done.
    #[cfg(test)]
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// From now on in order, or not any more. Only while no member has anything.
    pub(crate) fn set_ordered(&mut self, is_ordered: bool) {
        if self.is_ordered == is_ordered {
            return;
        }
        self.is_ordered = is_ordered;
        // Whatever is not done is looked at again, from the oldest on.
        self.keys = Keys::default();
        self.ready.clear();
        self.delayed.clear();
        self.cursor = self.floor;
    }

    /// Messages that could be reserved now.
    pub(crate) fn available(&self, spans: &[Span]) -> u64 {
        let new: u64 = spans
            .iter()
            .map(|span| {
                let from = self.cursor.max(span.start).min(span.end);
                let taken = self.done.count_in(from..span.end) + self.skipped.count_in(from..span.end);
                (span.end - from).saturating_sub(taken)
            })
            .sum();
        let dying = self.dying.range(self.cursor..);
        let dying = dying.filter(|offset| !self.skipped.contains(**offset)).count() as u64;
        let new = if self.is_full() {
            0
        } else {
            new.saturating_sub(dying)
        };
        new + self.ready.len() as u64
    }

    /// How many messages each member has.
    pub(crate) fn held_by_member(&self) -> BTreeMap<u64, u64> {
        let mut held = BTreeMap::new();
        for outstanding in self.outstanding.values() {
            *held.entry(outstanding.member).or_default() += 1;
        }
        held
    }
}

/// The offset itself where it lies in a part or at the end of the last one; else the start of the next part.
fn settle_on(offset: u64, spans: &[Span]) -> u64 {
    let mut at = offset;
    for (index, span) in spans.iter().enumerate() {
        at = at.max(span.start);
        if at < span.end || index + 1 == spans.len() {
            return at;
        }
    }
    at
}

#[cfg(test)]
mod tests;
