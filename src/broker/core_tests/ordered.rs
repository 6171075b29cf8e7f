//! Ordered groups: one message of a key at a time, whatever happens to members, brokers and partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::support::*;
use crate::broker::group::{Answer, Delivered, JoinError, Member, Order, Start};
use crate::broker::store::{NewMessage, Store};

const KEYS: u64 = 5;

fn join(store: &Arc<Store>) -> Member {
    Member::join_in(store, "orders", "g", Start::Earliest, Order::ByKey).unwrap()
}

/// `n` of key `n % KEYS`.
fn keyed(n: u64) -> NewMessage {
    NewMessage {
        key: Bytes::from(format!("key-{}", n % KEYS)),
        ..message(n, &n.to_string())
    }
}

/// What a consumer may see: of each key one message at a time, and the next one when it is done.
#[derive(Debug, Default)]
struct Oracle {
    done: BTreeSet<u64>,
    /// At members: which one, and the token.
    out: BTreeMap<u64, (usize, Bytes)>,
}

impl Oracle {
    fn delivered(&mut self, member: usize, delivered: &[Delivered]) {
        for one in delivered {
            let n = one.message.sequence;
            assert!(!self.done.contains(&n), "{n} was done");
            let earlier = (n % KEYS..n).step_by(KEYS as usize);
            for earlier in earlier {
                assert!(self.done.contains(&earlier), "{n} came before {earlier} was done");
            }
            let before = self.out.insert(n, (member, one.token.clone()));
            assert_eq!(before, None, "{n} is at two members");
        }
    }
}

/// What is there for a member now.
async fn there(member: &mut Member) -> Vec<Delivered> {
    let wait = tokio::time::timeout(Duration::from_millis(20), deliveries(member, ALL));
    wait.await.unwrap_or_default()
}

async fn random(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut directory = tempfile::tempdir().unwrap();
    let mut store = simple(directory.path(), 1);
    let mut members = vec![join(&store), join(&store)];
    let mut oracle = Oracle::default();
    let mut next = 0;
    for _ in 0..150 {
        match random.random_range(0..20) {
            0..6 => {
                let count = random.random_range(1..12);
                let batch = (next..next + count).map(keyed).collect();
                append(&partition(&store, 0), "", batch).await.unwrap();
                next += count;
            }
            6..12 => {
                let index = random.random_range(0..2);
                let delivered = there(&mut members[index]).await;
                oracle.delivered(index, &delivered);
            }
            12..18 => {
                for (n, (index, token)) in std::mem::take(&mut oracle.out) {
                    let answer = match random.random_range(0..6) {
                        0..3 => Answer::Ack,
                        3 => Answer::Nack(Duration::ZERO),
                        4 => Answer::Nack(Duration::from_millis(random.random_range(1..150))),
                        _ => Answer::GiveBack(Duration::ZERO),
                    };
                    let is_ack = answer == Answer::Ack;
                    assert_eq!(members[index].settle(vec![(token, answer)]).await, [Ok(())]);
                    if is_ack {
                        oracle.done.insert(n);
                    }
                }
            }
            18 => {
                let index = random.random_range(0..2);
                members[index] = join(&store);
                oracle.out.retain(|_, (at, _)| *at != index);
            }
            _ => {
                let copy = snapshot(directory.path());
                members.clear();
                close(store).await;
                directory = copy;
                store = simple(directory.path(), 1);
                members = vec![join(&store), join(&store)];
                oracle.out.clear();
            }
        }
    }
    members.truncate(1);
    oracle.out.retain(|_, (at, _)| *at == 0);
    until("all is done", async || {
        let delivered = there(&mut members[0]).await;
        oracle.delivered(0, &delivered);
        let answers = std::mem::take(&mut oracle.out);
        for (n, (_, token)) in answers {
            assert_eq!(members[0].settle(vec![(token, Answer::Ack)]).await, [Ok(())]);
            oracle.done.insert(n);
        }
        oracle.done.len() as u64 == next
    })
    .await;
    drop(members);
    close(store).await;
}

