//! The group's state machine against a naive one with a slot for each message.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Where a message of the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    New,
    At {
        member: u64,
        delivery: u64,
        deadline: Instant,
    },
    Again,
    Delayed(Instant),
    Dying,
    /// Damaged.
    Lost,
    /// Done, or gone by retention.
    Done,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    offset: u64,
    key: Option<u64>,
    place: Place,
    count: u32,
    /// It cannot be read any more.
    is_damaged: bool,
}

/// A naive group.
#[derive(Debug)]
struct Model {
    slots: Vec<Slot>,
    is_ordered: bool,
}

#[derive(Debug, Clone)]
enum Step {
    /// Keys; 0: none.
    Append(Vec<u64>),
    /// Take up to so many to be read.
    Reserve(u64),
    /// The nth that is being read goes to a member, so many percent of it.
    Deliver(u8, u64, u8),
    /// The first positions of the nth that is being read are damaged.
    Damage(u8, u64),
    /// The nth outstanding one.
    Ack(u8),
    Nack(u8, bool),
    GiveBack(u8, bool),
    Extend(u8, u8),
    GiveUp(u8),
    Quit(u64),
    Wait(u8),
    /// Dead letters become durable.
    Bury,
    /// Retention takes the oldest.
    Trim(u8),
    /// Seal the open entry and begin another one.
    Roll,
    /// Start anew from what the journal was told.
    Restart,
    /// Every member leaves, and the next ones want another order.
    Reorder,
}

const MOST: u32 = 3;
const DEADLINE: Duration = Duration::from_secs(30);

fn step() -> impl Strategy<Value = Step> {
    let n = any::<u8>;
    prop_oneof![
        3 => prop::collection::vec(0u64..4, 1..6).prop_map(Step::Append),
        6 => (1u64..6).prop_map(Step::Reserve),
        8 => (n(), 0u64..3, 50u8..=100).prop_map(|(n, m, p)| Step::Deliver(n, m, p)),
        1 => (n(), 1u64..3).prop_map(|(n, m)| Step::Damage(n, m)),
        6 => n().prop_map(Step::Ack),
        2 => (n(), any::<bool>()).prop_map(|(n, delay)| Step::Nack(n, delay)),
        2 => (n(), any::<bool>()).prop_map(|(n, delay)| Step::GiveBack(n, delay)),
        1 => (n(), 1u8..90).prop_map(|(n, s)| Step::Extend(n, s)),
        1 => n().prop_map(Step::GiveUp),
        1 => (0u64..3).prop_map(Step::Quit),
        2 => (1u8..40).prop_map(Step::Wait),
        2 => Just(Step::Bury),
        1 => (0u8..4).prop_map(Step::Trim),
        1 => Just(Step::Roll),
        1 => Just(Step::Restart),
        1 => Just(Step::Reorder),
    ]
}

impl Model {
    fn outstanding(&self) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|&index| matches!(self.slots[index].place, Place::At { .. }))
            .collect()
    }

    fn fail(&mut self, index: usize, not_before: Option<Instant>) {
        let slot = &mut self.slots[index];
        slot.place = match not_before {
            _ if slot.count >= MOST => Place::Dying,
            Some(at) => Place::Delayed(at),
            None => Place::Again,
        };
    }

    /// Whether it waits for an earlier one of its key.
    fn is_behind(&self, index: usize) -> bool {
        let Some(key) = self.slots[index].key.filter(|_| self.is_ordered) else {
            return false;
        };
        let earlier = &self.slots[..index];
        earlier
            .iter()
            .any(|slot| slot.key == Some(key) && !matches!(slot.place, Place::Done | Place::Lost))
    }

    fn index(&self, offset: u64) -> usize {
        self.slots
            .binary_search_by_key(&offset, |slot| slot.offset)
            .unwrap()
    }

    fn can_deliver(&self, index: usize) -> bool {
        matches!(self.slots[index].place, Place::New | Place::Again) && !self.is_behind(index)
    }
}

/// Both, step by step.
struct Run {
    now: Instant,
    spans: Vec<Span>,
    state: GroupState,
    model: Model,
    journal: Progress,
    /// What is being read.
    reading: Vec<Reserved>,
}

