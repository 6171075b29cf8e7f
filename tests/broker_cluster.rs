//! Several brokers in one process: forwarding, moved partitions, topology.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

#[path = "support/broker.rs"]
mod broker;

use broker::{PATIENCE, Publisher, Subscriber, TestBroker, Wanted, payload};
use sluice::pb;
use sluice::pb::publish_response::Response;
use tonic::Code;

async fn three() -> [TestBroker; 3] {
    let (a, b, c) = tokio::join!(
        TestBroker::start("orders-0", &[]),
        TestBroker::start("orders-1", &[]),
        TestBroker::start("orders-2", &[]),
    );
    [a, b, c]
}

fn keyed(sequence: u64) -> pb::Payload {
    pb::Payload {
        key: format!("key-{sequence}").into_bytes().into(),
        ..payload(sequence, b"hello")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_knows_one_broker_reaches_all_partitions() {
    let brokers = three().await;
    let [a, b, c] = &brokers;
    Wanted::spread(&[a, b, c], 6).apply(&[a, b, c]).await;
    let mut subscriber = Subscriber::orders(c, "all").await;
    subscriber.credit(1000);
    let mut publisher = Publisher::orders(a).await;
    for round in 0..4 {
        publisher.send((1..=20).map(|n| keyed(round * 20 + n)).collect());
        publisher.acked(round * 20 + 20).await;
    }
    let deliveries = subscriber.take(80).await;
    let mut sequences: Vec<u64> = deliveries.iter().map(|one| one.sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=80).collect::<Vec<_>>());
    let settled = subscriber.ack(&deliveries).await;
    assert_eq!((settled.settled.len(), settled.refused.len()), (80, 0));
    for partition in 0..6 {
        let offsets: Vec<u64> = deliveries
            .iter()
            .filter(|one| one.partition == partition)
            .map(|one| one.sequence)
            .collect();
        assert!(
            offsets.is_sorted() && !offsets.is_empty(),
            "{partition}: {offsets:?}"
        );
    }
    assert!(a.pressure().await.forwarded_messages > 0);
    let mut stored = 0;
    for broker in [a, b, c] {
        stored += broker.pressure().await.accepted_messages;
    }
    assert_eq!(stored, 80, "each message is accepted where it is stored, once");
}

#[tokio::test]
async fn what_cannot_be_forwarded_is_throttled_and_the_rest_goes_on() {
    let brokers = three().await;
    let [a, b, c] = &brokers;
    let mut wanted = Wanted::spread(&[a, b, c], 3);
    wanted.apply(&[a, c]).await;
    // orders-1 was never configured: it takes nothing yet.
    let mut publisher = Publisher::orders(a).await;
    let payloads = (0..3).map(|n| pb::Payload {
        partition: Some(n),
        ..payload(u64::from(n) + 1, b"x")
    });
    publisher.send(payloads.collect());
    let said = publisher.acked(3).await;
    let throttled: Vec<u64> = said
        .into_iter()
        .filter_map(|one| {
            if let Response::Throttled(one) = one {
                Some(one.sequences)
            } else {
                None
            }
        })
        .flatten()
        .collect();
    assert_eq!(throttled, [2]);
    wanted.apply(&[b]).await;
    // What was throttled is sent again, until it comes through: a try at a partition that was away just now is short.
    let mut sent = 3;
    let again = async {
        loop {
            publisher.send(vec![pb::Payload {
                partition: Some(1),
                ..payload(2, b"x")
            }]);
            sent += 1;
            match &publisher.acked(0).await[..] {
                [Response::Ack(ack)] => return (ack.payloads, ack.offsets[0].partition),
                [Response::Throttled(again), Response::Ack(_)] => assert_eq!(again.sequences, [2]),
                said => panic!("neither stored nor throttled: {said:?}"),
            }
        }
    };
    let stored = tokio::time::timeout(PATIENCE, again).await;
    assert_eq!(stored.expect("it comes through"), (sent, 1));
}

#[tokio::test]
async fn a_direct_client_is_told_where_the_partition_is() {
    let brokers = three().await;
    let [a, b, c] = &brokers;
    Wanted::spread(&[a, b, c], 3).apply(&[a, b, c]).await;
    let open = pb::PublishOpen {
        topic: "orders".to_owned(),
        direct: true,
        ..pb::PublishOpen::default()
    };
    let mut publisher = Publisher::open(a, open).await.unwrap();
    let payloads = (0..3).map(|n| pb::Payload {
        partition: Some(n),
        ..payload(u64::from(n) + 1, b"x")
    });
    publisher.send(payloads.collect());
    let said = publisher.acked(3).await;
    let mut moved: Vec<_> = said
        .into_iter()
        .filter_map(|one| {
            if let Response::Moved(one) = one {
                Some(one)
            } else {
                None
            }
        })
        .collect();
    moved.sort_by_key(|one| one.partition);
    let expected = |partition, broker: &TestBroker| pb::Moved {
        partition,
        address: broker.data.to_string(),
        epoch: 1,
        sequences: vec![u64::from(partition) + 1],
    };
    assert_eq!(moved, [expected(1, b), expected(2, c)]);
    let request = pb::SendRequest {
        topic: "orders".to_owned(),
        payloads: vec![pb::Payload {
            partition: Some(1),
            ..payload(1, b"x")
        }],
        direct: true,
        ..pb::SendRequest::default()
    };
    let status = a.client().await.send(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_partition_moves_by_seal_and_extend_and_nothing_is_lost_or_reordered() {
    let brokers = three().await;
    let [a, b, c] = &brokers;
    let all = [a, b, c];
    let mut wanted = Wanted::spread(&[a, b, c], 1);
    wanted.apply(&all).await;
    let open = pb::PublishOpen {
        topic: "orders".to_owned(),
        producer_id: "till-7".to_owned(),
        ..pb::PublishOpen::default()
    };
    let mut publisher = Publisher::open(b, open).await.unwrap();
    publisher.send((1..=10).map(keyed).collect());
    publisher.acked(10).await;
    let entry = pb::EntryId {
        topic: "orders".to_owned(),
        partition: 0,
        epoch: 1,
        topic_uid: "uid-1".to_owned(),
    };
    let seal = pb::SealRequest { entry: Some(entry) };
    let sealed = a.operator().await.seal(seal.clone()).await.unwrap().into_inner();
    assert_eq!(sealed.sealed_at, 10);
    assert_eq!(
        a.operator().await.seal(seal).await.unwrap().into_inner(),
        sealed,
        "idempotent"
    );
    // Sent while nobody owns the partition: it waits.
    publisher.send((11..=20).map(keyed).collect());
    let partition = &mut wanted.configuration.topics[0].partitions[0];
    partition.epoch = 2;
    partition.chain[0].sealed_at = Some(10);
    partition.chain.push(pb::ChainEntry {
        epoch: 2,
        brokers: vec!["orders-2".to_owned()],
        sealed_at: None,
    });
    // The new owner asks the old one for what it must know first.
    let problems = wanted.offer(&[c, a, b]).await;
    assert!(
        problems.iter().all(|problem| problem.reason.contains("handoff")),
        "{problems:?}"
    );
    publisher.acked(20).await;
    let mut subscriber = Subscriber::orders(b, "all").await;
    subscriber.credit(100);
    let sequences: Vec<u64> = subscriber.take(20).await.iter().map(|one| one.sequence).collect();
    assert_eq!(sequences, (1..=20).collect::<Vec<_>>());
    // The old entry may go only when it is not placed there any more.
    let held = a
        .operator()
        .await
        .drain(pb::DrainRequest { cordon: true })
        .await
        .unwrap()
        .into_inner()
        .held;
    assert_eq!((held.len(), held[0].positions, held[0].sealed), (1, 10, true));
    let drop = pb::DropRequest {
        entry: held[0].entry.clone(),
    };
    assert_eq!(
        a.operator().await.drop(drop).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn the_topology_comes_whole_and_again_on_every_change() {
    let brokers = three().await;
    let [a, b, c] = &brokers;
    let mut wanted = Wanted::spread(&[a, b], 2);
    wanted.apply(&[a]).await;
    let request = pb::WatchTopologyRequest {
        topics: vec!["orders".to_owned()],
    };
    let mut topologies = a
        .client()
        .await
        .watch_topology(request)
        .await
        .unwrap()
        .into_inner();
    let first = topologies.message().await.unwrap().unwrap();
    assert_eq!(first.brokers.len(), 2);
    let owners = |topology: &pb::Topology| {
        topology.topics[0]
            .partitions
            .iter()
            .map(|one| one.broker.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(owners(&first), ["orders-0", "orders-1"]);
    wanted.configuration.topics[0].partitions[1].epoch = 2;
    wanted.configuration.topics[0].partitions[1].chain = vec![pb::ChainEntry {
        epoch: 2,
        brokers: vec!["orders-2".to_owned()],
        sealed_at: None,
    }];
    wanted.configuration.brokers = Wanted::spread(&[a, b, c], 1).configuration.brokers;
    wanted.apply(&[a]).await;
    let second = tokio::time::timeout(PATIENCE, topologies.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(second.generation > first.generation);
    assert_eq!(
        (owners(&second), second.brokers.len()),
        (vec!["orders-0".to_owned(), "orders-2".to_owned()], 3)
    );
}
