//! What publishers are promised.

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
use sluice::pb::publish_response::Response;
use tonic::Code;

fn acks(said: &[Response]) -> Vec<&pb::Ack> {
    said.iter()
        .filter_map(|one| {
            if let Response::Ack(ack) = one {
                Some(ack)
            } else {
                None
            }
        })
        .collect()
}

#[tokio::test]
async fn a_batch_is_acknowledged_with_durability_and_offsets() {
    let broker = one_broker(2, &[]).await;
    let mut publisher = Publisher::orders(&broker).await;
    assert_eq!(publisher.welcome.partitions, 2);
    assert_eq!(publisher.welcome.credit.unwrap().messages, 128);
    let mut payloads: Vec<_> = (1..=4).map(|sequence| payload(sequence, b"x")).collect();
    for (index, payload) in payloads.iter_mut().enumerate() {
        payload.partition = Some(index as u32 % 2);
    }
    publisher.send(payloads);
    let said = publisher.acked(4).await;
    let last = *acks(&said).last().unwrap();
    assert_eq!(last.durability(), pb::Durability::Fsync);
    assert_eq!((last.sequence, last.payloads), (4, 4));
    let partitions: Vec<u32> = last.offsets.iter().map(|offset| offset.partition).collect();
    assert_eq!(partitions, [0, 1]);
    publisher.finish().await;
}

#[tokio::test]
async fn one_bad_payload_is_rejected_without_harm_to_the_rest() {
    let broker = one_broker(2, &["--max-message-bytes", "1000"]).await;
    let mut publisher = Publisher::orders(&broker).await;
    let mut payloads: Vec<_> = (1..=5).map(|sequence| payload(sequence, b"x")).collect();
    payloads[1].body = vec![0; 1001].into();
    payloads[3].partition = Some(2);
    publisher.send(payloads);
    let said = publisher.acked(5).await;
    let rejected: Vec<_> = said
        .iter()
        .filter_map(|one| {
            if let Response::Rejected(one) = one {
                Some((one.sequence, one.code))
            } else {
                None
            }
        })
        .collect();
    let invalid = i32::from(Code::InvalidArgument);
    assert_eq!(rejected, [(2, invalid), (4, invalid)]);
    let mut subscriber = Subscriber::orders(&broker, "all").await;
    subscriber.credit(10);
    let mut sequences: Vec<u64> = subscriber.take(3).await.iter().map(|one| one.sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, [1, 3, 5]);
    assert_eq!(broker.pressure().await.rejected_messages, 2);
}

#[tokio::test]
async fn more_than_the_credit_ends_the_stream_and_says_how_much_was_granted() {
    let broker = one_broker(1, &[]).await;
    let mut publisher = Publisher::orders(&broker).await;
    let granted = publisher.welcome.credit.unwrap().messages;
    publisher.send(
        (1..=granted + 1)
            .map(|sequence| payload(sequence, b"x"))
            .collect(),
    );
    let status = publisher.fails().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status.message().contains(&format!("granted {granted} messages")),
        "{status}"
    );
}

#[tokio::test]
async fn credit_follows_the_channels_capacity_and_an_older_larger_one_is_tolerated() {
    let broker = one_broker(1, &[]).await;
    let mut publisher = Publisher::orders(&broker).await;
    let mut wanted = Wanted::spread(&[&broker], 1);
    wanted.configuration.generation = 10;
    wanted.configuration.channel = Some(pb::ChannelConfiguration { capacity: 16 });
    wanted.apply(&[&broker]).await;
    let Some(Response::Credit(credit)) = publisher.next().await.unwrap() else {
        panic!("no credit")
    };
    assert_eq!(credit.messages, 16);
    // What was on its way before the client read that.
    publisher.send((1..=128).map(|sequence| payload(sequence, b"x")).collect());
    publisher.acked(128).await;
    assert_eq!(broker.pressure().await.channel_capacity, 16);
}

#[tokio::test]
async fn a_producers_repeated_sequences_are_acknowledged_and_not_stored_again() {
    let broker = one_broker(4, &[]).await;
    let open = pb::PublishOpen {
        topic: "orders".to_owned(),
        producer_id: "till-7".to_owned(),
        ..pb::PublishOpen::default()
    };
    for _ in 0..2 {
        let mut publisher = Publisher::open(&broker, open.clone()).await.unwrap();
        publisher.send((1..=10).map(|sequence| payload(sequence, b"x")).collect());
        publisher.acked(10).await;
        publisher.finish().await;
    }
    let request = pb::SendRequest {
        topic: "orders".to_owned(),
        producer_id: "till-7".to_owned(),
        payloads: vec![payload(10, b"x"), payload(11, b"x")],
        direct: false,
    };
    let sent = broker.client().await.send(request).await.unwrap().into_inner();
    assert_eq!(sent.duplicates, 1);
    let mut subscriber = Subscriber::orders(&broker, "all").await;
    subscriber.credit(100);
    let mut sequences: Vec<u64> = subscriber.take(11).await.iter().map(|one| one.sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=11).collect::<Vec<_>>());
}

