//! The group's state machine beside the naive one, step by step.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{DEADLINE, MOST, Model, Place, Slot, Step};
use crate::broker::group::state::{GroupState, Placed, Reserved};
use crate::broker::partition::Span;
use crate::broker::partition::progress::Progress;

/// Both, step by step.
pub(crate) struct Run {
    now: Instant,
    spans: Vec<Span>,
    state: GroupState,
    model: Model,
    journal: Progress,
    /// The floor that the journal was told last.
    told_floor: u64,
    /// The journal will not take what it is told next; whether that comes out at once.
    fails: Option<bool>,
    /// What the journal did not take, until that comes out.
    failed: Option<Progress>,
    /// What is being read.
    reading: Vec<Reserved>,
    /// Offset and number of every delivery.
    issued: Vec<(u64, u64)>,
    /// Deliveries that were begun with or asked for: those are not asked for again.
    kept: BTreeSet<(u64, u64)>,
}

impl Run {
    pub(crate) fn new(is_ordered: bool) -> Self {
        Self {
            now: Instant::now(),
            spans: vec![Span {
                start: 1 << 40,
                end: 1 << 40,
            }],
            state: GroupState::new(Progress::default(), is_ordered),
            model: Model {
                slots: Vec::new(),
                is_ordered,
            },
            journal: Progress::default(),
            told_floor: 0,
            fails: None,
            failed: None,
            reading: Vec::new(),
            issued: Vec::new(),
            kept: BTreeSet::new(),
        }
    }

    fn reserve(&mut self, most: u64) -> bool {
        let Some(reserved) = self.state.reserve(most, &self.spans) else {
            let free = (0..self.model.slots.len()).find(|&index| self.model.must_deliver(index));
            assert!(
                free.is_none() || !self.reading.is_empty(),
                "{free:?} could be delivered: {:?}",
                self.model
            );
            return false;
        };
        let offsets = &reserved.offsets;
        let wanted = offsets.clone().filter(|&offset| reserved.wants(offset));
        let wanted: Vec<u64> = wanted.collect();
        assert!(!wanted.is_empty() && wanted.len() as u64 <= most);
        for offset in wanted {
            assert!(
                self.reading.iter().all(|other| !other.wants(offset)),
                "read twice"
            );
        }
        self.reading.push(reserved);
        true
    }

    fn deliver(&mut self, n: usize, member: u64, percent: u64) {
        if self.reading.is_empty() {
            return;
        }
        let at = n % self.reading.len();
        let mut reserved = self.reading.remove(at);
        let count = reserved.offsets.end - reserved.offsets.start;
        for _ in 0..(count * percent).div_ceil(100) {
            let offset = reserved.offsets.start;
            let wanted = reserved.wants(offset);
            let slot = wanted
                .then(|| self.model.index(offset))
                .map(|index| &mut self.model.slots[index]);
            if let Some(slot) = slot.filter(|slot| slot.is_damaged) {
                if matches!(slot.place, Place::New | Place::Again) {
                    slot.place = Place::Lost;
                }
                self.state.skip(&mut reserved, offset + 1);
                continue;
            }
            reserved.advance(offset + 1);
            if wanted {
                self.deliver_one(offset, member);
            }
        }
        self.release(&reserved);
    }

    /// What was found damaged meanwhile does not come again.
    fn release(&mut self, reserved: &Reserved) {
        self.state.release(reserved);
        for slot in &mut self.model.slots {
            let is_left = reserved.wants(slot.offset) && matches!(slot.place, Place::New | Place::Again);
            if is_left && self.state.skipped.contains(slot.offset) {
                slot.place = Place::Lost;
            }
        }
    }

    fn deliver_one(&mut self, offset: u64, member: u64) {
        let index = self.model.index(offset);
        let key = self.model.slots[index].key;
        let deadline = self.now + DEADLINE;
        let (can, may_wait) = (self.model.can_deliver(index), self.model.may_be_behind(index));
        let slot = &mut self.model.slots[index];
        match self.state.deliver(offset, key, member, deadline, MOST) {
            Placed::Delivered(delivery, count) => {
                assert!(can, "{slot:?}");
                slot.count += 1;
                assert_eq!(count, slot.count);
                assert!(count <= MOST);
                slot.place = Place::At {
                    member,
                    delivery,
                    deadline,
                };
                self.issued.push((offset, delivery));
            }
            Placed::GivenUp(given_up) => {
                assert!(can && slot.count >= MOST, "{slot:?}");
                assert_eq!((given_up.offset, given_up.count), (offset, slot.count));
                slot.place = Place::Dying;
            }
            Placed::Kept => assert!(
                may_wait || matches!(slot.place, Place::Dying | Place::Done),
                "{slot:?}"
            ),
        }
    }

