//! What a publisher keeps to, whatever the brokers do to it.

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
use sluice::api::partitioner::partition_for_key;
use sluice::client::{Client, Message, PublishError, Publisher, Receipt};
use tonic::Code;

async fn connect(cluster: &Cluster) -> Client {
    Client::connect(cluster.addresses()).await.unwrap()
}

async fn publish(publisher: &Publisher, numbers: std::ops::Range<u32>) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for number in numbers {
        let message = Message::new(number.to_string()).key(format!("key-{}", number % 13));
        receipts.push(publisher.publish(message).await.unwrap());
    }
    receipts
}

async fn all_stored(receipts: Vec<Receipt>) {
    for receipt in receipts {
        tokio::time::timeout(Duration::from_secs(20), receipt)
            .await
            .unwrap()
            .unwrap();
    }
}

/// Every message once, in its partition, in order.
fn assert_once_and_in_order(cluster: &Cluster, partitions: usize, count: usize) {
    cluster.check();
    assert_eq!(cluster.stored(), count);
    for partition in 0..partitions {
        let log = cluster.log(partition);
        assert!(
            log.is_sorted_by_key(|record| record.sequence),
            "partition {partition}: {log:?}"
        );
        let is_here = |key: &[u8]| partition_for_key(key, partitions as u32) as usize == partition;
        assert!(log.iter().all(|record| is_here(&record.key)));
    }
}

#[tokio::test]
async fn messages_go_to_their_owners_by_key_and_receipts_say_where() {
    let cluster = Cluster::start(3, 8).await;
    let publisher = connect(&cluster).await.publisher(TOPIC).open();
    let receipt = publisher
        .publish(Message::new("x").key("21").header("a", "b"))
        .await
        .unwrap();
    let stored = receipt.await.unwrap();
    assert_eq!(
        (stored.partition, stored.offset, stored.exact),
        (partition_for_key(b"21", 8), 1, true)
    );
    all_stored(publish(&publisher, 0..500).await).await;
    publisher.close().await.unwrap();
    assert_once_and_in_order(&cluster, 8, 501);
}

