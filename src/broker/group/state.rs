//! One group in one partition: a state machine without clock, disk or tasks.
//!
//! A message is at any moment in one of these places: done; outstanding at a member; reserved (being read for one);
//! ready or delayed (to be delivered again); dying (on its way to the dead letters); skipped (it cannot be read);
//! or not delivered yet, at or above the cursor. Offsets are whole ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use tokio::time::Instant;

use crate::broker::partition::Ranges;
use crate::broker::partition::Span;
use crate::broker::partition::progress::Progress;

/// Offsets that were taken to be read and delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reserved {
    /// Consecutive offsets of one entry.
    pub(crate) offsets: Range<u64>,
}

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
    /// Deadline, offset, delivery; ascending, since all deliveries have the same time. What is not outstanding any
    /// more is left out when it comes up.
    deadlines: VecDeque<(Instant, u64, u64)>,
    /// Those out of that order: extended ones.
    moved_deadlines: BTreeSet<(Instant, u64, u64)>,
    ready: BTreeSet<u64>,
    delayed: BTreeSet<(Instant, u64)>,
    dying: BTreeSet<u64>,
    skipped: Ranges,
    next_delivery: u64,
    /// What the journal was not told yet.
    untold: Progress,
}

impl GroupState {
    /// Goes on where the journal says the group is.
    pub(crate) fn new(progress: Progress) -> Self {
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
            deadlines: VecDeque::new(),
            moved_deadlines: BTreeSet::new(),
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            dying: BTreeSet::new(),
            skipped: Ranges::default(),
            next_delivery: 1,
        }
    }

    /// Takes up to `most` consecutive offsets to be delivered, those that come again first.
    pub(crate) fn reserve(&mut self, most: u64, spans: &[Span]) -> Option<Reserved> {
        if most == 0 {
            return None;
        }
        if let Some(&first) = self.ready.first() {
            let mut end = first;
            while end - first < most && self.ready.remove(&end) {
                end += 1;
            }
            return Some(Reserved { offsets: first..end });
        }
        self.cursor = self.next_new(self.cursor, spans);
        let span = spans
            .iter()
            .find(|span| (span.start..span.end).contains(&self.cursor))?;
        let mut end = span.end.min(self.cursor.saturating_add(most));
        for taken in [
            self.done.next_start(self.cursor),
            self.skipped.next_start(self.cursor),
        ] {
            end = end.min(taken.unwrap_or(end));
        }
        let offsets = self.cursor..end;
        self.cursor = end;
        Some(Reserved { offsets })
    }

    /// The first offset at or after `from` that exists or will, and is neither done nor skipped.
    fn next_new(&self, from: u64, spans: &[Span]) -> u64 {
        let mut at = from.max(self.floor);
        loop {
            let before = at;
            if let Some(end) = self.done.end_of(at).or_else(|| self.skipped.end_of(at)) {
                at = end;
            }
            at = settle_on(at, spans);
            if at == before {
                return at;
            }
        }
    }

    /// Gives offsets back that were reserved and not delivered.
    pub(crate) fn release(&mut self, offsets: Range<u64>) {
        if offsets.is_empty() {
            return;
        }
        let counted = self.counts.range(offsets.clone()).next().is_some();
        if offsets.end == self.cursor && !counted {
            self.cursor = offsets.start;
            return;
        }
        let (floor, cursor) = (self.floor, self.cursor);
        let back =
            offsets.filter(|&offset| offset >= floor && offset < cursor && !self.done.contains(offset));
        self.ready.extend(back);
    }

    /// A reserved message goes to a member. Returns the delivery's number and the count of deliveries.
    pub(crate) fn deliver(&mut self, offset: u64, member: u64, deadline: Instant) -> (u64, u32) {
        let delivery = self.next_delivery;
        self.next_delivery += 1;
        let count = self.counts.remove(&offset).unwrap_or(0) + 1;
        self.outstanding.insert(
            offset,
            Outstanding {
                member,
                deadline,
                count,
                delivery,
            },
        );
        self.note_deadline(deadline, offset, delivery);
        (delivery, count)
    }

    fn note_deadline(&mut self, deadline: Instant, offset: u64, delivery: u64) {
        if self.deadlines.back().is_some_and(|(last, ..)| *last > deadline) {
            self.moved_deadlines.insert((deadline, offset, delivery));
            return;
        }
        if self.deadlines.len() > 64 && self.deadlines.len() > 2 * self.outstanding.len() {
            let outstanding = &self.outstanding;
            self.deadlines.retain(|(at, offset, delivery)| {
                outstanding
                    .get(offset)
                    .is_some_and(|o| o.delivery == *delivery && o.deadline == *at)
            });
            self.deadlines.shrink_to(2 * self.outstanding.len() + 64);
        }
        self.deadlines.push_back((deadline, offset, delivery));
    }

    /// The delivery, if it is still the one that counts.
    pub(crate) fn find(&self, offset: u64, delivery: u64) -> Option<Outstanding> {
        self.outstanding
            .get(&offset)
            .copied()
            .filter(|outstanding| outstanding.delivery == delivery)
    }

    /// An outstanding message was answered; [`GroupState::finish_range`] follows.
    pub(crate) fn take(&mut self, offset: u64) {
        self.outstanding.remove(&offset);
    }

    /// Consecutive messages are done.
    pub(crate) fn finish_range(&mut self, offsets: Range<u64>, spans: &[Span]) {
        for offset in offsets.clone() {
            self.outstanding.remove(&offset);
            self.dying.remove(&offset);
            if !self.counts.is_empty() {
                self.counts.remove(&offset);
            }
        }
        self.done.insert(offsets.clone());
        self.untold.done.insert(offsets);
        self.raise_floor(spans);
    }

    fn raise_floor(&mut self, spans: &[Span]) {
        loop {
            let before = self.floor;
            if let Some(end) = self.done.end_of(self.floor) {
                self.floor = end;
            }
            self.floor = settle_on(self.floor, spans);
            if self.floor == before {
                break;
            }
        }
        self.done.remove_below(self.floor);
        self.untold.floor = self.floor;
        self.untold.done.remove_below(self.floor);
        self.cursor = self.cursor.max(self.floor);
    }

    /// A delivery failed: it comes again at `not_before`, or is given up after `most` deliveries (0: never).
    pub(crate) fn fail(&mut self, offset: u64, most: u32, not_before: Option<Instant>) -> Option<GivenUp> {
        let outstanding = self.outstanding.remove(&offset)?;
        if most > 0 && outstanding.count >= most {
            self.dying.insert(offset);
            self.count(offset, outstanding.count);
            return Some(GivenUp {
                offset,
                count: outstanding.count,
            });
        }
        self.count(offset, outstanding.count);
        match not_before {
            None => _ = self.ready.insert(offset),
            Some(at) => _ = self.delayed.insert((at, offset)),
        }
        None
    }

    fn count(&mut self, offset: u64, count: u32) {
        self.counts.insert(offset, count);
        self.untold.counts.insert(offset, count);
    }

    /// A message is given up before it was delivered too often.
    pub(crate) fn give_up(&mut self, offset: u64) -> Option<GivenUp> {
        let outstanding = self.outstanding.remove(&offset)?;
        self.dying.insert(offset);
        self.count(offset, outstanding.count);
        Some(GivenUp {
            offset,
            count: outstanding.count,
        })
    }

    /// A delivery may take longer.
    pub(crate) fn extend(&mut self, offset: u64, deadline: Instant) {
        if let Some(outstanding) = self.outstanding.get_mut(&offset) {
            outstanding.deadline = deadline;
            let delivery = outstanding.delivery;
            self.moved_deadlines.insert((deadline, offset, delivery));
        }
    }

    /// What a member had is to be delivered again at once. Returns whose deliveries are used up.
    pub(crate) fn drop_member(&mut self, member: u64, most: u32) -> Vec<GivenUp> {
        let theirs: Vec<u64> = self
            .outstanding
            .iter()
            .filter(|(_, o)| o.member == member)
            .map(|(&offset, _)| offset)
            .collect();
        theirs
            .into_iter()
            .filter_map(|offset| self.fail(offset, most, None))
            .collect()
    }

    /// What is over its deadline, and whose; and delayed messages whose time has come become ready.
    pub(crate) fn expire(&mut self, now: Instant, most: u32) -> (Vec<u64>, Vec<GivenUp>) {
        while let Some(&(at, offset)) = self.delayed.first()
            && at <= now
        {
            self.delayed.remove(&(at, offset));
            self.ready.insert(offset);
        }
        let mut due = Vec::new();
        while let Some(&(at, offset, delivery)) = self.deadlines.front() {
            let current = self.is_current(at, offset, delivery);
            if current && at > now {
                break;
            }
            self.deadlines.pop_front();
            due.extend(current.then_some(offset));
        }
        while let Some(&(at, offset, delivery)) = self.moved_deadlines.first() {
            let current = self.is_current(at, offset, delivery);
            if current && at > now {
                break;
            }
            self.moved_deadlines.pop_first();
            due.extend(current.then_some(offset));
        }
        let (mut members, mut given_up) = (Vec::new(), Vec::new());
        for offset in due {
            members.extend(
                self.outstanding
                    .get(&offset)
                    .map(|outstanding| outstanding.member),
            );
            given_up.extend(self.fail(offset, most, None));
        }
        (members, given_up)
    }

    fn is_current(&self, at: Instant, offset: u64, delivery: u64) -> bool {
        self.find(offset, delivery)
            .is_some_and(|outstanding| outstanding.deadline == at)
    }

    /// Positions are damaged: they are not delivered, and are never done.
    pub(crate) fn skip(&mut self, offsets: Range<u64>) {
        for offset in offsets.clone() {
            if !self.ready.is_empty() {
                self.ready.remove(&offset);
            }
        }
        self.skipped.insert(offsets);
    }

    /// Everything below is gone by retention.
    pub(crate) fn trim(&mut self, start: u64, spans: &[Span]) {
        if start <= self.floor {
            return;
        }
        self.floor = start;
        let keep = |offset: &u64| *offset >= start;
        self.outstanding.retain(|offset, _| keep(offset));
        self.counts.retain(|offset, _| keep(offset));
        self.ready.retain(keep);
        self.delayed.retain(|(_, offset)| keep(offset));
        self.dying.retain(keep);
        self.skipped.remove_below(start);
        self.raise_floor(spans);
    }

    /// What changed since the last call, for the journal; `None` if nothing did.
    pub(crate) fn take_untold(&mut self, told_floor: u64) -> Option<Progress> {
        let nothing =
            self.untold.floor <= told_floor && self.untold.done.len() == 0 && self.untold.counts.is_empty();
        if nothing {
            return None;
        }
        let floor = self.floor;
        Some(std::mem::replace(
            &mut self.untold,
            Progress {
                floor,
                ..Progress::default()
            },
        ))
    }

    /// The journal was not told after all.
    pub(crate) fn untell(&mut self, progress: Progress) {
        for range in progress.done.iter() {
            self.untold.done.insert(range);
        }
        self.untold.done.remove_below(self.floor);
        for (offset, count) in progress.counts {
            self.untold.counts.entry(offset).or_insert(count);
        }
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
    pub(crate) fn floor(&self) -> u64 {
        self.floor
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
        new + self.ready.len() as u64
    }

    /// Deliveries so far of every message that is not done.
    pub(crate) fn all_counts(&self) -> BTreeMap<u64, u32> {
        let mut counts = self.counts.clone();
        counts.extend(
            self.outstanding
                .iter()
                .map(|(&offset, outstanding)| (offset, outstanding.count)),
        );
        counts
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
#[path = "state_tests.rs"]
mod tests;
