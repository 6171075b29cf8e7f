//! A naive group: a slot for each message.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

/// Where a message of the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
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
pub(super) struct Slot {
    pub(super) offset: u64,
    pub(super) key: Option<u64>,
    pub(super) place: Place,
    pub(super) count: u32,
    /// It cannot be read any more.
    pub(super) is_damaged: bool,
}

impl Slot {
    /// On its way to the dead letters, and damaged meanwhile.
    fn is_lost_letter(&self) -> bool {
        self.place == Place::Dying && self.is_damaged
    }
}

/// A naive group.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) slots: Vec<Slot>,
    pub(super) is_ordered: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
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

pub(super) const MOST: u32 = 3;
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn step() -> impl Strategy<Value = Step> {
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
    pub(super) fn outstanding(&self) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|&index| matches!(self.slots[index].place, Place::At { .. }))
            .collect()
    }

    pub(super) fn fail(&mut self, index: usize, not_before: Option<Instant>) {
        let slot = &mut self.slots[index];
        slot.place = match not_before {
            _ if slot.count >= MOST => Place::Dying,
            Some(at) => Place::Delayed(at),
            None => Place::Again,
        };
    }

    /// Whether it waits for an earlier one of its key.
    pub(super) fn is_behind(&self, index: usize) -> bool {
        self.is_behind_some(index, |slot| !slot.is_lost_letter())
    }

    /// Whether it may wait for an earlier one of its key: whose a dead letter was that cannot be read any more is known
    /// only to who read it before.
    pub(super) fn may_be_behind(&self, index: usize) -> bool {
        self.is_behind_some(index, |_| true)
    }

    fn is_behind_some(&self, index: usize, counts: impl Fn(&Slot) -> bool) -> bool {
        let Some(key) = self.slots[index].key.filter(|_| self.is_ordered) else {
            return false;
        };
        let open = |slot: &Slot| !matches!(slot.place, Place::Done | Place::Lost);
        let mut earlier = self.slots[..index].iter();
        earlier.any(|slot| slot.key == Some(key) && open(slot) && counts(slot))
    }

    pub(super) fn index(&self, offset: u64) -> usize {
        self.slots
            .binary_search_by_key(&offset, |slot| slot.offset)
            .unwrap()
    }

    pub(super) fn can_deliver(&self, index: usize) -> bool {
        matches!(self.slots[index].place, Place::New | Place::Again) && !self.is_behind(index)
    }

    pub(super) fn must_deliver(&self, index: usize) -> bool {
        self.can_deliver(index) && !self.may_be_behind(index)
    }
}
