//! Every limit holds against clients that do not keep to it, and what is refused is counted by reason.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

#[path = "support/broker.rs"]
mod broker;
#[path = "support/frames.rs"]
mod frames;
#[path = "support/raw.rs"]
mod raw;

use std::time::Duration;

use broker::{PATIENCE, Publisher, Subscriber, TestBroker, one_broker, payload};
use bytes::Bytes;
use frames::{GOAWAY, PING, PREFACE, RST_STREAM, Wire, frame, publish_headers};
use raw::{RawConnection, RawStream, Said, framed};
use sluice::pb;
use tonic::Code;

/// Waits until a reason was counted at least so often.
async fn refused(broker: &TestBroker, family: &str, reason: &str, least: u64) {
    let line = format!("sluice_broker_refused_{family}_total{{reason=\"{reason}\"}} ");
    let counted = async {
        loop {
            let (_, page) = broker.page("/metrics").await;
            let value = page.lines().find_map(|one| one.strip_prefix(&line));
            let value: u64 = value
                .unwrap_or_else(|| panic!("no {line} in {page}"))
                .parse()
                .unwrap();
            if value >= least {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted)
        .await
        .unwrap_or_else(|_| panic!("{family} {reason} were not counted"));
}

/// Whoever keeps to the limits is served.
async fn still_serves(broker: &TestBroker) {
    let mut publisher = Publisher::orders(broker).await;
    publisher.send(vec![payload(1, b"hello")]);
    publisher.acked(1).await;
    publisher.finish().await;
}

/// Nothing that was refused is held.
async fn holds_nothing(broker: &TestBroker) {
    broker
        .pressure_becomes("everything is given back", |report| {
            report.streams == 0 && report.channel_messages == 0 && report.channel_bytes == 0
        })
        .await;
    let (_, page) = broker.page("/metrics").await;
    assert!(page.contains("sluice_broker_inflight_bytes 0\n"), "{page}");
}

fn batch(payloads: Vec<pb::Payload>) -> Bytes {
    framed(&pb::PublishRequest {
        request: Some(pb::publish_request::Request::Batch(pb::PublishBatch {
            payloads,
            waited_nanos: 0,
            offered_messages: None,
        })),
    })
}

fn publish_open() -> Bytes {
    framed(&pb::PublishRequest {
        request: Some(pb::publish_request::Request::Open(pb::PublishOpen {
            topic: "orders".to_owned(),
            ..pb::PublishOpen::default()
        })),
    })
}

async fn open(connection: &RawConnection) -> RawStream {
    let mut stream = connection.call("Publish").await.unwrap();
    stream.send(publish_open(), false).unwrap();
    assert!(matches!(stream.read().await, Said::Bytes(_)));
    stream
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it happens")
}

#[tokio::test]
async fn a_connection_that_does_not_begin_is_closed() {
    let broker = one_broker(1, &["--handshake-timeout", "200ms"]).await;
    let mut silent = Wire::connect(broker.data).await;
    let mut half = Wire::connect(broker.data).await;
    half.send(&PREFACE[..12]).await.unwrap();
    let mut wordless = Wire::connect(broker.data).await;
    wordless.send(PREFACE).await.unwrap();
    for wire in [&mut silent, &mut half, &mut wordless] {
        within(wire.until_closed()).await;
    }
    let mut other = Wire::connect(broker.data).await;
    other.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    within(other.until_closed()).await;
    refused(&broker, "connections", "handshake", 4).await;
    still_serves(&broker).await;
}

#[tokio::test]
async fn a_peer_that_vanished_is_found_out_by_a_ping() {
    let flags = ["--keepalive-interval", "200ms", "--keepalive-timeout", "300ms"];
    let broker = one_broker(1, &flags).await;
    let mut wire = Wire::begin(broker.data).await;
    // A stream is open on it, and it answers nothing more.
    wire.send(&publish_headers(1)).await.unwrap();
    let last = within(wire.until_closed()).await;
    assert!(last.iter().any(|one| one.kind == PING), "{last:?}");
    refused(&broker, "connections", "keepalive", 1).await;
    holds_nothing(&broker).await;
    // One that answers its pings may be as idle as it likes.
    let mut publisher = Publisher::orders(&broker).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    publisher.send(vec![payload(1, b"hello")]);
    publisher.acked(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_nothing_off_the_network_is_cut_off() {
    let flags = ["--keepalive-interval", "300ms", "--keepalive-timeout", "700ms"];
    let broker = one_broker(1, &flags).await;
    let mut publisher = Publisher::orders(&broker).await;
    for sequence in 1..=64 {
        publisher.send(vec![payload(sequence, &vec![7; 256 << 10])]);
        publisher.acked(sequence).await;
    }
    // Windows without end, so that the socket is what fills.
    let mut wire = Wire::connect(broker.data).await;
    let settings = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    let window = 0x7fff_0000_u32.to_be_bytes();
    let open = framed(&pb::SubscribeRequest {
        request: Some(pb::subscribe_request::Request::Open(pb::SubscribeOpen {
            topic: "orders".to_owned(),
            group: "stuck".to_owned(),
            ..pb::SubscribeOpen::default()
        })),
    });
    let credit = framed(&pb::SubscribeRequest {
        request: Some(pb::subscribe_request::Request::Credit(pb::ConsumerCredit {
            messages: 1 << 30,
            bytes: 1 << 40,
        })),
    });
    let subscribe = {
        let mut headers = publish_headers(1);
        let at = headers.windows(7).position(|part| part == b"Publish").unwrap();
        headers.splice(at..at + 7, *b"Subscribe");
        headers[2] += 2;
        let path = headers.windows(9).position(|part| part == b"/sluice.v").unwrap() - 1;
        headers[path] += 2;
        headers
    };
    let begin = [
        PREFACE,
        &frame(frames::SETTINGS, 0, 0, &settings),
        &frame(8, 0, 0, &window),
        &subscribe,
        &frame(0, 0, 1, &open),
        &frame(0, 0, 1, &credit),
    ];
    wire.send(&begin.concat()).await.unwrap();
    broker
        .pressure_becomes("it is there", |report| report.delivered_messages > 0)
        .await;
    // It never reads.
    broker
        .pressure_becomes("it is cut off", |report| report.streams == 1)
        .await;
    refused(&broker, "connections", "keepalive", 1).await;
    publisher.send(vec![payload(100, b"hello")]);
    publisher.acked(100).await;
    drop(wire);
}

#[tokio::test]
async fn pings_without_end_close_the_connection() {
    let broker = one_broker(1, &[]).await;
    let mut wire = Wire::begin(broker.data).await;
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(3000);
    // It may be closed before all are sent.
    let _ = wire.send(&pings).await;
    within(wire.until_closed()).await;
    refused(&broker, "connections", "control", 1).await;
    still_serves(&broker).await;
}

#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_are_opened_close_the_connection() {
    let broker = one_broker(1, &[]).await;
    let mut wire = Wire::begin(broker.data).await;
    let flood: Vec<u8> = (0..500)
        .flat_map(|at| {
            let stream = 2 * at + 1;
            [
                publish_headers(stream),
                frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
            ]
            .concat()
        })
        .collect();
    let _ = wire.send(&flood).await;
    let said = within(wire.until_closed()).await;
    let calm = 11;
    assert!(
        said.iter().any(|one| one.kind == GOAWAY && one.code() == calm),
        "{said:?}"
    );
    refused(&broker, "connections", "resets", 1).await;
    still_serves(&broker).await;
    holds_nothing(&broker).await;
}

#[tokio::test]
async fn more_streams_than_the_limit_are_refused_one_by_one() {
    let broker = one_broker(1, &["--max-streams-per-connection", "4"]).await;
    let mut wire = Wire::begin(broker.data).await;
    for at in 0..10 {
        wire.send(&publish_headers(2 * at + 1)).await.unwrap();
    }
    let mut streams = Vec::new();
    while streams.len() < 6 {
        let frame = within(wire.next()).await.unwrap();
        assert_ne!(frame.kind, GOAWAY);
        if frame.kind == RST_STREAM {
            let refused_stream = 7;
            assert_eq!(frame.code(), refused_stream);
            streams.push(frame.stream);
        }
    }
    assert_eq!(streams, [9, 11, 13, 15, 17, 19]);
    broker
        .pressure_becomes("four are open", |report| report.streams == 4)
        .await;
    still_serves(&broker).await;
}

#[tokio::test]
async fn headers_larger_than_the_limit_are_refused_and_the_connection_goes_on() {
    let broker = one_broker(1, &[]).await;
    let connection = RawConnection::open(broker.data).await.unwrap();
    let large = "x".repeat(20_000);
    let mut refused = connection
        .call_with("Publish", &[("x-large", &large)])
        .await
        .unwrap();
    let end = within(refused.end()).await;
    assert!(!matches!(end, Said::Status(Some(0), _)), "{end:?}");
    let mut stream = open(&connection).await;
    stream.send(batch(vec![payload(1, b"hello")]), true).unwrap();
    let end = within(stream.end()).await;
    assert!(matches!(end, Said::Status(Some(0), _)), "{end:?}");
}

#[tokio::test]
async fn a_request_larger_than_any_is_refused_by_its_head() {
    let broker = one_broker(1, &["--max-message-bytes", "1Mi"]).await;
    let connection = RawConnection::open(broker.data).await.unwrap();
    let mut stream = open(&connection).await;
    // A hundred megabytes, it says.
    stream
        .send(Bytes::from_static(&[0, 6, 0, 0, 0, 1, 2, 3]), false)
        .unwrap();
    let end = within(stream.end()).await;
    let code = Code::OutOfRange as i32;
    assert!(
        matches!(end, Said::Status(Some(found), _) if found == code),
        "{end:?}"
    );
    refused(&broker, "streams", "request_bytes", 1).await;
    holds_nothing(&broker).await;
}

#[tokio::test]
async fn what_is_being_received_counts_against_the_brokers_memory() {
    let broker = one_broker(1, &["--max-message-bytes", "4Mi", "--max-inflight-bytes", "16Mi"]).await;
    let connection = RawConnection::open(broker.data).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(open(&connection).await);
    }
    // Each begins a message of three megabytes and never ends it: there is room for five.
    let length = 3_u32 << 20;
    let begin = [&[0][..], &length.to_be_bytes(), &[0; 1000]].concat();
    for stream in &mut streams {
        stream.send(Bytes::from(begin.clone()), false).unwrap();
    }
    refused(&broker, "streams", "receiving", 3).await;
    let (_, page) = broker.page("/metrics").await;
    assert!(
        page.contains(&format!("sluice_broker_inflight_bytes {}\n", 5 * length)),
        "{page}"
    );
    // Small messages of others are answered, one way or the other, and their streams go on.
    let mut publisher = Publisher::orders(&broker).await;
    publisher.send(vec![payload(1, b"hello")]);
    publisher.acked(1).await;
    drop((streams, connection, publisher));
    holds_nothing(&broker).await;
    still_serves(&broker).await;
}

#[tokio::test]
async fn more_than_the_credit_of_messages_or_of_bytes_ends_that_stream_alone() {
    let broker = one_broker(1, &["--max-message-bytes", "1000"]).await;
    let connection = RawConnection::open(broker.data).await.unwrap();
    let mut good = open(&connection).await;
    let code = Code::ResourceExhausted as i32;
    let too_many = batch((1..=200).map(|sequence| payload(sequence, b"x")).collect());
    let too_large = batch((1..=20).map(|sequence| payload(sequence, &[7; 900])).collect());
    for over in [too_many, too_large] {
        let mut stream = open(&connection).await;
        stream.send(over, false).unwrap();
        let end = within(stream.end()).await;
        let Said::Status(Some(found), text) = end else {
            panic!("{end:?}")
        };
        assert_eq!(found, code);
        assert!(text.contains("granted"), "{text}");
    }
    refused(&broker, "streams", "credit", 2).await;
    good.send(batch(vec![payload(1, b"hello")]), true).unwrap();
    let end = within(good.end()).await;
    assert!(matches!(end, Said::Status(Some(0), _)), "{end:?}");
    holds_nothing(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_what_is_refused_is_cut_off() {
    let broker = one_broker(1, &[]).await;
    let connection = RawConnection::open(broker.data).await.unwrap();
    let mut stream = open(&connection).await;
    // Payloads that are refused alone take no credit. Their refusals fill what the client lets come, and then wait.
    let bad = |sequence| pb::Payload {
        partition: Some(77),
        ..payload(sequence, b"x")
    };
    let mut sequence = 0;
    loop {
        let some = batch((sequence..sequence + 100).map(bad).collect());
        sequence += 100;
        if stream.send(some, false).is_err() {
            break;
        }
        assert!(sequence < 1_000_000, "it goes on");
        tokio::task::yield_now().await;
        let (_, page) = if sequence % 10_000 == 0 {
            broker.page("/metrics").await
        } else {
            continue;
        };
        if page.contains("refused_streams_total{reason=\"unread\"} 1") {
            break;
        }
    }
    refused(&broker, "streams", "unread", 1).await;
    still_serves(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_never_reads_costs_no_more_than_what_it_may_have_unread() {
    let broker = one_broker(1, &[]).await;
    let stalled = Subscriber::orders(&broker, "stalled").await;
    stalled.credit(1 << 30);
    let mut publisher = Publisher::orders(&broker).await;
    for sequence in 1..=200 {
        publisher.send(vec![payload(sequence, &vec![7; 64 << 10])]);
        publisher.acked(sequence).await;
    }
    // 12.5 MiB were published; the stream's window is one megabyte, and 256 KiB and a batch may wait beside it.
    let delivered = broker.pressure().await.bytes_out;
    assert!(delivered < 4 << 20, "{delivered}");
    drop(stalled);
    drop(publisher);
    holds_nothing(&broker).await;
}
