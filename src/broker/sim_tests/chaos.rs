//! What goes wrong, and when; and the end of a run.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::PARTITIONS;
use super::history::{SENTINELS, Stored};
use super::producer::{id, send};
use super::scheduler::turns;
use super::world::{Stage, World};
use crate::broker::core_tests::support::{entry, read_all};
use crate::broker::log::fault::Cut;

/// All deadlines pass so many times before a message that does not come counts as lost.
const PATIENCE: u32 = 100;

pub(super) async fn conduct(world: Rc<World>) {
    for _ in 0..3 + world.below(5) {
        world.pause(500).await;
        fault(&world).await;
    }
    world.set_stage(Stage::Settling);
    while world.publishing.get() > 0 {
        turns(10).await;
    }
    world.set_stage(Stage::Draining);
    finish(&world).await;
    world.set_stage(Stage::Over);
}

async fn fault(world: &World) {
    let disk = world.disk();
    match world.below(10) {
        0..2 => {
            world.count(|faults| faults.kills += 1);
            world.die(Cut::Kept);
        }
        2..4 => {
            world.count(|faults| faults.power_cuts += 1);
            let cut = world.any_cut();
            world.die(cut);
        }
        // In the middle of some write or sync; the writer notices.
        4..7 => {
            let boot = world.boots();
            disk.cut_power_after(u64::from(world.below(6)));
            let mut waited = 0;
            while world.boots() == boot {
                turns(1).await;
                waited += 1;
                if waited > 2000 {
                    // Nobody writes.
                    let cut = world.any_cut();
                    world.die(cut);
                }
            }
        }
        7 => {
            world.count(|faults| faults.failed_syncs += 1);
            let boot = world.boots();
            disk.fail_syncs(true);
            while world.boots() == boot && world.publishing.get() > 0 {
                turns(1).await;
            }
            disk.fail_syncs(false);
        }
        8 => {
            world.count(|faults| faults.full_disks += 1);
            disk.set_capacity(Some(disk.used() + u64::from(world.below(3000))));
            world.pause(1000).await;
            disk.set_capacity(None);
        }
        _ => expire(world),
    }
}

/// Every deadline passes.
fn expire(world: &World) {
    let (store, _) = world.store();
    for hub in store.all_topics().iter().flat_map(|topic| topic.hubs()) {
        hub.tick(Instant::now() + Duration::from_secs(3600));
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
            let still = world.unfinished();
            patience = if still.len() < unfinished.len() {
                PATIENCE
            } else {
                patience - 1
            };
            unfinished = still;
        }
        // What is left then never comes, as the check will find.
        world.die(Cut::Lost);
    }
    let (store, _) = world.store();
    let mut log = Vec::new();
    for partition in 0..PARTITIONS as u32 {
        for message in read_all(&store, &entry(partition, 1)).await.unwrap() {
            log.push(Stored {
                id: id(&message.body),
                partition,
                offset: message.offset.0,
            });
        }
    }
    world.history.set_log(log);
    let segments = world.disk().contents().len() as u32;
    world.count(|faults| faults.segments = segments);
}
