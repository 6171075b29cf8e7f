//! One group over all partitions of one topic that are owned here: who gets what.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::seats::{Bells, Inner, Seat};
use super::settling::MOST;
use super::state::MOST_OPEN;
use super::{JoinError, Order, Start};
use crate::broker::clock;
use crate::broker::store::{Store, Topic};

/// The group. One lock, held for a batch at a time and never over I/O.
#[derive(Debug)]
pub(crate) struct Hub {
    name: String,
    pub(super) nonce: u32,
    /// Where partitions' starts are asked for: they are taken up on any thread.
    pub(super) runtime: Option<tokio::runtime::Handle>,
    /// Of keys.
    pub(super) hasher: std::hash::RandomState,
    pub(super) topic: Weak<Topic>,
    pub(super) store: Weak<Store>,
    pub(super) inner: Mutex<Inner>,
}

impl Hub {
    pub(crate) fn new(name: &str, start: Start, topic: &Arc<Topic>, store: &Arc<Store>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            nonce: rand::random(),
            runtime: tokio::runtime::Handle::try_current().ok(),
            hasher: std::hash::RandomState::new(),
            topic: Arc::downgrade(topic),
            store: Arc::downgrade(store),
            inner: Mutex::new(Inner {
                start,
                order: Order::None,
                parts: BTreeMap::new(),
                starting: BTreeMap::new(),
                seats: BTreeMap::new(),
                next_seat: 1,
                last_part: 0,
                last_woken: 0,
            }),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has members now.
    pub(crate) fn has_members(&self) -> bool {
        !self.inner.lock().seats.is_empty()
    }

    pub(super) fn most(&self) -> u32 {
        self.topic
            .upgrade()
            .map_or(0, |topic| topic.settings().max_deliveries)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.topic.upgrade().is_none_or(|topic| topic.is_gone())
    }

    /// A member joins. `start` is where the group starts in partitions in which it has no progress.
    pub(super) fn join(self: &Arc<Self>, start: Start, order: Order) -> Result<(u64, Arc<Bells>), JoinError> {
        let (id, bells) = {
            let mut inner = self.inner.lock();
            if inner.seats.is_empty() {
                inner.order = order;
                for part in inner.parts.values_mut() {
                    part.state.set_ordered(order == Order::ByKey);
                }
            } else if inner.order != order {
                return Err(JoinError::Mixed {
                    group: self.name.clone(),
                    has: inner.order == Order::ByKey,
                });
            }
            inner.start = start;
            let id = inner.next_seat;
            inner.next_seat += 1;
            let seat = Seat::default();
            let bells = Arc::clone(&seat.bells);
            inner.seats.insert(id, seat);
            (id, bells)
        };
        self.refresh();
        Ok((id, bells))
    }

    /// A member goes away; what it had goes to the others at once.
    pub(crate) fn quit(self: &Arc<Self>, member: u64) {
        let most = self.most();
        let mut dead = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.seats.remove(&member);
            for part in inner.parts.values_mut() {
                let given_up = part.state.drop_member(member, most);
                dead.extend(
                    given_up
                        .into_iter()
                        .map(|given_up| self.dead(part, &given_up, MOST, None)),
                );
                drop(part.tell());
            }
            inner.wake_one();
        }
        self.bury(dead);
    }

    /// Takes up the partitions that came, and lets go of those that left.
    pub(crate) fn refresh(self: &Arc<Self>) {
        let partitions = self
            .topic
            .upgrade()
            .map(|topic| topic.partitions())
            .unwrap_or_default();
        for partition in &partitions {
            partition.add_hub(self);
        }
        let mut inner = self.inner.lock();
        inner.parts.retain(|index, part| {
            partitions.iter().any(|partition| partition.index() == *index)
                && part
                    .partition
                    .served()
                    .is_some_and(|entry| entry.number == part.entry.number)
        });
        for partition in partitions {
            self.take_up(&mut inner, &partition);
        }
        inner.count_held();
        inner.wake_all();
    }

    /// Something was committed in a partition, or it began to be served.
    pub(crate) fn look(self: &Arc<Self>, partition: u32) {
        let mut inner = self.inner.lock();
        if inner.parts.contains_key(&partition) {
            inner.wake_one();
            return;
        }
        let partition = self.topic.upgrade().and_then(|topic| topic.partition(partition));
        if let Some(partition) = partition {
            self.take_up(&mut inner, &partition);
            inner.wake_all();
        }
    }

    /// A partition was sealed: every delivery of it is over.
    pub(crate) fn leave(&self, partition: u32) {
        let mut inner = self.inner.lock();
        inner.parts.remove(&partition);
        inner.count_held();
        inner.wake_all();
    }

    /// Deadlines, delays.
    pub(crate) fn tick(self: &Arc<Self>, now: Instant) {
        let most = self.most();
        let mut dead = Vec::new();
        {
            let mut inner = self.inner.lock();
            let inner = &mut *inner;
            let mut changed = false;
            let mut cut = false;
            for part in inner.parts.values_mut() {
                let (members, given_up) = part.state.expire(now, most);
                changed |= !members.is_empty() || part.state.has_ready();
                for member in members {
                    if let Some(seat) = inner.seats.get_mut(&member) {
                        seat.held = seat.held.saturating_sub(1);
                    }
                }
                dead.extend(
                    given_up
                        .into_iter()
                        .map(|given_up| self.dead(part, &given_up, MOST, None)),
                );
                changed |= part.blocked.as_ref().is_some_and(|(until, _)| *until <= now);
                cut |= part.state.take_cut();
                drop(part.tell());
            }
            if cut {
                inner.count_held();
            }
            if changed {
                inner.wake_one();
            }
            if let Some(store) = self.store.upgrade() {
                inner.revoke(now, &store, self.nonce);
            }
        }
        self.bury(dead);
    }

    /// Deliveries so far of messages that are not done, for the next owner.
    pub(crate) fn counts(&self, partition: u32) -> BTreeMap<u64, u32> {
        self.inner
            .lock()
            .parts
            .get(&partition)
            .map(|part| part.state.all_counts())
            .unwrap_or_default()
    }

    /// Whether anything can be given to a member now.
    pub(crate) fn has_waiting(&self) -> bool {
        let Some(store) = self.store.upgrade() else {
            return false;
        };
        let now = clock::now();
        let inner = self.inner.lock();
        inner.parts.values().any(|part| {
            part.blocked.as_ref().is_none_or(|(until, _)| *until <= now)
                && part.state.available(&part.partition.spans(&store.registry)) > 0
        })
    }

    /// Partitions that this broker should serve and cannot, and why.
    pub(crate) fn problems(&self) -> BTreeMap<u32, String> {
        let mut problems = BTreeMap::new();
        for partition in self
            .topic
            .upgrade()
            .map(|topic| topic.partitions())
            .unwrap_or_default()
        {
            if let Some(problem) = &partition.view().problem {
                problems.insert(partition.index(), problem.clone());
            }
        }
        let inner = self.inner.lock();
        for (index, reason) in &inner.starting {
            problems.extend(reason.clone().map(|reason| (*index, reason)));
        }
        for (&index, part) in &inner.parts {
            if let Some((_, reason)) = &part.blocked {
                problems.insert(index, reason.clone());
            } else if part.state.is_full() {
                let full = format!(
                    "{MOST_OPEN} of its messages are delivered or wait, and none is done; ack, or give up"
                );
                problems.insert(index, full);
            }
        }
        problems
    }

    /// Every member looks again.
    pub(crate) fn wake_all(&self) {
        self.inner.lock().wake_all();
    }
}