#[tokio::test]
async fn send_answers_with_one_offset_for_each_payload_or_one_status() {
    let broker = one_broker(1, &[]).await;
    let mut client = broker.client().await;
    let request = |payloads| pb::SendRequest {
        topic: "orders".to_owned(),
        payloads,
        ..pb::SendRequest::default()
    };
    let sent = client
        .send(request(vec![payload(1, b"a"), payload(2, b"b")]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(sent.durability(), pb::Durability::Fsync);
    assert!(sent.offsets[0].offset < sent.offsets[1].offset);
    let mut bad = payload(3, b"c");
    bad.partition = Some(9);
    let status = client
        .send(request(vec![payload(2, b"b"), bad]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("sequence 3"), "{status}");
}

#[tokio::test]
async fn appends_are_refused_before_the_first_configuration_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let send = pb::SendRequest {
        topic: "orders".to_owned(),
        payloads: vec![payload(1, b"x")],
        ..pb::SendRequest::default()
    };
    for _ in 0..2 {
        let mut broker = TestBroker::start_in("orders-0", directory.path().to_owned(), &[]).await;
        let status = broker.client().await.send(send.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert_eq!(broker.page("/readyz").await.0, 503);
        Wanted::spread(&[&broker], 1).apply(&[&broker]).await;
        broker.client().await.send(send.clone()).await.unwrap();
        assert_eq!(broker.page("/readyz").await.0, 200);
        broker.stop().await;
    }
}

#[tokio::test]
async fn an_unknown_topic_is_not_found_or_wanted() {
    let broker = one_broker(1, &[]).await;
    let open = pb::PublishOpen {
        topic: "invoices".to_owned(),
        ..pb::PublishOpen::default()
    };
    let refused = Publisher::open(&broker, open.clone()).await.err().unwrap();
    assert_eq!(refused.code(), Code::NotFound);
    let mut wanted = Wanted::spread(&[&broker], 1);
    wanted.configuration.generation = 5;
    wanted.configuration.auto_create_topics = true;
    wanted.apply(&[&broker]).await;
    let refused = Publisher::open(&broker, open.clone()).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"));
    assert_eq!(broker.pressure().await.wanted_topics, ["invoices"]);
}

#[tokio::test]
async fn whoever_waits_for_a_topic_gets_it_as_soon_as_it_is_made() {
    let broker = one_broker(1, &["--topic-wait", "60s"]).await;
    let mut wanted = Wanted::spread(&[&broker], 1);
    wanted.configuration.generation = 5;
    wanted.configuration.auto_create_topics = true;
    wanted.apply(&[&broker]).await;
    let open = pb::PublishOpen {
        topic: "invoices".to_owned(),
        ..pb::PublishOpen::default()
    };
    let waiting = Publisher::open(&broker, open);
    let making = async {
        broker
            .pressure_becomes("the topic is wanted", |report| {
                report.wanted_topics == ["invoices"]
            })
            .await;
        let mut topic = wanted.configuration.topics[0].clone();
        topic.name = "invoices".to_owned();
        topic.uid = "uid-2".to_owned();
        wanted.configuration.topics.push(topic);
        wanted.apply(&[&broker]).await;
    };
    let (publisher, ()) = tokio::join!(waiting, making);
    assert_eq!(publisher.unwrap().welcome.partitions, 1);
    assert!(broker.pressure().await.wanted_topics.is_empty());
}

#[tokio::test]
async fn what_does_not_fit_into_the_brokers_memory_is_throttled_and_taken_when_it_comes_again() {
    let broker = one_broker(
        1,
        &["--max-message-bytes", "1000", "--max-inflight-bytes", "1500"],
    )
    .await;
    let mut publisher = Publisher::orders(&broker).await;
    // Together they are more than the broker holds; the credit of bytes lets them through.
    let large = |sequence| payload(sequence, &[0; 700]);
    let mut stored = std::collections::BTreeSet::new();
    let mut again: Vec<u64> = vec![1, 2];
    for _ in 0..50 {
        for &sequence in &again {
            publisher.send(vec![large(sequence)]);
        }
        let count = again.len() as u64;
        let mut throttled = Vec::new();
        let target = publisher_payloads(&mut publisher, count, &mut throttled).await;
        assert_eq!(target, count);
        stored.extend(
            again
                .iter()
                .copied()
                .filter(|sequence| !throttled.contains(sequence)),
        );
        again = throttled;
        if again.is_empty() {
            break;
        }
    }
    assert_eq!(stored.into_iter().collect::<Vec<_>>(), [1, 2]);
    let status = broker
        .client()
        .await
        .send(pb::SendRequest {
            topic: "orders".to_owned(),
            payloads: vec![large(3), large(4), large(5)],
            ..pb::SendRequest::default()
        })
        .await;
    assert!(status.is_ok(), "alone, anything passes: {status:?}");
}

/// Reads until so many more payloads are settled.
async fn publisher_payloads(publisher: &mut Publisher, count: u64, throttled: &mut Vec<u64>) -> u64 {
    let before = publisher.settled;
    while publisher.settled < before + count {
        match publisher.next().await.unwrap().expect("the stream goes on") {
            Response::Ack(ack) => publisher.settled = ack.payloads,
            Response::Throttled(some) => throttled.extend(some.sequences),
            _ => {}
        }
    }
    publisher.settled - before
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let broker = one_broker(1, &[]).await;
    let mut wanted = Wanted::spread(&[&broker], 1);
    wanted.configuration.generation = 5;
    wanted.configuration.auto_create_topics = true;
    wanted.apply(&[&broker]).await;
    let mut request = tonic::Request::new(pb::SendRequest {
        topic: "invoices".to_owned(),
        payloads: vec![payload(1, b"x")],
        ..pb::SendRequest::default()
    });
    request.set_timeout(Duration::from_millis(200));
    let began = std::time::Instant::now();
    let status = broker.client().await.send(request).await.unwrap_err();
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status}"
    );
    assert!(began.elapsed() < Duration::from_secs(5));
    broker
        .pressure_becomes("the call is gone", |report| report.streams == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_small_messages_beside_a_stalled_consumer_closes_no_connection() {
    let broker = one_broker(4, &[]).await;
    let mut wanted = Wanted::spread(&[&broker], 4);
    wanted.configuration.generation = 5;
    wanted.configuration.channel = Some(pb::ChannelConfiguration { capacity: 16_384 });
    wanted.apply(&[&broker]).await;
    // It grants a lot and reads nothing.
    let stalled = Subscriber::orders(&broker, "stalled").await;
    stalled.credit(1 << 30);
    // One message of 64 bytes in each frame, and nobody reads the answers until the credit is used.
    let mut publisher = Publisher::orders(&broker).await;
    let credit = publisher.welcome.credit.unwrap().messages;
    assert_eq!(credit, 16_384);
    let mut sequence = 0;
    for _ in 0..3 {
        for _ in 0..credit {
            sequence += 1;
            publisher.send(vec![payload(sequence, &[7; 64])]);
        }
        publisher.acked(sequence).await;
    }
    assert_eq!(broker.pressure().await.acked_messages, credit * 3);
    drop(stalled);
}

#[tokio::test]
async fn the_counters_of_the_pressure_report_only_grow_and_say_what_happened() {
    let broker = one_broker(2, &[]).await;
    let mut reports = broker
        .operator()
        .await
        .watch_pressure(pb::WatchPressureRequest {
            interval: Some(prost_types::Duration {
                seconds: 0,
                nanos: 50_000_000,
            }),
        })
        .await
        .unwrap()
        .into_inner();
    let mut publisher = Publisher::orders(&broker).await;
    let mut last = reports.message().await.unwrap().unwrap();
    for round in 0..5 {
        publisher.send((1..=10).map(|n| payload(round * 10 + n, b"hello")).collect());
        publisher.acked(round * 10 + 10).await;
        let next = reports.message().await.unwrap().unwrap();
        assert_eq!((next.boot_id, next.report), (last.boot_id, last.report + 1));
        let counters = |report: &pb::PressureReport| {
            [
                report.uptime_nanos,
                report.accepted_messages,
                report.acked_messages,
                report.acked_bytes,
                report.bytes_in,
                report.bytes_out,
                report.commits,
                report.commit_nanos,
                report.append_nanos,
                report.cpu_nanos,
                report.publisher_blocked_nanos,
                report.publisher_active_nanos,
                report.consumer_starved_nanos,
                report.delivered_messages,
                report.requests,
                report.offered_messages,
                report.untold_messages,
            ]
        };
        for (before, after) in counters(&last).into_iter().zip(counters(&next)) {
            assert!(before <= after, "{last:?} then {next:?}");
        }
        last = next;
    }
    let report = broker.pressure().await;
    assert_eq!(
        (
            report.accepted_messages,
            report.acked_messages,
            report.acked_bytes,
            report.requests
        ),
        (50, 50, 250, 5)
    );
    assert!(
        report.commits > 0 && report.commit_nanos > 0 && report.append_nanos > 0,
        "{report:?}"
    );
    assert!(report.publisher_active_nanos > 0 && report.cpu_nanos > 0 && report.cpu_quota_nanos > 0);
    assert!(report.publisher_blocked_nanos <= report.publisher_active_nanos);
    assert!(report.memory_bytes > 0 && report.appends_confirmed);
    assert_eq!(
        report
            .partitions
            .iter()
            .map(|one| one.accepted_messages)
            .sum::<u64>(),
        50
    );
    assert_eq!(report.publish_streams, 1);
}
