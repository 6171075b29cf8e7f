//! What is taken away: what all groups have done, or whatever is more than so many bytes, or older than so long.

use std::ops::Range;

use super::scheduler::turns;
use super::world::{BROKERS, World, entry_id, holder, partition};
use super::{GROUPS, PARTITIONS};
use crate::broker::clock::{self, now_millis};
use crate::broker::store::Offset;
use crate::pb;

/// Has the brokers take away what may go, once every group has begun: one that begins later misses what is gone by then.
pub(super) async fn begin(world: &World) {
    let retention = pb::Retention {
        work_queue: world.below(3) == 0,
        bytes: [0, 4 << 10, 12 << 10][world.below(3) as usize],
        age: [None, None, Some(300), Some(2000)][world.below(4) as usize].map(|millis| {
            prost_types::Duration {
                seconds: millis / 1000,
                nanos: (millis % 1000 * 1_000_000) as i32,
            }
        }),
    };
    let mut patience = 3000;
    while !world.have_all_begun() {
        turns(1).await;
        patience -= 1;
        if patience == 0 {
            return;
        }
    }
    world.want_retention(retention);
    for broker in 0..BROKERS.len() {
        world.configure(broker);
    }
}

/// When all is old enough, all of it goes.
pub(super) async fn end(world: &World) {
    let Some(age) = world.age() else { return };
    clock::stopped::advance(age + 1);
    for broker in 0..BROKERS.len() {
        world.retain(broker);
    }
    turns(2000).await;
    for place in 0..PARTITIONS {
        for link in world.chain(place) {
            let (store, _) = world.store(holder(&link));
            let entry = store.registry.get(&entry_id(place, link.epoch)).unwrap();
            let state = entry.state();
            assert_eq!(state.start, state.committed, "of {link:?} all is old");
        }
    }
}

impl World {
    /// The age in milliseconds at which messages are taken away.
    fn age(&self) -> Option<u64> {
        let age = self.plan.borrow().retention.age;
        age.map(|age| age.seconds as u64 * 1000 + age.nanos as u64 / 1_000_000)
    }

    /// The operator wants that what all groups have done is taken away, or whatever is more than so many bytes or too old.
    fn want_retention(&self, retention: pb::Retention) {
        let mut plan = self.plan.borrow_mut();
        plan.generation += 1;
        plan.retention = retention;
        self.count(|faults| {
            faults.work_queues += u32::from(retention.work_queue);
            faults.bounded += u32::from(retention.bytes > 0);
            faults.aging += u32::from(retention.age.is_some());
        });
    }

    /// Looks how far a broker has decided to take away what it has. Groups pass over that at once, and where the power is cut
    /// before it is written it is all there again.
    pub(super) fn look_what_is_gone(&self, broker: usize) {
        let (store, _) = self.store(broker);
        let mut gone = self.gone.borrow_mut();
        for place in 0..PARTITIONS {
            for link in self.chain(place) {
                if let Some(entry) = store.registry.get(&entry_id(place, link.epoch)) {
                    let before = gone.entry((place, link.epoch)).or_default();
                    let start = entry.state().start.max(*before);
                    self.check_age(place as u32, link.epoch, *before..start);
                    *before = start;
                }
            }
        }
    }

    /// Where nothing else takes messages away, those that are gone were published long enough ago.
    fn check_age(&self, partition: u32, epoch: u64, gone: Range<u64>) {
        let retention = self.plan.borrow().retention;
        let Some(age) = self
            .age()
            .filter(|_| !retention.work_queue && retention.bytes == 0)
        else {
            return;
        };
        let published = self.published.borrow();
        for position in gone {
            let offset = Offset::new(epoch, position).0;
            let is_young = |began: &u64| began + age > now_millis();
            if published.get(&(partition, offset)).is_some_and(is_young) {
                self.too_young.borrow_mut().push((partition, offset));
            }
        }
    }

    /// Tells the history what was taken away so far.
    pub(super) fn note_removed(&self) {
        let gone = self.gone.borrow();
        self.count(|faults| faults.removed = gone.values().sum());
        let offset = |epoch, position| Offset::new(epoch, position).0;
        let removed = gone
            .iter()
            .map(|(&(place, epoch), &start)| (place as u32, offset(epoch, 0)..offset(epoch, start)))
            .collect();
        let is_bounded = self.plan.borrow().retention.bytes > 0 || self.age().is_some();
        self.history.set_removed(removed, is_bounded);
    }

    /// Whether all groups have begun in all partitions, so that nothing is taken away before they do.
    fn have_all_begun(&self) -> bool {
        (0..PARTITIONS).all(|place| {
            let (store, _) = self.store(self.owner(place));
            partition(&store, place).served().is_some_and(|entry| {
                let state = entry.state();
                GROUPS.iter().all(|group| state.groups.contains_key(*group))
            })
        })
    }
}
