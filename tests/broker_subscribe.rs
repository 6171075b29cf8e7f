//! What subscribers are promised.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

#[path = "support/broker.rs"]
mod broker;

use std::time::Duration;

use broker::{Publisher, Subscriber, TestBroker, Wanted, one_broker, payload};
use sluice::pb;
use sluice::pb::subscribe_response::Response;
use tonic::Code;

async fn publish(broker: &TestBroker, count: u64) {
    let mut publisher = Publisher::orders(broker).await;
    publisher.send((1..=count).map(|sequence| payload(sequence, b"hello")).collect());
    publisher.acked(count).await;
    publisher.finish().await;
}

fn open(group: &str) -> pb::SubscribeOpen {
    pb::SubscribeOpen {
        topic: "orders".to_owned(),
        group: group.to_owned(),
        ..pb::SubscribeOpen::default()
    }
}

#[tokio::test]
async fn no_more_is_delivered_than_the_credit_and_what_is_pending_is_said() {
    let broker = one_broker(1, &[]).await;
    publish(&broker, 20).await;
    let mut subscriber = Subscriber::orders(&broker, "all").await;
    assert_eq!(subscriber.welcome.ack_deadline.unwrap().seconds, 30);
    subscriber.credit(5);
    let Some(Response::Pending(pending)) = subscriber.next().await.unwrap() else {
        panic!("no echo")
    };
    assert_eq!(pending.messages, 5);
    assert_eq!(subscriber.take(5).await.len(), 5);
    let more = tokio::time::timeout(Duration::from_millis(300), subscriber.responses.message()).await;
    assert!(more.is_err(), "{more:?}");
    broker
        .pressure_becomes("starved", |report| report.consumer_starved_nanos > 0)
        .await;
    subscriber.credit(7);
    assert_eq!(subscriber.take(7).await.len(), 7);
}

#[tokio::test]
async fn members_share_and_groups_are_independent() {
    let broker = one_broker(2, &[]).await;
    let mut one = Subscriber::orders(&broker, "shared").await;
    let mut two = Subscriber::orders(&broker, "shared").await;
    let mut other = Subscriber::orders(&broker, "other").await;
    publish(&broker, 20).await;
    one.credit(10);
    let first = one.take(10).await;
    two.credit(10);
    let second = two.take(10).await;
    other.credit(20);
    let all = other.take(20).await;
    let mut shared: Vec<u64> = first.iter().chain(&second).map(|one| one.sequence).collect();
    shared.sort_unstable();
    assert_eq!(shared, (1..=20).collect::<Vec<_>>());
    assert_eq!(all.len(), 20);
}

#[tokio::test]
async fn a_message_is_delivered_again_after_its_deadline_and_the_old_token_is_stale() {
    let broker = TestBroker::start("orders-0", &[]).await;
    let mut wanted = Wanted::spread(&[&broker], 1);
    wanted.configuration.topics[0].ack_deadline = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    wanted.apply(&[&broker]).await;
    publish(&broker, 1).await;
    let mut subscriber = Subscriber::orders(&broker, "all").await;
    subscriber.credit(10);
    let first = subscriber.take(1).await;
    assert_eq!(first[0].delivery_count, 1);
    let second = subscriber.take(1).await;
    assert_eq!((second[0].offset, second[0].delivery_count), (first[0].offset, 2));
    let settled = subscriber.ack(&first).await;
    assert_eq!(settled.refused[0].code, i32::from(Code::Aborted));
    let settled = subscriber.ack(&second).await;
    assert_eq!(settled.settled.len(), 1);
    let report = broker.pressure().await;
    assert_eq!((report.delivered_messages, report.redelivered_messages), (2, 1));
}

#[tokio::test]
async fn what_a_member_had_goes_to_another_as_soon_as_it_is_gone() {
    let broker = one_broker(1, &[]).await;
    publish(&broker, 3).await;
    let mut first = Subscriber::orders(&broker, "all").await;
    first.credit(3);
    let deliveries = first.take(3).await;
    first.ack(&deliveries[..1]).await;
    drop(first);
    let mut second = Subscriber::orders(&broker, "all").await;
    second.credit(3);
    let again = second.take(2).await;
    let mut sequences: Vec<u64> = again.iter().map(|one| one.sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, [2, 3]);
}

#[tokio::test]
async fn a_nack_brings_it_again_and_garbage_is_refused() {
    let broker = one_broker(1, &[]).await;
    publish(&broker, 1).await;
    let mut subscriber = Subscriber::orders(&broker, "all").await;
    subscriber.credit(10);
    let first = subscriber.take(1).await;
    subscriber.settle(pb::Settle {
        nack: vec![pb::Nack {
            token: first[0].token.clone(),
            ..pb::Nack::default()
        }],
        give_up: vec![bytes::Bytes::from_static(b"\xffgarbage")],
        ..pb::Settle::default()
    });
    let mut refused = Vec::new();
    let mut again = Vec::new();
    while refused.is_empty() || again.is_empty() {
        match subscriber.next().await.unwrap().unwrap() {
            Response::Settled(settled) => refused.extend(settled.refused),
            Response::Deliveries(batch) => again.extend(batch.deliveries),
            _ => {}
        }
    }
    assert_eq!(refused[0].code, i32::from(Code::InvalidArgument));
    assert_eq!(again[0].delivery_count, 2);
}

#[tokio::test]
async fn what_is_not_served_is_refused_with_a_reason() {
    let broker = one_broker(1, &[]).await;
    let _unordered = Subscriber::open(&broker, open("mixed")).await.unwrap();
    let ordered = pb::SubscribeOpen {
        ordered: true,
        ..open("mixed")
    };
    let refused = Subscriber::open(&broker, ordered).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("ordered: false"), "{refused}");
    let refused = Subscriber::open(&broker, open("")).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let unknown = pb::SubscribeOpen {
        topic: "nothing".to_owned(),
        ..open("all")
    };
    let refused = Subscriber::open(&broker, unknown).await.err().unwrap();
    assert_eq!(refused.code(), Code::NotFound);
}
