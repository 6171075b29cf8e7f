//! What is taken away: what all groups have done, or whatever is more than so many bytes.

use super::scheduler::turns;
use super::world::{BROKERS, World, entry_id, partition};
use super::{GROUPS, PARTITIONS};
use crate::broker::store::Offset;
use crate::pb;

/// Has the brokers take away what may go, once every group has begun: one that begins later misses what is gone by then.
pub(super) async fn begin(world: &World) {
    let retention = pb::Retention {
        work_queue: world.below(3) == 0,
        bytes: [0, 4 << 10, 12 << 10][world.below(3) as usize],
        ..pb::Retention::default()
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

impl World {
    /// The operator wants that what all groups have done is taken away, or whatever is more than so many bytes.
    fn want_retention(&self, retention: pb::Retention) {
        let mut plan = self.plan.borrow_mut();
        plan.generation += 1;
        plan.retention = retention;
        self.count(|faults| {
            faults.work_queues += u32::from(retention.work_queue);
            faults.bounded += u32::from(retention.bytes > 0);
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
                    *before = entry.state().start.max(*before);
                }
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
        let is_bounded = self.plan.borrow().retention.bytes > 0;
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
