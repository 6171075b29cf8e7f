//! What a group's lock protects: its partitions, its members, and whose turn it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::settling::Telling;
use super::state::GroupState;
use super::{Order, Start};
use crate::broker::partition::entry::Entry;
use crate::broker::partition::ops::{Change, ChangeAnswer};
use crate::broker::partition::{Partition, Span};
use crate::broker::store::Store;

/// What the lock protects.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) start: Start,
    pub(super) order: Order,
    pub(super) parts: BTreeMap<u32, Part>,
    /// Partitions of which another broker is asked where the group starts, and why it does not answer.
    pub(super) starting: BTreeMap<u32, Option<String>>,
    pub(super) seats: BTreeMap<u64, Seat>,
    pub(super) next_seat: u64,
    pub(super) last_part: u32,
    pub(super) last_woken: u64,
}

/// The group in one partition.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) partition: Arc<Partition>,
    pub(super) entry: Arc<Entry>,
    /// The group's name.
    pub(super) name: String,
    pub(super) state: GroupState,
    pub(super) told_floor: u64,
    /// Not before this, because of that.
    pub(super) blocked: Option<(Instant, String)>,
}

/// A member.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Messages that it has.
    pub(super) held: u64,
    /// Messages that it would take on top of those.
    pub(super) room: u64,
    /// It waits in [`super::Member::next`].
    pub(super) waiting: bool,
    /// When it was asked last to give messages back.
    pub(super) asked: Option<Instant>,
    /// Tokens of what it is to be asked for.
    pub(super) revoked: Vec<Bytes>,
    pub(super) bells: Arc<Bells>,
}

/// What a member waits for.
#[derive(Debug, Default)]
pub(super) struct Bells {
    /// There may be messages for it.
    pub(super) wake: Notify,
    /// It is to give messages back.
    pub(super) revoke: Notify,
}

impl Part {
    /// What can be read now; what is gone by retention is done.
    pub(super) fn spans(&mut self, store: &Store) -> Vec<Span> {
        let spans = self.partition.spans(&store.registry);
        if let Some(first) = spans.first() {
            self.state.trim(first.start, &spans);
        }
        spans
    }

    /// Queues what changed for the journal.
    pub(super) fn tell(&mut self) -> Option<Telling> {
        self.tell_by(Partition::submit)
    }

    /// The same, for one who assists the journal when nothing is held any more. Sets `waits` where it waits for that.
    pub(super) fn tell_and_assist(&mut self, waits: &mut bool) -> Option<Telling> {
        self.tell_by(|partition, entry, change| {
            let (answer, waiting) = partition.queue(entry, change);
            *waits |= waiting;
            answer
        })
    }

    fn tell_by(
        &mut self,
        submit: impl FnOnce(&Partition, &Arc<Entry>, Change) -> ChangeAnswer,
    ) -> Option<Telling> {
        let delta = self.state.take_untold(self.told_floor)?;
        self.told_floor = delta.floor;
        let partition = self.partition.index();
        let epoch = self.entry.id.epoch;
        let name = self.name.clone();
        let change = Change::Progress(name, delta.clone());
        let answer = submit(&self.partition, &self.entry, change);
        Some(Telling {
            partition,
            epoch,
            delta,
            answer,
        })
    }
}

impl Inner {
    pub(super) fn part(&mut self, partition: u32, epoch: u64) -> Option<&mut Part> {
        self.parts
            .get_mut(&partition)
            .filter(|part| part.entry.id.epoch == epoch)
    }

    /// Wakes the next member that waits, in turn.
    pub(super) fn wake_one(&mut self) {
        let after = self
            .seats
            .range(self.last_woken + 1..)
            .find(|(_, seat)| seat.waiting);
        let next = after
            .or_else(|| self.seats.iter().find(|(_, seat)| seat.waiting))
            .map(|(&id, _)| id);
        if let Some(id) = next
            && let Some(seat) = self.seats.get_mut(&id)
        {
            seat.waiting = false;
            seat.bells.wake.notify_one();
            self.last_woken = id;
        }
    }

    pub(super) fn wake_all(&mut self) {
        for seat in self.seats.values_mut() {
            seat.waiting = false;
            seat.bells.wake.notify_one();
        }
    }

    /// Counts anew what each member has, after partitions left.
    pub(super) fn count_held(&mut self) {
        let mut held: BTreeMap<u64, u64> = BTreeMap::new();
        for part in self.parts.values() {
            for (member, count) in part.state.held_by_member() {
                *held.entry(member).or_default() += count;
            }
        }
        for (id, seat) in &mut self.seats {
            seat.held = held.get(id).copied().unwrap_or(0);
        }
    }
}
