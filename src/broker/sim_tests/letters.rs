//! Dead letters: what a broker does by itself in a task of its own, and what is found at the end.

use std::rc::Rc;
use std::sync::Arc;

use super::PARTITIONS;
use super::chaos::read;
use super::history::{Letter, Stored};
use super::producer::id;
use super::scheduler::turns;
use super::world::World;
use crate::broker::store::{Dead, Store, StoredMessage};

/// Brings dead letters to their topic, in no order, each until it is there.
pub(super) async fn bury(world: Rc<World>, broker: usize) {
    loop {
        let (store, boot) = world.store(broker);
        let burying = bury_all(&world, broker, boot, Arc::downgrade(&store));
        drop(store);
        world.alive(broker, boot, burying).await;
        turns(1).await;
    }
}

async fn bury_all(world: &World, broker: usize, boot: u64, store: std::sync::Weak<Store>) {
    let mut waiting: Vec<Dead> = Vec::new();
    while world.boots(broker) == boot {
        world.pause(20).await;
        turns(1).await;
        waiting.extend(world.take_dying(broker));
        let Some(store) = store.upgrade().filter(|_| !waiting.is_empty()) else {
            continue;
        };
        let mut dead = waiting.swap_remove(world.below(waiting.len() as u32) as usize);
        let partition = dead.partition.index();
        let attempt = world
            .history
            .burial_begins(dead.hub.name(), partition, dead.offset);
        match store.bury_one(&dead).await {
            Ok(true) => {
                world.history.burial_ends(attempt);
                if let Some(done) = dead.done.take() {
                    _ = done.send(());
                }
            }
            // The partition has moved on.
            Ok(false) => {}
            Err(_) => waiting.push(dead),
        }
    }
}

/// Reads all letters that are there.
pub(super) async fn read_all(world: &World) {
    let letters: Vec<Letter> = read(world, PARTITIONS).await.iter().map(letter).collect();
    world.count(|faults| faults.letters = letters.len() as u32);
    world.history.set_letters(letters);
}

fn letter(message: &StoredMessage) -> Letter {
    let header = |name: &str| {
        let name = format!("sluice-dead-letter-{name}");
        let found = message.headers.iter().find(|(header, _)| *header == name);
        String::from_utf8(found.unwrap().1.to_vec()).unwrap()
    };
    Letter {
        group: header("group"),
        of: Stored {
            id: id(&message.body),
            partition: header("partition").parse().unwrap(),
            offset: header("offset").parse().unwrap(),
        },
    }
}
