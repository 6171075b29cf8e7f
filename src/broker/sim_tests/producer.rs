//! Publishers that repeat what was not acknowledged.

use std::rc::Rc;
use std::time::Instant;

use futures::future::{Either, select};

use super::PARTITIONS;
use super::history::{Id, WITHOUT_ID};
use super::scheduler::turns;
use super::world::{Stage, World, partition};
use crate::broker::channel::Channel;
use crate::broker::clock::now_millis;
use crate::broker::core_tests::support::message;
use crate::broker::store::NewMessage;

/// The content of a message: who it is.
fn body((producer, number): Id) -> String {
    // Most have one size, so that what is left of one may be taken for another.
    let filling = if number % 4 == 0 { number * 17 % 400 } else { 20 };
    format!("{producer}/{number}/{}", "x".repeat(filling as usize))
}

/// Who a message is.
pub(super) fn id(content: &[u8]) -> Id {
    let text = std::str::from_utf8(content).unwrap();
    let mut parts = text.split('/');
    let id = (
        parts.next().unwrap().parse().unwrap(),
        parts.next().unwrap().parse().unwrap(),
    );
    assert_eq!(text, body(id), "damaged");
    id
}

/// The key of a message: a few of them, which several publishers have.
pub(super) fn key((_, number): Id) -> u64 {
    number % 3
}

/// Publishes batches, each until it is acknowledged, until the storm is over.
pub(super) async fn publish(world: Rc<World>, number: u32) {
    world.working.set(world.working.get() + 1);
    // Every third one has no producer id.
    let number = if number % 3 == 2 {
        WITHOUT_ID + number
    } else {
        number
    };
    let mut next = 0;
    while world.stage() == Stage::Storm {
        let count = u64::from(1 + world.below(4));
        let ids: Vec<Id> = (next..next + count).map(|n| (number, n)).collect();
        next += count;
        let partition = world.below(PARTITIONS as u32) as usize;
        send(&world, partition, &ids).await;
        world.pause(20).await;
    }
    world.working.set(world.working.get() - 1);
}

fn keyed(id: Id) -> NewMessage {
    NewMessage {
        key: key(id).to_string().into(),
        ..message(id.1 + 1, &body(id))
    }
}

/// Appends a batch until it is acknowledged.
pub(super) async fn send(world: &World, index: usize, ids: &[Id]) {
    let indexes: Vec<usize> = ids
        .iter()
        .map(|id| world.history.append_begins(*id, index as u32))
        .collect();
    let producer = match ids[0].0 {
        number if number < WITHOUT_ID => format!("producer-{number}"),
        _ => String::new(),
    };
    let messages: Vec<NewMessage> = ids.iter().map(|id| keyed(*id)).collect();
    let began = now_millis();
    loop {
        // Not everybody has heard yet who owns it.
        let broker = match world.below(10) {
            0 => world.some_broker(),
            _ => world.owner(index),
        };
        let (store, boot) = world.store(broker);
        let channel = Channel::new(1000);
        let permit = channel.enter(messages.len() as u32, 1, Instant::now()).await;
        let ticket = partition(&store, index).append(messages.clone(), &producer, permit);
        drop(store);
        if let Ok(ticket) = ticket {
            // Sometimes the connection breaks first: the batch is repeated while the first one is still queued.
            let patience = if world.below(6) == 0 {
                world.below(20)
            } else {
                100_000
            };
            let stored = select(Box::pin(ticket.done()), Box::pin(turns(patience)));
            if let Some(Either::Left((Ok(appended), _))) = world.alive(broker, boot, stored).await {
                assert_eq!(appended.len(), ids.len());
                for (at, appended) in indexes.iter().zip(appended) {
                    world.history.append_acked(*at, Some(appended.offset.0), None);
                    let place = (index as u32, appended.offset.0);
                    world.published.borrow_mut().insert(place, began);
                }
                return;
            }
        }
        world.pause(20).await;
        turns(1).await;
    }
}
