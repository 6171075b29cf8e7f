//! Answers to deliveries, deadlines that pass, and members that leave.

use std::ops::Range;

use tokio::time::Instant;

use super::{GivenUp, GroupState, Outstanding, settle_on};
use crate::broker::partition::Span;

impl GroupState {
    /// An outstanding message was answered; [`GroupState::finish_range`] follows.
    pub(crate) fn take(&mut self, offset: u64) -> Option<Outstanding> {
        let outstanding = self.outstanding.remove(&offset)?;
        self.deadlines.forget(offset, &outstanding);
        Some(outstanding)
    }

    /// Consecutive messages are done.
    pub(crate) fn finish_range(&mut self, offsets: Range<u64>, spans: &[Span]) {
        self.skipped.remove(offsets.clone());
        self.done.insert(offsets.clone());
        for offset in offsets.clone() {
            self.take(offset);
            self.dying.remove(&offset);
            if !self.counts.is_empty() {
                self.counts.remove(&offset);
            }
            self.pass_key_on(offset);
        }
        self.untold.done.insert(offsets);
        self.raise_floor(spans);
    }

    /// A message is done or lost: the next one of its key is ready.
    pub(super) fn pass_key_on(&mut self, offset: u64) {
        if self.keys.is_empty() {
            return;
        }
        let (floor, done) = (self.floor, &self.done);
        let next = self
            .keys
            .finish(offset, |next| next < floor || done.contains(next));
        self.ready.extend(next);
    }

    pub(super) fn raise_floor(&mut self, spans: &[Span]) {
        let mut is_past_some = false;
        loop {
            let before = self.floor;
            if let Some(end) = self.done.end_of(self.floor) {
                self.floor = end;
            }
            let done = self.floor;
            self.floor = settle_on(done, spans);
            is_past_some |= self.floor > done;
            if self.floor == before {
                break;
            }
        }
        // Where the beginning of the next span is gone, some of that may have been under way.
        if is_past_some {
            self.forget(0..self.floor);
        }
        self.done.remove_below(self.floor);
        self.untold.floor = self.floor;
        self.untold.done.remove_below(self.floor);
        self.cursor = self.cursor.max(self.floor);
    }

    /// A delivery failed: it comes again at `not_before`, or is given up after `most` deliveries (0: never).
    pub(crate) fn fail(&mut self, offset: u64, most: u32, not_before: Option<Instant>) -> Option<GivenUp> {
        let outstanding = self.take(offset)?;
        if most > 0 && outstanding.count >= most {
            self.dying.insert(offset);
            self.count(offset, outstanding.count);
            return Some(GivenUp {
                offset,
                count: outstanding.count,
            });
        }
        self.count(offset, outstanding.count);
        self.again(offset, not_before);
        None
    }

    fn count(&mut self, offset: u64, count: u32) {
        self.counts.insert(offset, count);
        self.untold.counts.insert(offset, count);
    }

    /// A message is given up before it was delivered too often.
    pub(crate) fn give_up(&mut self, offset: u64) -> Option<GivenUp> {
        let outstanding = self.take(offset)?;
        self.dying.insert(offset);
        self.count(offset, outstanding.count);
        Some(GivenUp {
            offset,
            count: outstanding.count,
        })
    }

    /// A member did not begin with a delivery: it comes again at `not_before`, and the delivery is not counted.
    pub(crate) fn give_back(&mut self, offset: u64, not_before: Option<Instant>) {
        let Some(outstanding) = self.take(offset) else {
            return;
        };
        if outstanding.count > 1 {
            self.counts.insert(offset, outstanding.count - 1);
        }
        self.again(offset, not_before);
    }

    fn again(&mut self, offset: u64, not_before: Option<Instant>) {
        match not_before {
            None => _ = self.ready.insert(offset),
            Some(at) => _ = self.delayed.insert((at, offset)),
        }
    }

    /// A delivery may take longer.
    pub(crate) fn extend(&mut self, offset: u64, deadline: Instant) {
        if let Some(outstanding) = self.outstanding.get_mut(&offset) {
            self.deadlines.extend(deadline, offset, outstanding);
        }
    }

    /// Those of a member's deliveries that it may not have begun with and was not asked for: deadline, offset,
    /// delivery.
    pub(crate) fn revocable(&self, member: u64) -> impl Iterator<Item = (Instant, u64, u64)> + '_ {
        let may = move |o: &Outstanding| o.member == member && !o.is_begun && !o.is_asked;
        self.outstanding
            .iter()
            .filter(move |(_, o)| may(o))
            .map(|(&offset, o)| (o.deadline, offset, o.delivery))
    }

    /// The member is asked to give a delivery back.
    pub(crate) fn ask(&mut self, offset: u64) {
        if let Some(outstanding) = self.outstanding.get_mut(&offset) {
            outstanding.is_asked = true;
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
        let due = self.deadlines.due(now, &self.outstanding);
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
}
