//! What a subscriber keeps to, whatever the brokers do to it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

mod client_support;

use std::collections::HashMap;
use std::time::Duration;

use client_support::{Cluster, TOPIC, eventually};
use sluice::client::{Client, Delivery, Message, SubscribeError, Subscriber};

async fn connect(cluster: &Cluster) -> Client {
    Client::connect(cluster.addresses()).await.unwrap()
}

async fn publish(client: &Client, count: usize) {
    let publisher = client.publisher(TOPIC).open();
    for number in 0..count {
        publisher
            .publish(Message::new(number.to_string()).key(number.to_string()))
            .await
            .unwrap();
    }
    publisher.close().await.unwrap();
}

async fn take(subscriber: &mut Subscriber, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = subscriber.next_batch(count - taken.len());
        taken.extend(
            tokio::time::timeout(Duration::from_secs(20), next)
                .await
                .unwrap()
                .unwrap(),
        );
    }
    taken
}

fn undone(cluster: &Cluster) -> usize {
    let state = cluster.state.lock();
    let of_group = |partition: usize| {
        let group = state.groups.get(&("g".to_owned(), partition));
        let done = group.map_or(0, |group| group.cursor - group.out.len() - group.again.len());
        state.logs[partition].len() - done
    };
    (0..state.logs.len()).map(of_group).sum()
}

#[tokio::test]
async fn messages_of_all_owners_come_in_order_with_little_credit_and_are_done_when_acked() {
    let cluster = Cluster::start(3, 6).await;
    let client = connect(&cluster).await;
    publish(&client, 600).await;
    let mut subscriber = client
        .subscriber(TOPIC, "g")
        .credit(7, 1 << 20)
        .open()
        .await
        .unwrap();
    let mut last: HashMap<u32, u64> = HashMap::new();
    for _ in 0..600 {
        let delivery = take(&mut subscriber, 1).await.remove(0);
        let before = last.insert(delivery.partition, delivery.offset);
        assert!(before < Some(delivery.offset), "{delivery:?} after {before:?}");
        delivery.ack();
    }
    subscriber.close().await;
    assert_eq!(undone(&cluster), 0);
}

#[tokio::test]
async fn a_dropped_delivery_gives_its_credit_back() {
    let cluster = Cluster::start(1, 1).await;
    let client = connect(&cluster).await;
    publish(&client, 50).await;
    let mut subscriber = client
        .subscriber(TOPIC, "g")
        .credit(4, 1 << 20)
        .open()
        .await
        .unwrap();
    for _ in 0..50 {
        drop(take(&mut subscriber, 1).await);
    }
    assert_eq!(subscriber.stats().received, 50);
}

#[tokio::test]
async fn a_move_neither_loses_nor_reorders_what_the_caller_sees() {
    let cluster = Cluster::start(3, 3).await;
    let client = connect(&cluster).await;
    let mut subscriber = client.subscriber(TOPIC, "g").open().await.unwrap();
    let publisher = client.publisher(TOPIC).open();
    let mut seen: HashMap<u32, Vec<u64>> = HashMap::new();
    for round in 0..12_usize {
        for number in 0..100_u32 {
            let key = number.to_string();
            publisher
                .publish(Message::new(key.clone()).key(key))
                .await
                .unwrap();
        }
        cluster.give(round % 3, (round + 1) % 3, true);
        for delivery in take(&mut subscriber, 40).await {
            seen.entry(delivery.partition).or_default().push(delivery.offset);
            delivery.ack();
        }
    }
    publisher.close().await.unwrap();
    let count = |seen: &HashMap<u32, Vec<u64>>| {
        let distinct = |offsets: &Vec<u64>| offsets.iter().collect::<std::collections::HashSet<_>>().len();
        seen.values().map(distinct).sum::<usize>()
    };
    while count(&seen) < 1200 {
        let delivery = take(&mut subscriber, 1).await.remove(0);
        seen.entry(delivery.partition).or_default().push(delivery.offset);
        delivery.ack();
    }
    for (partition, offsets) in &mut seen {
        let mut first = std::collections::HashSet::new();
        offsets.retain(|offset| first.insert(*offset));
        assert!(offsets.is_sorted(), "partition {partition}: {offsets:?}");
    }
    subscriber.close().await;
    assert_eq!(undone(&cluster), 0);
}

#[tokio::test]
async fn a_nack_brings_the_message_again_with_a_higher_count() {
    let cluster = Cluster::start(1, 1).await;
    let client = connect(&cluster).await;
    publish(&client, 1).await;
    let mut subscriber = client.subscriber(TOPIC, "g").open().await.unwrap();
    for count in 1..4 {
        let delivery = take(&mut subscriber, 1).await.remove(0);
        assert_eq!(delivery.delivery_count, count);
        delivery.nack(Duration::ZERO);
    }
    take(&mut subscriber, 1).await.remove(0).give_up();
    subscriber.close().await;
    assert_eq!(undone(&cluster), 0);
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_counted() {
    let cluster = Cluster::start(2, 1).await;
    let client = connect(&cluster).await;
    publish(&client, 3).await;
    let mut subscriber = client.subscriber(TOPIC, "g").open().await.unwrap();
    let deliveries = take(&mut subscriber, 3).await;
    cluster.give(0, 1, true);
    deliveries.into_iter().for_each(Delivery::ack);
    eventually("stale", || subscriber.stats().stale == 3).await;
    take(&mut subscriber, 3).await.into_iter().for_each(Delivery::ack);
    eventually("done", || undone(&cluster) == 0).await;
}

#[tokio::test]
async fn closing_gives_back_what_the_caller_never_saw() {
    let cluster = Cluster::start(2, 4).await;
    let client = connect(&cluster).await;
    publish(&client, 100).await;
    let mut first = client.subscriber(TOPIC, "g").open().await.unwrap();
    take(&mut first, 10).await.into_iter().for_each(Delivery::ack);
    first.close().await;
    assert_eq!(undone(&cluster), 90);
    let mut second = client.subscriber(TOPIC, "g").open().await.unwrap();
    take(&mut second, 90).await.into_iter().for_each(Delivery::ack);
    second.close().await;
    assert_eq!(undone(&cluster), 0);
}

#[tokio::test]
async fn one_address_is_enough_where_brokers_forward() {
    let cluster = Cluster::start(3, 6).await;
    publish(&connect(&cluster).await, 60).await;
    let options = sluice::client::ClientOptions {
        forward: true,
        ..sluice::client::ClientOptions::default()
    };
    let client = Client::connect_with(cluster.addresses().into_iter().take(1), options)
        .await
        .unwrap();
    let mut subscriber = client.subscriber(TOPIC, "g").open().await.unwrap();
    take(&mut subscriber, 60)
        .await
        .into_iter()
        .for_each(Delivery::ack);
    subscriber.close().await;
    assert_eq!(undone(&cluster), 0);
}

#[tokio::test]
async fn a_refusal_for_good_is_an_error_and_a_missing_topic_one_in_time() {
    let cluster = Cluster::start(1, 1).await;
    let client = connect(&cluster).await;
    let refused = client.subscriber(TOPIC, "").open().await;
    assert!(matches!(refused, Err(SubscribeError::Refused { .. })));
    let missing = client
        .subscriber("other", "g")
        .open_timeout(Duration::from_millis(500))
        .open()
        .await;
    let error = missing.unwrap_err();
    assert!(
        error.to_string().contains("topic other does not exist"),
        "{error}"
    );
}