    fn answer(&mut self, step: &Step) {
        let outstanding = self.model.outstanding();
        let (Step::Ack(n) | Step::Nack(n, _) | Step::GiveBack(n, _) | Step::Extend(n, _) | Step::GiveUp(n)) =
            *step
        else {
            return;
        };
        if outstanding.is_empty() {
            return;
        }
        let index = outstanding[n as usize % outstanding.len()];
        let Slot { offset, place, .. } = self.model.slots[index];
        let Place::At { member, delivery, .. } = place else {
            unreachable!()
        };
        assert_eq!(self.state.find(offset, delivery).map(|o| o.member), Some(member));
        let later = |delay: bool| delay.then(|| self.now + Duration::from_secs(10));
        match *step {
            Step::Ack(_) => {
                self.state.take(offset);
                self.state.finish_range(offset..offset + 1, &self.spans);
                self.model.slots[index].place = Place::Done;
            }
            Step::Nack(_, delay) => {
                let not_before = later(delay);
                self.state.fail(offset, MOST, not_before);
                self.model.fail(index, not_before);
            }
            Step::GiveBack(_, delay) => {
                let not_before = later(delay);
                self.state.give_back(offset, not_before);
                let slot = &mut self.model.slots[index];
                slot.count -= 1;
                slot.place = not_before.map_or(Place::Again, Place::Delayed);
            }
            Step::Extend(_, seconds) => {
                let deadline = self.now + Duration::from_secs(u64::from(seconds));
                self.state.extend(offset, deadline);
                self.kept.insert((offset, delivery));
                self.model.slots[index].place = Place::At {
                    member,
                    delivery,
                    deadline,
                };
            }
            _ => {
                self.state.give_up(offset);
                self.model.slots[index].place = Place::Dying;
            }
        }
    }

    /// Only what the member has, has not begun with and was not asked for yet is asked for.
    fn revoke(&mut self, member: u64, most: usize) {
        let asked: Vec<_> = self.state.revocable(member).collect();
        let theirs: Vec<_> = self
            .model
            .outstanding()
            .into_iter()
            .filter_map(|index| match self.model.slots[index] {
                Slot {
                    offset,
                    place:
                        Place::At {
                            member: m,
                            delivery,
                            deadline,
                        },
                    ..
                } => (m == member && !self.kept.contains(&(offset, delivery)))
                    .then_some((deadline, offset, delivery)),
                _ => None,
            })
            .collect();
        assert_eq!(asked, theirs);
        for (_, offset, delivery) in asked.into_iter().take(most) {
            self.state.ask(offset);
            self.kept.insert((offset, delivery));
        }
    }

