//! A naive group, with a slot for each message: what the state machine is compared with, by tests and by the fuzz target.

#![allow(clippy::unwrap_used, reason = "a comparison that cannot go on ends")]

mod run;

use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::run::Run;

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

/// What may happen.
#[derive(Debug, Clone)]
pub(crate) enum Step {
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
    /// A member is asked to give up to so many back.
    Revoke(u64, u8),
    Wait(u8),
    /// Dead letters become durable.
    Bury,
    /// Retention takes the oldest.
    Trim(u8),
    /// Seal the open entry and begin another one.
    Roll,
    /// The journal does not take what it is told, which comes out now or after the next thing that it is told.
    Fail(bool),
    /// Start anew from what the journal was told.
    Restart,
    /// Every member leaves, and the next ones want another order.
    Reorder,
}

/// Deliveries until a message is given up.
pub(super) const MOST: u32 = 3;
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

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
