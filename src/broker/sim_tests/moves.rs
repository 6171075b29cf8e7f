//! The operator's part: it moves partitions from broker to broker, by seal and extension, and what was sealed after
//! them, by copies; and what a broker does by itself in a task of its own, the handoff.

use std::rc::Rc;
use std::sync::Arc;

use super::PLACES;
use super::scheduler::turns;
use super::world::{BROKERS, DEAD, Stage, World, entry_id, holder};
use crate::broker::core_tests::support::{chain_entry, copy_request};
use crate::broker::store::{EntryId, Store};

/// Moves partitions until the storm is over.
pub(super) async fn operate(world: Rc<World>) {
    world.working.set(world.working.get() + 1);
    while world.stage() == Stage::Storm {
        world.pause(600).await;
        let partition = world.below(PLACES as u32) as usize;
        if world.below(3) > 0 {
            extend(&world, partition).await;
        } else {
            evacuate(&world, partition).await;
        }
    }
    world.working.set(world.working.get() - 1);
}

/// All brokers hear what is wanted, one after the other.
async fn tell(world: &World) {
    let first = world.some_broker();
    for next in 0..BROKERS.len() {
        world.configure((first + next) % BROKERS.len());
        world.pause(30).await;
    }
}

/// Asks a broker until it does it, through its deaths.
async fn until_done<T>(
    world: &World,
    broker: usize,
    ask: impl AsyncFn(Arc<Store>) -> Result<T, String>,
) -> T {
    loop {
        let (store, boot) = world.store(broker);
        if let Some(Ok(done)) = world.alive(broker, boot, ask(store)).await {
            return done;
        }
        world.pause(20).await;
        turns(1).await;
    }
}

/// Another broker, or the same anew, takes the partition's next messages.
async fn extend(world: &World, partition: usize) {
    let owner = world.owner(partition);
    let newest = world.chain(partition).last().unwrap().epoch;
    let id = entry_id(partition, newest);
    let sealed_at = until_done(world, owner, async |store| store.seal(&id).await).await;
    let next = world.some_broker();
    world.want(partition, |chain| {
        chain.last_mut().unwrap().sealed_at = Some(sealed_at);
        chain.push(chain_entry(newest + 1, BROKERS[next], None));
    });
    tell(world).await;
    world.count(|faults| faults.moves += 1);
}

/// Something sealed goes to the other broker's disk.
async fn evacuate(world: &World, partition: usize) {
    let chain = world.chain(partition);
    let (_, sealed) = chain.split_last().unwrap();
    if sealed.is_empty() {
        return;
    }
    let link = &sealed[world.below(sealed.len() as u32) as usize];
    let from = holder(link);
    let to = (from + 1) % BROKERS.len();
    let id = entry_id(partition, link.epoch);
    copy(world, (from, to), &id, link.sealed_at.unwrap()).await;
    world.want(partition, |chain| {
        let link = chain.iter_mut().find(|link| link.epoch == id.epoch).unwrap();
        link.brokers = vec![BROKERS[to].to_owned()];
    });
    tell(world).await;
    until_done(world, from, async |store| store.drop_entry(&id).await).await;
    world.count(|faults| faults.copies += 1);
}

/// Asks for the copy again and again, as the operator does, and takes the steps that the broker takes by itself.
async fn copy(world: &World, (from, to): (usize, usize), id: &EntryId, sealed_at: u64) {
    let request = copy_request(id, sealed_at, BROKERS[from]);
    let whole = async |store: Arc<Store>| {
        if store.copy(&request).await?.done {
            return Ok(());
        }
        let entry = store.registry.get(id).unwrap();
        match store.copy_step(&entry, sealed_at, BROKERS[from]).await? {
            true => Ok(()),
            false => Err("there is more".to_owned()),
        }
    };
    until_done(world, to, whole).await;
}

/// A broker fetches what the owner before knew.
pub(super) async fn hand_over(world: Rc<World>, broker: usize) {
    loop {
        world.pause(20).await;
        turns(1).await;
        let (store, boot) = world.store(broker);
        let topics = ["orders", DEAD].map(|name| store.topic(name).unwrap());
        for partition in topics.into_iter().flat_map(|topic| topic.partitions) {
            let Some(entry) = store.waits_for_handoff(&partition) else {
                continue;
            };
            // Where it fails it is tried again.
            let _ = world
                .alive(broker, boot, store.import_handoff(&partition, &entry))
                .await;
        }
    }
}