#[tokio::test]
async fn a_key_comes_in_order_whatever_members_and_the_broker_do() {
    for seed in 0..8 {
        random(seed).await;
    }
}

#[tokio::test]
async fn a_key_goes_on_in_order_at_the_next_owner() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let a = open(directories[0].path(), "a");
    let b = open(directories[1].path(), "b");
    let wire = Arc::new(Wire::default());
    wire.join("a", &a);
    wire.join("b", &b);
    place(&a, "a", 1, vec![chain_entry(1, "a", None)]);
    append(&partition(&a, 0), "", (0..20).map(keyed).collect())
        .await
        .unwrap();
    let mut member = join(&a);
    let first = take(&mut member, 5).await;
    assert_eq!(texts(&first), ["0", "1", "2", "3", "4"]);
    // Key 0 is done twice, key 1 is done once and its next one is out, the others are out.
    ack(&member, &first[..2]).await;
    let second = take(&mut member, 2).await;
    assert_eq!(texts(&second), ["5", "6"]);
    ack(&member, &second[..1]).await;
    let sealed_at = a.seal(&entry(0, 1)).await.unwrap();
    let chain = vec![chain_entry(1, "a", Some(sealed_at)), chain_entry(2, "b", None)];
    place(&b, "b", 1, chain.clone());
    place(&a, "a", 2, chain);
    let mut oracle = Oracle::default();
    oracle.done.extend([0, 1, 5]);
    let mut member = join(&b);
    until("it takes messages", async || {
        let batch = (20..30).map(keyed).collect();
        append(&partition(&b, 0), "", batch).await.is_ok()
    })
    .await;
    until("all is done", async || {
        let delivered = there(&mut member).await;
        oracle.delivered(0, &delivered);
        for (n, (_, token)) in std::mem::take(&mut oracle.out) {
            assert_eq!(member.settle(vec![(token, Answer::Ack)]).await, [Ok(())]);
            oracle.done.insert(n);
        }
        oracle.done.len() == 30
    })
    .await;
}

#[tokio::test]
async fn a_stuck_key_and_messages_without_a_key_do_not_hold_each_other_up() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    let batch = (0..3000).map(|n| match n % 3 {
        0 => NewMessage {
            key: Bytes::from_static(b"stuck"),
            ..message(n, "stuck")
        },
        1 => message(n, "free"),
        _ => NewMessage {
            key: Bytes::from(n.to_string()),
            ..message(n, "keyed")
        },
    });
    append(&partition(&store, 0), "", batch.collect()).await.unwrap();
    let mut member = join(&store);
    let got = take(&mut member, 2001).await;
    assert_eq!(texts(&got).iter().filter(|text| *text == "stuck").count(), 1);
    assert!(nothing_comes(&mut member).await);
    let stuck: Vec<_> = got
        .iter()
        .filter(|one| one.message.sequence == 0)
        .cloned()
        .collect();
    ack(&member, &stuck).await;
    let next = take(&mut member, 1).await;
    assert_eq!(next[0].message.sequence, 3);
}

#[tokio::test]
async fn members_of_a_group_want_the_same_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    append(&partition(&store, 0), "", (0..10).map(keyed).collect())
        .await
        .unwrap();
    let mut free = Member::join(&store, "orders", "g", Start::Earliest).unwrap();
    let mixed = Member::join_in(&store, "orders", "g", Start::Earliest, Order::ByKey);
    assert!(matches!(mixed, Err(JoinError::Mixed { has: false, .. })));
    assert_eq!(take(&mut free, 10).await.len(), 10);
    drop(free);
    // When those have left, the others may come.
    let mut ordered = join(&store);
    assert_eq!(take(&mut ordered, 5).await.len(), 5);
    assert!(nothing_comes(&mut ordered).await);
}
