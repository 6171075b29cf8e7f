//! Taking messages to be delivered: those that come again first, then new ones.

use std::ops::Range;

use tokio::time::Instant;

use super::{GivenUp, GroupState, MOST_OPEN, Outstanding, settle_on};
use crate::broker::partition::Span;

/// How far apart offsets may lie that are taken at once.
const WINDOW: u64 = 2048;

/// Offsets that were taken to be read and delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reserved {
    /// Consecutive offsets of one entry.
    pub(crate) offsets: Range<u64>,
    /// Those of them that are to be delivered, ascending; `None`: all.
    only: Option<Vec<u64>>,
    /// They were not looked at before.
    is_new: bool,
}

/// What became of a reserved message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It goes to the member: the delivery's number, and deliveries so far.
    Delivered(u64, u32),
    /// It was delivered as often as it may be.
    GivenUp(GivenUp),
    /// It is gone, is on its way to the dead letters, or waits behind another one of its key.
    Kept,
}

impl Reserved {
    /// Whether an offset is to be delivered.
    pub(crate) fn wants(&self, offset: u64) -> bool {
        let only = self.only.as_ref();
        self.offsets.contains(&offset) && only.is_none_or(|only| only.binary_search(&offset).is_ok())
    }

    /// Nothing below is to be delivered any more.
    pub(crate) fn advance(&mut self, start: u64) {
        self.offsets.start = start.clamp(self.offsets.start, self.offsets.end);
    }

    /// What is left.
    fn left(&self) -> impl Iterator<Item = u64> + '_ {
        self.offsets.clone().filter(|&offset| self.wants(offset))
    }
}

impl GroupState {
    /// Takes up to `most` offsets that lie together to be delivered, those that come again first.
    pub(crate) fn reserve(&mut self, most: u64, spans: &[Span]) -> Option<Reserved> {
        if most == 0 {
            return None;
        }
        if let Some(&first) = self.ready.first() {
            return Some(self.reserve_again(first, most, spans));
        }
        if self.is_scanning || self.is_full() {
            return None;
        }
        self.cursor = self.next_new(self.cursor, spans);
        let span = spans
            .iter()
            .find(|span| (span.start..span.end).contains(&self.cursor))?;
        let start = self.cursor;
        let end = span.end.min(start.saturating_add(most));
        let taken = [self.done.next_start(start), self.skipped.next_start(start)];
        let mut reserved = Reserved {
            offsets: start..end,
            only: None,
            is_new: true,
        };
        if taken.into_iter().flatten().any(|taken| taken < end) {
            let only = self.untaken(start..span.end.min(start + WINDOW), most);
            reserved.offsets.end = only.last().map_or(end, |last| last + 1);
            reserved.only = Some(only);
        }
        self.cursor = reserved.offsets.end;
        self.is_scanning = self.is_ordered;
        Some(reserved)
    }

    fn reserve_again(&mut self, first: u64, most: u64, spans: &[Span]) -> Reserved {
        let entry_end = spans.iter().find(|span| first < span.end).map(|span| span.end);
        let end = entry_end.map_or(first + 1, |end| end.min(first + WINDOW));
        let only: Vec<u64> = self
            .ready
            .range(first..end.max(first + 1))
            .take(most as usize)
            .copied()
            .collect();
        for offset in &only {
            self.ready.remove(offset);
        }
        let end = only.last().map_or(first, |last| last + 1);
        let is_whole = end - first == only.len() as u64;
        Reserved {
            offsets: first..end,
            only: (!is_whole).then_some(only),
            is_new: false,
        }
    }