impl Run {
    fn new(is_ordered: bool) -> Self {
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
            reading: Vec::new(),
        }
    }

    fn reserve(&mut self, most: u64) -> bool {
        let Some(reserved) = self.state.reserve(most, &self.spans) else {
            let free = (0..self.model.slots.len()).find(|&index| self.model.can_deliver(index));
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
        self.state.release(&reserved);
    }

    fn deliver_one(&mut self, offset: u64, member: u64) {
        let index = self.model.index(offset);
        let key = self.model.slots[index].key;
        let deadline = self.now + DEADLINE;
        let (can, is_behind) = (self.model.can_deliver(index), self.model.is_behind(index));
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
            }
            Placed::GivenUp(given_up) => {
                assert!(can && slot.count >= MOST, "{slot:?}");
                assert_eq!((given_up.offset, given_up.count), (offset, slot.count));
                slot.place = Place::Dying;
            }
            Placed::Kept => assert!(
                is_behind || matches!(slot.place, Place::Dying | Place::Done),
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
        assert_eq!(self.state.find(offset, delivery + 1), None);
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
                self.model.slots[index].place = Place::At {
                    member,
                    delivery,
                    deadline,
                };
                return;
            }
            _ => {
                self.state.give_up(offset);
                self.model.slots[index].place = Place::Dying;
            }
        }
        assert_eq!(self.state.find(offset, delivery), None, "the token is stale");
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
            if slot.place == Place::Again || (slot.place == Place::New && reserved.wants(offset)) {
                slot.place = Place::Lost;
            }
        }
        self.state.skip(&mut reserved, end);
        self.state.release(&reserved);
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
        self.reading.clear();
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
            self.state.release(&reserved);
        }
        for member in 0..3 {
            self.quit(member);
        }
        self.model.is_ordered = !self.model.is_ordered;
        self.state.set_ordered(self.model.is_ordered);
        for slot in &mut self.model.slots {
            if matches!(slot.place, Place::New | Place::Again | Place::Delayed(_)) {
                slot.place = if slot.is_damaged { Place::Lost } else { Place::New };
            }
        }
    }

    fn step(&mut self, step: &Step) {
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
        if let Some(delta) = self.state.take_untold(self.journal.floor) {
            self.journal.apply(&delta);
        }
        for slot in &self.model.slots {
            let told = slot.offset < self.journal.floor || self.journal.done.contains(slot.offset);
            assert_eq!(told, slot.place == Place::Done, "{slot:?}");
        }
        if !self.model.is_ordered && self.reading.is_empty() {
            let free = (0..self.model.slots.len()).filter(|&index| self.model.can_deliver(index));
            assert_eq!(self.state.available(&self.spans), free.count() as u64);
        }
    }

    /// Everything that is not damaged can be brought to an end, a key's messages in their order.
    fn drain(&mut self) {
        for reserved in std::mem::take(&mut self.reading) {
            self.state.release(&reserved);
        }
        for _ in 0..10_000 {
            self.wait(Duration::from_secs(24 * 3600));
            self.bury();
            while self.reserve(3) {
                self.deliver(0, 9, 100);
            }
            if self.model.outstanding().is_empty() {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn it_does_what_a_naive_group_does(
        is_ordered in any::<bool>(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut run = Run::new(is_ordered);
        for step in &steps {
            run.step(step);
        }
        run.drain();
    }
}

fn state(is_ordered: bool) -> GroupState {
    let progress = Progress {
        floor: 100,
        ..Progress::default()
    };
    GroupState::new(progress, is_ordered)
}

/// Takes everything there is and delivers it to member 1; offsets that are delivered. `key` by offset.
fn deliver_all(state: &mut GroupState, spans: &[Span], key: impl Fn(u64) -> Option<u64>) -> Vec<u64> {
    let deadline = Instant::now() + DEADLINE;
    let mut delivered = Vec::new();
    while let Some(mut reserved) = state.reserve(512, spans) {
        while !reserved.offsets.is_empty() {
            let offset = reserved.offsets.start;
            let wanted = reserved.wants(offset);
            reserved.advance(offset + 1);
            if wanted
                && matches!(
                    state.deliver(offset, key(offset), 1, deadline, 0),
                    Placed::Delivered(..)
                )
            {
                delivered.push(offset);
            }
        }
        state.release(&reserved);
    }
    delivered
}

#[test]
fn out_of_order_acknowledgements_keep_the_floor_at_the_oldest_open_message() {
    let spans = [Span { start: 100, end: 110 }];
    let mut state = state(false);
    assert_eq!(deliver_all(&mut state, &spans, |_| None).len(), 10);
    state.finish_range(103..105, &spans);
    state.finish_range(100..101, &spans);
    assert_eq!(state.floor(), 101);
    state.finish_range(101..103, &spans);
    assert_eq!(state.floor(), 105);
}

#[test]
fn a_stuck_key_stalls_only_itself_while_two_million_others_pass() {
    const ALL: u64 = 2_000_000;
    let mut state = state(true);
    let mut end = 100;
    let mut done = 0;
    // Key 0 has every tenth message, and its first one is never acked.
    let key = |offset: u64| Some(offset % 10 * (offset / 10 % 100 + 1));
    while end < 100 + ALL {
        end += 10_000;
        let spans = [Span { start: 100, end }];
        loop {
            let delivered = deliver_all(&mut state, &spans, key);
            let others: Vec<u64> = delivered.into_iter().filter(|offset| offset % 10 != 0).collect();
            if others.is_empty() {
                break;
            }
            done += others.len() as u64;
            for offset in others {
                state.finish_range(offset..offset + 1, &spans);
            }
        }
    }
    assert_eq!(done, ALL / 10 * 9, "all that is not of the stuck key");
    assert_eq!(state.floor(), 100);
    assert_eq!(state.keys.behind() as u64, ALL / 10 - 1);
    assert_eq!(state.outstanding.len(), 1);
    // It goes on in its order.
    let spans = [Span { start: 100, end }];
    for offset in (100..1000).step_by(10) {
        assert!(state.outstanding.contains_key(&offset));
        state.finish_range(offset..offset + 1, &spans);
        assert_eq!(deliver_all(&mut state, &spans, key), [offset + 10]);
    }
}

#[test]
fn what_is_open_is_bounded_and_goes_on_when_some_is_done() {
    let most = MOST_OPEN as u64;
    let spans = [Span {
        start: 100,
        end: 100 + 2 * most,
    }];
    let mut state = state(true);
    let delivered = deliver_all(&mut state, &spans, |_| Some(1));
    assert_eq!(delivered, [100]);
    assert!(state.is_full() && state.available(&spans) == 0);
    assert!((state.keys.behind() as u64) < most + 512);
    for offset in 100..1000 {
        state.finish_range(offset..offset + 1, &spans);
        assert_eq!(deliver_all(&mut state, &spans, |_| Some(1)), [offset + 1]);
    }
}

#[test]
fn a_million_acknowledgements_out_of_order_cost_what_is_open_and_no_more() {
    const ALL: u64 = 1_000_000;
    let spans = [Span {
        start: 100,
        end: 100 + ALL,
    }];
    let mut state = state(false);
    let mut journal = Progress::default();
    let mut next = 100;
    let mut most_ranges = 0;
    while next < 100 + ALL {
        // As many as are let out; the first one of each hundred stays for the end.
        for offset in deliver_all(&mut state, &spans, |_| None) {
            next = next.max(offset + 1);
            if offset % 100 != 0 {
                state.finish_range(offset..offset + 1, &spans);
            }
        }
        if let Some(delta) = state.take_untold(journal.floor) {
            journal.apply(&delta);
        }
        most_ranges = most_ranges.max(journal.done.len());
    }
    assert_eq!(state.outstanding.len() as u64, ALL / 100);
    assert!(most_ranges as u64 <= ALL / 100);
    let mut bytes = Vec::new();
    crate::broker::partition::codec::put_progress(&mut bytes, "g", &journal);
    println!("{most_ranges} ranges, {} bytes in a checkpoint", bytes.len());
    assert!(bytes.len() < 8 * most_ranges, "{} bytes", bytes.len());
    for offset in (100..100 + ALL).step_by(100) {
        state.finish_range(offset..offset + 1, &spans);
    }
    if let Some(delta) = state.take_untold(journal.floor) {
        journal.apply(&delta);
    }
    assert_eq!((journal.floor, journal.done.len()), (100 + ALL, 0));
    assert!(state.deadlines.len() <= 2 * MOST_OPEN);
}

#[test]
fn deadlines_that_are_moved_again_and_again_are_kept_once() {
    let spans = [Span { start: 100, end: 101 }];
    let mut state = state(false);
    deliver_all(&mut state, &spans, |_| None);
    let now = Instant::now();
    for n in 0..1000 {
        state.extend(100, now + Duration::from_secs(3600 + n));
    }
    assert!(state.deadlines.len() <= 2);
    state.finish_range(100..101, &spans);
    assert!(state.deadlines.len() <= 1);
}
