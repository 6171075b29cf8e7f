//! What goes wrong, and when; and the end of a run.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::PARTITIONS;
use super::history::{SENTINELS, Stored};
use super::letters;
use super::producer::{id, send};
use super::retention;
use super::scheduler::turns;
use super::world::{BROKERS, Stage, World, entry_id, holder};
use crate::broker::clock;
use crate::broker::core_tests::support::read_all;
use crate::broker::log::fault::Cut;
use crate::broker::store::StoredMessage;

/// All deadlines pass so many times before a message that does not come counts as lost.
const PATIENCE: u32 = 100;

pub(super) async fn conduct(world: Rc<World>) {
    retention::begin(&world).await;
    for _ in 0..3 + world.below(5) {
        world.pause(500).await;
        fault(&world).await;
    }
    world.set_stage(Stage::Settling);
    while world.working.get() > 0 {
        turns(10).await;
    }
    world.set_stage(Stage::Draining);
    finish(&world).await;
    world.set_stage(Stage::Over);
}

async fn fault(world: &World) {
    let broker = world.some_broker();
    let disk = world.disk(broker);
    match world.below(11) {
        0..2 => {
            world.count(|faults| faults.kills += 1);
            world.die(broker, Cut::Kept);
        }
        2..4 => {
            world.count(|faults| faults.power_cuts += 1);
            let cut = world.any_cut();
            world.die(broker, cut);
        }
        // In the middle of some write or sync; the writer notices.
        4..7 => {
            let boot = world.boots(broker);
            disk.cut_power_after(u64::from(world.below(6)));
            let mut waited = 0;
            while world.boots(broker) == boot {
                turns(1).await;
                waited += 1;
                if waited > 2000 {
                    // Nobody writes.
                    let cut = world.any_cut();
                    world.die(broker, cut);
                }
            }
        }
        7 => {
            world.count(|faults| faults.failed_syncs += 1);
            let boot = world.boots(broker);
            disk.fail_syncs(true);
            let mut waited = 0;
            // A broker that owns nothing may write nothing.
            while world.boots(broker) == boot && waited < 2000 {
                turns(1).await;
                waited += 1;
            }
            disk.fail_syncs(false);
        }
        8 => {
            world.count(|faults| faults.full_disks += 1);
            disk.set_capacity(Some(disk.used() + u64::from(world.below(3000))));
            world.pause(1000).await;
            disk.set_capacity(None);
        }
        9 => {
            world.count(|faults| faults.partings += 1);
            world.wire.cut.store(true, Ordering::Relaxed);
            world.pause(1000).await;
            world.wire.cut.store(false, Ordering::Relaxed);
        }
        _ => expire(world),
    }
}

/// Every deadline passes.
fn expire(world: &World) {
    for topic in world.stores().iter().flat_map(|store| store.all_topics()) {
        for hub in topic.hubs() {
            hub.tick(clock::now() + Duration::from_secs(3600));
        }
    }
}

/// Everything is consumed; then everything that was not synced is lost, twice, and the log is read.
async fn finish(world: &World) {
    for which in 0..2 {
        for partition in 0..PARTITIONS {
            send(world, partition, &[(SENTINELS, partition as u64 * 10 + which)]).await;
        }
        let mut unfinished = world.unfinished();
        let mut patience = PATIENCE;
        while !unfinished.is_empty() && patience > 0 {
            turns(200).await;
            // What nobody answered.
            expire(world);
            letters::read_all(world).await;
            world.note_removed();
            let still = world.unfinished();
            patience = if still.len() < unfinished.len() {
                PATIENCE
            } else {
                patience - 1
            };
            unfinished = still;
        }
        // What is left then never comes, as the check will find.
        for broker in 0..BROKERS.len() {
            world.die(broker, world.worst_cut());
        }
    }
    letters::read_all(world).await;
    let mut log = Vec::new();
    world.note_removed();
    for partition in 0..PARTITIONS {
        let messages = read(world, partition).await;
        log.extend(messages.into_iter().map(|message| Stored {
            id: id(&message.body),
            partition: partition as u32,
            offset: message.offset.0,
        }));
    }
    world.history.set_log(log);
    let segments = |broker| world.disk(broker).contents().len() as u32;
    world.count(|faults| faults.segments = (0..BROKERS.len()).map(segments).sum());
    retention::end(world).await;
    let too_young = world.too_young.borrow();
    assert!(too_young.is_empty(), "taken away too early: {too_young:?}");
}

/// All that is durable in a place, from whoever holds it.
pub(super) async fn read(world: &World, place: usize) -> Vec<StoredMessage> {
    let mut all = Vec::new();
    for link in world.chain(place) {
        let (store, _) = world.store(holder(&link));
        let id = entry_id(place, link.epoch);
        let messages = read_all(&store, &id).await.unwrap();
        if let Some(sealed_at) = link.sealed_at {
            let start = store.registry.get(&id).unwrap().state().start;
            assert_eq!(messages.len() as u64, sealed_at - start, "{id:?}");
        }
        all.extend(messages);
    }
    all
}