    /// Up to `most` offsets of a range that are neither done nor skipped.
    fn untaken(&self, range: Range<u64>, most: u64) -> Vec<u64> {
        let mut untaken = Vec::new();
        let mut at = range.start;
        while at < range.end && (untaken.len() as u64) < most {
            if let Some(end) = self.done.end_of(at).or_else(|| self.skipped.end_of(at)) {
                at = end;
                continue;
            }
            untaken.push(at);
            at += 1;
        }
        untaken
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

    /// Ends a reservation: gives back what was not delivered.
    pub(crate) fn release(&mut self, reserved: &Reserved) {
        if reserved.is_new {
            self.is_scanning = false;
        }
        let offsets = &reserved.offsets;
        if offsets.is_empty() {
            return;
        }
        if reserved.is_new && (self.is_ordered || offsets.end == self.cursor) {
            self.cursor = offsets.start.max(self.floor);
            return;
        }
        let seen = self.floor..self.cursor;
        let is_back = |offset: &u64| {
            seen.contains(offset) && !self.done.contains(*offset) && !self.dying.contains(offset)
        };
        // Another reservation that lies among these may have found some of them damaged meanwhile.
        let (lost, back): (Vec<u64>, Vec<u64>) = reserved
            .left()
            .filter(is_back)
            .partition(|offset| self.skipped.contains(*offset));
        self.ready.extend(back);
        for offset in lost {
            self.pass_key_on(offset);
        }
    }

    /// A reserved message goes to a member, unless it has to wait for another one of its key, or was delivered
    /// `most` times (0: as often as it takes), which a restart may have kept from being noticed.
    pub(crate) fn deliver(
        &mut self,
        offset: u64,
        key: Option<u64>,
        member: u64,
        deadline: Instant,
        most: u32,
    ) -> Placed {
        // What is on its way to the dead letters may have arrived there while it was read once more.
        if offset < self.floor || self.done.contains(offset) {
            return Placed::Kept;
        }
        if let Some(key) = key.filter(|_| self.is_ordered)
            && !self.keys.admit(key, offset)
        {
            return Placed::Kept;
        }
        if self.dying.contains(&offset) {
            return Placed::Kept;
        }
        let before = self.counts.get(&offset).copied().unwrap_or(0);
        if most > 0 && before >= most {
            self.dying.insert(offset);
            return Placed::GivenUp(GivenUp {
                offset,
                count: before,
            });
        }
        self.counts.remove(&offset);
        let delivery = self.next_delivery;
        self.next_delivery += 1;
        let count = before + 1;
        self.outstanding.insert(
            offset,
            Outstanding {
                member,
                deadline,
                count,
                delivery,
                is_begun: false,
                is_asked: false,
            },
        );
        self.deadlines.note(deadline, offset, delivery, &self.outstanding);
        Placed::Delivered(delivery, count)
    }

    /// Positions up to `end` of what was reserved are damaged: they are not delivered, and are never done.
    pub(crate) fn skip(&mut self, reserved: &mut Reserved, end: u64) {
        let damaged = reserved.offsets.start..end;
        let mut lost: Vec<u64> = self.ready.range(damaged.clone()).copied().collect();
        for offset in &lost {
            self.ready.remove(offset);
        }
        lost.extend(reserved.left().filter(|offset| damaged.contains(offset)));
        for offset in lost {
            self.pass_key_on(offset);
        }
        self.skipped.insert(damaged.clone());
        for done in self.done.within(damaged) {
            self.skipped.remove(done);
        }
        reserved.advance(end);
    }

    /// Everything below is gone by retention.
    pub(crate) fn trim(&mut self, start: u64, spans: &[Span]) {
        if start <= self.floor {
            return;
        }
        self.floor = start;
        self.forget(0..start);
        self.raise_floor(spans);
    }

    /// These are gone by retention. What is older may still be there: another broker has it, and bounds it by itself.
    pub(crate) fn lose(&mut self, gone: Range<u64>, spans: &[Span]) {
        if gone.start <= self.floor {
            return self.trim(gone.end, spans);
        }
        self.forget(gone.clone());
        self.done.insert(gone.clone());
        self.untold.done.insert(gone);
        self.raise_floor(spans);
    }

    /// Nothing is to be done with these any more, whatever it was.
    pub(super) fn forget(&mut self, gone: Range<u64>) {
        let keep = |offset: &u64| !gone.contains(offset);
        let before = self.outstanding.len();
        self.outstanding.retain(|offset, _| keep(offset));
        self.is_cut |= self.outstanding.len() < before;
        self.deadlines.forget_all(&gone);
        self.counts.retain(|offset, _| keep(offset));
        self.ready.retain(keep);
        self.delayed.retain(|(_, offset)| keep(offset));
        self.dying.retain(keep);
        self.skipped.remove(gone.clone());
        if !self.keys.is_empty() {
            let done = &self.done;
            let next = self.keys.forget(&gone, |next| done.contains(next));
            self.ready.extend(next);
        }
    }

    /// Whether members had some of what was gone since the last call.
    pub(crate) fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.is_cut)
    }

    /// Whether so many messages are between taken and done that no new ones are taken.
    pub(crate) fn is_full(&self) -> bool {
        let open = self.outstanding.len()
            + self.ready.len()
            + self.delayed.len()
            + self.dying.len()
            + self.keys.behind();
        open >= MOST_OPEN
    }
}