    fn quit(&mut self, member: u64) {
        self.state.drop_member(member, MOST);
        for index in self.model.outstanding() {
            if matches!(self.model.slots[index].place, Place::At { member: m, .. } if m == member) {
                self.model.fail(index, None);
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.state.expire(self.now, MOST);
        for index in 0..self.model.slots.len() {
            match self.model.slots[index].place {
                Place::At { deadline, .. } if deadline <= self.now => self.model.fail(index, None),
                Place::Delayed(at) if at <= self.now => self.model.slots[index].place = Place::Again,
                _ => {}
            }
        }
    }

    fn bury(&mut self) {
        for slot in &mut self.model.slots {
            if slot.place == Place::Dying {
                assert!(self.state.is_dying(slot.offset));
                self.state.finish_range(slot.offset..slot.offset + 1, &self.spans);
                slot.place = Place::Done;
            }
        }
    }

    fn damage(&mut self, n: usize, count: u64) {
        if self.reading.is_empty() {
            return;
        }
        let at = n % self.reading.len();
        let mut reserved = self.reading.remove(at);
        let end = (reserved.offsets.start + count).min(reserved.offsets.end);
        for offset in reserved.offsets.start..end {
            let index = self.model.index(offset);
            let slot = &mut self.model.slots[index];
            slot.is_damaged = true;
            if matches!(slot.place, Place::New | Place::Again) {
                slot.place = Place::Lost;
            }
        }
        self.state.skip(&mut reserved, end);
        self.release(&reserved);
    }

    fn trim(&mut self, count: usize) {
        let Some(last) = self.spans.last() else { return };
        let kept = self
            .model
            .slots
            .iter()
            .filter(|slot| slot.offset >= self.spans[0].start);
        let start = kept.map(|slot| slot.offset).nth(count).unwrap_or(last.end);
        for slot in self.model.slots.iter_mut().filter(|slot| slot.offset < start) {
            slot.place = Place::Done;
        }
        let last = self.spans.len() - 1;
        let mut index = 0;
        self.spans.retain_mut(|span| {
            span.start = span.start.max(start.min(span.end));
            index += 1;
            span.start < span.end || index > last
        });
        self.state.trim(start, &self.spans);
    }

    fn restart(&mut self, is_ordered: bool) {
        self.come_out();
        (self.told_floor, self.fails) = (0, None);
        self.reading.clear();
        self.issued.clear();
        self.kept.clear();
        self.model.is_ordered = is_ordered;
        self.state = GroupState::new(self.journal.clone(), is_ordered);
        for slot in &mut self.model.slots {
            if slot.place != Place::Done {
                slot.place = Place::New;
                slot.count = self.journal.counts.get(&slot.offset).copied().unwrap_or(0);
            }
        }
    }

    /// What one member left behind is taken up in another order; what was counted stays counted.
    fn reorder(&mut self) {
        for reserved in std::mem::take(&mut self.reading) {
            self.release(&reserved);
        }
        for member in 0..3 {
            self.quit(member);
        }
        self.model.is_ordered = !self.model.is_ordered;
        self.state.set_ordered(self.model.is_ordered);
        for slot in &mut self.model.slots {
            if matches!(slot.place, Place::New | Place::Again | Place::Delayed(_)) {
                let is_skipped = self.state.skipped.contains(slot.offset);
                slot.place = if is_skipped { Place::Lost } else { Place::New };
            }
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match *step {
            Step::Append(ref keys) => {
                for &key in keys {
                    let last = self.spans.last_mut().unwrap();
                    self.model.slots.push(Slot {
                        offset: last.end,
                        key: (key > 0).then_some(key),
                        place: Place::New,
                        count: 0,
                        is_damaged: false,
                    });
                    last.end += 1;
                }
            }
            Step::Reserve(most) => _ = self.reserve(most),
            Step::Deliver(n, member, percent) => self.deliver(n.into(), member, percent.into()),
            Step::Damage(n, count) => self.damage(n.into(), count),
            Step::Quit(member) => self.quit(member),
            Step::Revoke(member, most) => self.revoke(member, most.into()),
            Step::Fail(at_once) => self.fails = Some(at_once),
            Step::Wait(seconds) => self.wait(Duration::from_secs(seconds.into())),
            Step::Bury => self.bury(),
            Step::Trim(count) => self.trim(count.into()),
            Step::Roll => {
                let start = ((self.spans.last().unwrap().start >> 40) + 2) << 40;
                self.spans.push(Span { start, end: start });
            }
            Step::Restart => self.restart(self.model.is_ordered),
            Step::Reorder => self.reorder(),
            _ => self.answer(step),
        }
        self.tell();
    }

    fn tell(&mut self) {
        let delta = self.state.take_untold(self.told_floor);
        self.told_floor = delta.as_ref().map_or(self.told_floor, |delta| delta.floor);
        match (delta, self.fails) {
            (Some(delta), Some(at_once)) if self.failed.is_none() => {
                self.failed = Some(delta);
                self.fails = None;
                if at_once {
                    self.come_out();
                }
            }
            (delta, _) => {
                if let Some(delta) = delta {
                    self.journal.apply(&delta);
                }
                self.come_out();
            }
        }
        self.check();
    }

    /// What the journal did not take is told again.
    fn come_out(&mut self) {
        if let Some(delta) = self.failed.take() {
            self.state.untell(delta);
            self.told_floor = 0;
        }
        if let Some(delta) = self.state.take_untold(self.told_floor) {
            self.told_floor = delta.floor;
            self.journal.apply(&delta);
        }
    }

    /// The journal knows what is done, nothing else can be answered than what is outstanding, and what is available can be had.
    fn check(&self) {
        for slot in self.model.slots.iter().filter(|_| self.failed.is_none()) {
            let told = slot.offset < self.journal.floor || self.journal.done.contains(slot.offset);
            assert_eq!(told, slot.place == Place::Done, "{slot:?}");
        }
        for &(offset, delivery) in &self.issued {
            let place = self.model.slots[self.model.index(offset)].place;
            let holder = match place {
                Place::At {
                    member,
                    delivery: current,
                    ..
                } if current == delivery => Some(member),
                _ => None,
            };
            let found = self
                .state
                .find(offset, delivery)
                .map(|outstanding| outstanding.member);
            assert_eq!(found, holder, "delivery {delivery} of {offset}");
        }
        if !self.model.is_ordered && self.reading.is_empty() {
            let free = (0..self.model.slots.len()).filter(|&index| self.model.can_deliver(index));
            assert_eq!(self.state.available(&self.spans), free.count() as u64);
        }
    }

    /// Everything that is not damaged can be brought to an end, a key's messages in their order.
    pub(crate) fn drain(&mut self) {
        for reserved in std::mem::take(&mut self.reading) {
            self.release(&reserved);
        }
        for _ in 0..10_000 {
            self.wait(Duration::from_secs(24 * 3600));
            self.bury();
            while self.reserve(3) {
                self.deliver(0, 9, 100);
            }
            // What was given up instead of delivered makes room for the next of its key.
            let is_dying = |slot: &Slot| slot.place == Place::Dying;
            if self.model.outstanding().is_empty() && !self.model.slots.iter().any(is_dying) {
                break;
            }
            while !self.model.outstanding().is_empty() {
                self.answer(&Step::Ack(0));
            }
        }
        self.bury();
        self.tell();
        for slot in &self.model.slots {
            assert!(
                matches!(slot.place, Place::Done | Place::Lost),
                "{slot:?} is stuck"
            );
        }
        assert!(self.state.outstanding.is_empty() && self.state.ready.is_empty());
        assert!(self.state.delayed.is_empty() && self.state.dying.is_empty());
        assert!(self.state.keys.is_empty() && self.state.keys.behind() == 0);
        assert!(self.state.counts.keys().all(|&offset| {
            let index = self.model.index(offset);
            self.model.slots[index].place == Place::Lost
        }));
    }
}