#[tokio::test]
async fn order_within_a_partition_survives_throttling() {
    let cluster = Cluster::start(2, 4).await;
    let publisher = connect(&cluster)
        .await
        .publisher(TOPIC)
        .producer_id("p")
        .batch(7, 1 << 20)
        .open();
    let mut receipts = publish(&publisher, 0..100).await;
    for round in 1..10 {
        cluster.set(|faults| faults.throttle = 3);
        receipts.extend(publish(&publisher, round * 100..round * 100 + 100).await);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    all_stored(receipts).await;
    assert!(publisher.stats().throttles > 0);
    assert_once_and_in_order(&cluster, 4, 1000);
}

#[tokio::test]
async fn order_within_a_partition_survives_moves_that_clients_hear_of_or_not() {
    let cluster = Cluster::start(3, 6).await;
    cluster.set(|faults| faults.ack_delay = Duration::from_millis(1));
    let publisher = connect(&cluster).await.publisher(TOPIC).batch(5, 1 << 20).open();
    let mut receipts = Vec::new();
    for round in 0..20_u32 {
        receipts.extend(publish(&publisher, round * 100..round * 100 + 100).await);
        cluster.give(round as usize % 6, (round as usize + 1) % 3, round % 2 == 0);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    all_stored(receipts).await;
    assert!(publisher.stats().moves > 0);
    // No producer id, and still once: a move is not a lost connection.
    assert_once_and_in_order(&cluster, 6, 2000);
}

#[tokio::test]
async fn order_survives_lost_connections_and_a_producer_id_makes_it_once() {
    let cluster = Cluster::start(2, 4).await;
    cluster.set(|faults| faults.ack_delay = Duration::from_millis(2));
    let publisher = connect(&cluster)
        .await
        .publisher(TOPIC)
        .producer_id("p")
        .batch(9, 1 << 20)
        .open();
    let mut receipts = Vec::new();
    for round in 0..10 {
        receipts.extend(publish(&publisher, round * 100..round * 100 + 100).await);
        cluster.cut_streams();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    all_stored(receipts).await;
    let stats = publisher.stats();
    assert!(stats.reconnects > 0 && stats.resent > 0, "{stats:?}");
    assert_once_and_in_order(&cluster, 4, 1000);
}

#[tokio::test]
async fn without_a_producer_id_a_lost_connection_may_duplicate_and_never_loses() {
    let cluster = Cluster::start(1, 1).await;
    // No ack comes before the connection is lost, however busy the machine is.
    cluster.set(|faults| faults.ack_delay = Duration::from_secs(5));
    let publisher = connect(&cluster).await.publisher(TOPIC).open();
    let receipts = publish(&publisher, 0..50).await;
    eventually("some are stored", || cluster.stored() > 0).await;
    cluster.cut_streams();
    cluster.set(|faults| faults.ack_delay = Duration::from_millis(1));
    all_stored(receipts).await;
    let mut copies = HashMap::new();
    cluster
        .log(0)
        .iter()
        .for_each(|record| *copies.entry(record.sequence).or_insert(0) += 1);
    assert_eq!(copies.len(), 50);
    assert!(copies.values().any(|count| *count > 1));
}

#[tokio::test]
async fn credit_is_never_exceeded_in_messages_or_bytes() {
    for credit in [(1, 1 << 20), (10, 1 << 20), (1000, 300)] {
        let cluster = Cluster::start(2, 4).await;
        cluster.set(|faults| {
            faults.credit = credit;
            faults.ack_delay = Duration::from_millis(1);
        });
        let publisher = connect(&cluster).await.publisher(TOPIC).open();
        all_stored(publish(&publisher, 0..200).await).await;
        assert_once_and_in_order(&cluster, 4, 200);
    }
}

#[tokio::test]
async fn a_broker_is_told_what_waits_for_it_although_little_may_be_sent() {
    let cluster = Cluster::start(1, 4).await;
    cluster.set(|faults| {
        faults.credit = (1, 1 << 20);
        faults.ack_delay = Duration::from_millis(1);
    });
    let publisher = connect(&cluster).await.publisher(TOPIC).open();
    all_stored(publish(&publisher, 0..200).await).await;
    let (mut told, mut sent, mut waiting) = (0, 0, 0);
    for (offered, messages) in cluster.state.lock().told.clone() {
        told += offered;
        sent += messages;
        assert!(told >= sent, "{told} told, {sent} sent");
        waiting = waiting.max(told - sent);
    }
    assert_eq!((told, sent), (200, 200));
    assert!(waiting > 100, "{waiting}");
}

#[tokio::test]
async fn a_bad_message_fails_alone_with_the_brokers_words() {
    let cluster = Cluster::start(1, 2).await;
    cluster.set(|faults| faults.reject = Some("bad".into()));
    let publisher = connect(&cluster).await.publisher(TOPIC).open();
    let mut receipts = Vec::new();
    for body in ["one", "bad", "two"] {
        receipts.push(publisher.publish(Message::new(body)).await.unwrap());
    }
    let too_large = publisher.publish(Message::new(vec![0; 200_000])).await.unwrap();
    let unknown = publisher.publish(Message::new("x").partition(9)).await.unwrap();
    let mut results = Vec::new();
    for receipt in receipts {
        results.push(receipt.await);
    }
    assert!(results[0].is_ok() && results[2].is_ok());
    let rejected = results.remove(1).unwrap_err();
    assert!(
        matches!(&rejected, PublishError::Rejected { code: Code::InvalidArgument, text } if text == "this body is bad"),
        "{rejected}"
    );
    assert!(matches!(
        too_large.await,
        Err(PublishError::TooLarge {
            bytes: 200_000,
            limit: 100_000
        })
    ));
    assert!(matches!(
        unknown.await,
        Err(PublishError::Rejected {
            code: Code::InvalidArgument,
            ..
        })
    ));
}

#[tokio::test]
async fn a_full_buffer_makes_the_caller_wait_and_dropping_the_wait_publishes_nothing() {
    let cluster = Cluster::start(1, 1).await;
    cluster.set(|faults| faults.ack_delay = Duration::from_millis(300));
    let publisher = connect(&cluster).await.publisher(TOPIC).buffer(3, 1 << 20).open();
    let receipts = publish(&publisher, 0..3).await;
    assert_eq!((publisher.room(), publisher.stats().unacknowledged), (0, 3));
    let wait = publisher.publish(Message::new("waits"));
    assert!(
        tokio::time::timeout(Duration::from_millis(50), wait)
            .await
            .is_err()
    );
    all_stored(receipts).await;
    all_stored(publish(&publisher, 3..6).await).await;
    publisher.close().await.unwrap();
    assert_eq!(cluster.stored(), 6);
}

#[tokio::test]
async fn messages_wait_for_a_topic_that_is_made_on_demand() {
    let cluster = Cluster::start(1, 2).await;
    cluster.set(|faults| faults.topic_exists = false);
    let publisher = connect(&cluster).await.publisher(TOPIC).open();
    let receipts = publish(&publisher, 0..10).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.set(|faults| faults.topic_exists = true);
    all_stored(receipts).await;
}

#[tokio::test]
async fn a_topic_that_never_comes_fails_its_messages_with_not_found() {
    let cluster = Cluster::start(1, 1).await;
    let publisher = connect(&cluster).await.publisher("other");
    let publisher = publisher
        .delivery_timeout(Some(Duration::from_millis(700)))
        .open();
    let receipt = publisher.publish(Message::new("x")).await.unwrap();
    let error = receipt.await.unwrap_err();
    assert!(
        matches!(
            error,
            PublishError::Refused {
                code: Code::NotFound,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_stream_that_is_refused_for_good_fails_everything_with_the_reason() {
    let cluster = Cluster::start(1, 1).await;
    let publisher = connect(&cluster).await.publisher(TOPIC).producer_id("bad").open();
    for _ in 0..2 {
        let receipt = publisher.publish(Message::new("x")).await.unwrap();
        let error = receipt.await.unwrap_err();
        assert!(
            matches!(
                error,
                PublishError::Refused {
                    code: Code::InvalidArgument,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[tokio::test]
async fn dropping_a_publisher_ends_its_streams_and_its_receipts() {
    let cluster = Cluster::start(1, 1).await;
    cluster.set(|faults| faults.ack_delay = Duration::from_secs(5));
    let publisher = connect(&cluster).await.publisher(TOPIC).open();
    let receipt = publisher.publish(Message::new("x")).await.unwrap();
    drop(publisher);
    assert!(matches!(receipt.await, Err(PublishError::Closed)));
}

#[tokio::test]
async fn nobody_at_the_address_is_said_in_time() {
    let options = sluice::client::ClientOptions {
        topology_timeout: Duration::from_millis(500),
        ..sluice::client::ClientOptions::default()
    };
    let error = Client::connect_with(["127.0.0.1:1"], options).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(
        Client::connect(["localhost"])
            .await
            .is_err_and(|e| e.to_string().contains("no port"))
    );
    assert!(Client::connect(Vec::<String>::new()).await.is_err());
}
