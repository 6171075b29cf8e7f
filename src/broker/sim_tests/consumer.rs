//! Members of groups: they acknowledge, give back, forget, answer late, and leave.

use std::rc::Rc;

use bytes::Bytes;
use futures::future::{Either, select};

use super::BY_KEY;
use super::history::{Answer, Delivery, Outcome};
use super::producer::id;
use super::scheduler::turns;
use super::world::{Stage, World};
use crate::broker::group::{self, Budget, Delivered, Member, Next, Order, Refused, Start};
use crate::broker::store::Offset;

/// A delivery in hand: its index in the history, and its token.
type Held = (usize, Bytes);

pub(super) async fn consume(world: Rc<World>, broker: usize, group: &'static str) {
    // Deliveries that are answered later, by whatever member this is then.
    let mut late: Vec<Held> = Vec::new();
    loop {
        let (store, boot) = world.store(broker);
        let order = if group == BY_KEY {
            Order::ByKey
        } else {
            Order::None
        };
        let member = Member::join_in(&store, "orders", group, Start::Offset(Offset(0)), order).unwrap();
        drop(store);
        let session = session(&world, boot, group, member, &mut late);
        // Where the broker dies, what is on its way is never answered.
        world.alive(broker, boot, session).await;
        world.pause(10).await;
        turns(1).await;
    }
}

async fn session(world: &World, boot: u64, group: &str, mut member: Member, late: &mut Vec<Held>) {
    let began = world.stage();
    while world.stage() == began && world.below(30) != 0 {
        let budget = Budget {
            messages: u64::from(1 + world.below(20)),
            bytes: 1 << 20,
        };
        let since = world.history.now();
        let patience = Box::pin(turns(50));
        let next = match select(Box::pin(member.next(budget)), patience).await {
            Either::Left((next, _)) => next,
            Either::Right(_) => continue,
        };
        match next {
            Next::Deliveries(delivered) => answer(world, group, &member, delivered, since, late).await,
            Next::Unavailable(..) => turns(5).await,
            Next::Gone => panic!("the topic is gone in boot {boot}"),
        }
        world.pause(5).await;
    }
}

/// An answer whose outcome stays unknown unless it is told.
struct Pending<'a> {
    world: &'a World,
    indexes: Vec<usize>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        for index in self.indexes.drain(..) {
            self.world.history.settle_ends(index, Outcome::Unknown);
        }
    }
}

async fn answer(
    world: &World,
    group: &str,
    member: &Member,
    delivered: Vec<Delivered>,
    began: std::time::Duration,
    late: &mut Vec<Held>,
) {
    let draining = world.stage() >= Stage::Draining;
    let mut answers = Vec::new();
    if late.len() > 8 {
        answers.extend(late.drain(..4).map(|(index, token)| (index, token, Answer::Ack)));
    }
    for one in delivered {
        let index = world.history.delivered(Delivery {
            group: group.to_owned(),
            id: id(&one.message.body),
            partition: one.partition,
            offset: one.message.offset.0,
            began,
            received: world.history.now(),
        });
        match world.below(20) {
            0 if !draining => {
                answers.push((index, one.token.clone(), Answer::Nack));
                late.push((index, one.token));
            }
            1 if !draining => late.push((index, one.token)),
            2 if !draining && world.below(4) == 0 => answers.push((index, one.token, Answer::GiveUp)),
            _ => answers.push((index, one.token, Answer::Ack)),
        }
    }
    if answers.is_empty() {
        return;
    }
    let mut pending = Pending {
        world,
        indexes: Vec::new(),
    };
    let mut wire = Vec::new();
    for (index, token, answer) in answers {
        pending.indexes.push(world.history.settle_begins(index, answer));
        let answer = match answer {
            Answer::Ack => group::Answer::Ack,
            Answer::Nack => group::Answer::Nack(std::time::Duration::ZERO),
            Answer::GiveUp => group::Answer::GiveUp,
        };
        wire.push((token, answer));
    }
    let results = member.settle(wire).await;
    assert_eq!(results.len(), pending.indexes.len());
    for (index, result) in std::mem::take(&mut pending.indexes).into_iter().zip(results) {
        let outcome = match result {
            Ok(()) => Outcome::Confirmed,
            Err(Refused::Stale) => Outcome::Stale,
            Err(Refused::Log(_)) => Outcome::Unknown,
            Err(Refused::Malformed) => panic!("a token of ours is none"),
        };
        world.history.settle_ends(index, outcome);
    }
}
