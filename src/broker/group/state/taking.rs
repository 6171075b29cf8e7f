//! Taking messages to be delivered: those that come again first, then new ones.

use std::ops::Range;

use tokio::time::Instant;

use super::{GroupState, Outstanding, Reserved, settle_on};
use crate::broker::partition::Span;

impl GroupState {
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
                is_begun: false,
                is_asked: false,
            },
        );
        self.deadlines.note(deadline, offset, delivery, &self.outstanding);
        (delivery, count)
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

    /// Everything below is gone by retention. Returns whether members had some of it.
    pub(crate) fn trim(&mut self, start: u64, spans: &[Span]) -> bool {
        if start <= self.floor {
            return false;
        }
        self.floor = start;
        let keep = |offset: &u64| *offset >= start;
        let before = self.outstanding.len();
        self.outstanding.retain(|offset, _| keep(offset));
        self.deadlines.trim(start);
        self.counts.retain(|offset, _| keep(offset));
        self.ready.retain(keep);
        self.delayed.retain(|(_, offset)| keep(offset));
        self.dying.retain(keep);
        self.skipped.remove_below(start);
        self.raise_floor(spans);
        self.outstanding.len() < before
    }
}
