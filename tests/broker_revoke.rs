//! A member that joins is served its share, whatever the others have prefetched.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

#[path = "support/broker.rs"]
mod broker;

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{PATIENCE, Publisher, Subscriber, TestBroker, Wanted, payload};
use sluice::client::{Client, ClientOptions, Delivery};
use sluice::pb;
use sluice::pb::subscribe_response::Response;

const ALL: usize = 1000;

/// `ALL` messages over all partitions of `orders`.
async fn publish(broker: &TestBroker, partitions: u32) {
    let mut publisher = Publisher::orders(broker).await;
    for first in (1..=ALL as u64).step_by(100) {
        let batch = (first..first + 100).map(|sequence| pb::Payload {
            partition: Some(sequence as u32 % partitions),
            ..payload(sequence, b"hello")
        });
        publisher.send(batch.collect());
        publisher.acked(first + 99).await;
    }
    publisher.finish().await;
}

async fn cluster(count: usize, ack_deadline: i64) -> Vec<TestBroker> {
    let mut brokers = Vec::new();
    for index in 0..count {
        brokers.push(TestBroker::start(&format!("orders-{index}"), &[]).await);
    }
    let all: Vec<&TestBroker> = brokers.iter().collect();
    let mut wanted = Wanted::spread(&all, 2 * count as u32);
    wanted.configuration.topics[0].ack_deadline = Some(prost_types::Duration {
        seconds: ack_deadline,
        nanos: 0,
    });
    wanted.apply(&all).await;
    publish(&brokers[0], 2 * count as u32).await;
    brokers
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("{what}: never");
    }
}

async fn client(brokers: &[TestBroker], forward: bool) -> Client {
    let options = ClientOptions {
        forward,
        ..ClientOptions::default()
    };
    Client::connect_with(brokers.iter().map(|broker| broker.data.to_string()), options)
        .await
        .unwrap()
}

/// One member prefetches everything and begins with `begun` messages; another joins and gets its share. In the end
/// everything was delivered once, and nothing was counted twice.
async fn a_hoarder_gives_back(brokers: &[TestBroker], forward: bool, begun: usize) {
    let client = client(brokers, forward).await;
    let mut hoarder = client
        .subscriber("orders", "all")
        .credit(2000, 64 << 20)
        .open()
        .await
        .unwrap();
    eventually("the hoarder has it all", || {
        hoarder.stats().received == ALL as u64
    })
    .await;
    let mut taken = Vec::new();
    while taken.len() < begun {
        taken.extend(hoarder.next_batch(begun - taken.len()).await.unwrap());
    }
    let joins = std::time::Instant::now();
    let mut joiner = client
        .subscriber("orders", "all")
        .credit(2000, 64 << 20)
        .open()
        .await
        .unwrap();
    // One of each broker may be left by rounding.
    let share = ALL / 2 - 2 * brokers.len();
    eventually("the joiner has its share", || {
        joiner.stats().received >= share as u64
    })
    .await;
    println!(
        "{} brokers, forwarded: {forward}: its share of {share} messages {:?} after it began to join",
        brokers.len(),
        joins.elapsed()
    );
    assert!(hoarder.stats().revoked >= share as u64);
    let mut offsets = BTreeSet::new();
    let mut counts = BTreeSet::new();
    let mut see = |delivery: Delivery| {
        assert!(
            offsets.insert((delivery.partition, delivery.offset)),
            "twice: {delivery:?}"
        );
        counts.insert(delivery.delivery_count);
        delivery.ack();
        offsets.len()
    };
    let mut seen = 0;
    for delivery in taken {
        seen = see(delivery);
    }
    while seen < ALL {
        let batch = tokio::time::timeout(PATIENCE, async {
            tokio::select! {
                batch = hoarder.next_batch(50) => batch.unwrap(),
                batch = joiner.next_batch(50) => batch.unwrap(),
            }
        });
        for delivery in batch.await.expect("messages come") {
            seen = see(delivery);
        }
    }
    assert_eq!(counts, BTreeSet::from([1]), "giving back is not counted");
    hoarder.close().await;
    joiner.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_joins_gets_its_share_of_what_another_prefetched() {
    a_hoarder_gives_back(&cluster(1, 60).await, false, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_application_has_begun_with_stays_with_it() {
    a_hoarder_gives_back(&cluster(1, 60).await, false, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_is_given_at_every_owner() {
    a_hoarder_gives_back(&cluster(3, 60).await, false, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_is_given_through_a_broker_that_forwards() {
    a_hoarder_gives_back(&cluster(3, 60).await, true, 100).await;
}

#[tokio::test]
async fn a_client_that_ignores_a_revoke_keeps_its_messages_until_their_deadline() {
    let brokers = cluster(1, 3).await;
    let mut hoarder = Subscriber::orders(&brokers[0], "all").await;
    hoarder.credit(ALL as u64);
    let held = hoarder.take(ALL).await;
    let mut joiner = Subscriber::orders(&brokers[0], "all").await;
    joiner.credit(2 * ALL as u64);
    let mut asked = BTreeSet::new();
    while asked.len() < ALL / 2 {
        if let Some(Response::Revoke(revoke)) = hoarder.next().await.unwrap() {
            asked.extend(revoke.tokens);
        }
    }
    let tokens: BTreeSet<_> = held.iter().map(|one| one.token.clone()).collect();
    assert!(asked.is_subset(&tokens));
    // Its answers still count: it keeps what it was asked for.
    let settled = hoarder.ack(&held[..10]).await;
    assert_eq!((settled.settled.len(), settled.refused.len()), (10, 0));
    let got = joiner.take(ALL - 10).await;
    assert!(
        got.iter().all(|one| one.delivery_count == 2),
        "after the deadline"
    );
    let late = hoarder.ack(&held[10..11]).await;
    assert_eq!(late.refused.len(), 1);
}
