//! Whatever a client sends, in whatever pieces: each payload and each token is answered exactly once, a stream's end
//! says what was wrong, and what was acknowledged is there exactly once. `PROPTEST_CASES` sets how many sequences.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

#[path = "support/broker.rs"]
mod broker;
#[path = "support/raw.rs"]
mod raw;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::{Subscriber, TestBroker, one_broker};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use raw::{RawConnection, Said, Unframer, framed};
use sluice::pb;
use tokio::runtime::Runtime;
use tonic::Code;

const PARTITIONS: u32 = 3;
const MOST_BYTES: usize = 1000;

/// One payload of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    Keyed,
    Placed(u32),
    /// A sequence that was sent before; only a producer's is known again.
    Again,
    NoSuchPartition,
    TooLarge,
    NamelessHeader,
}

#[derive(Debug, Clone)]
enum PublishFrame {
    Open,
    Batch(Vec<Kind>),
    /// Neither `open` nor `batch`.
    Empty,
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Good),
        2 => Just(Kind::Keyed),
        2 => (0..PARTITIONS).prop_map(Kind::Placed),
        1 => Just(Kind::Again),
        1 => Just(Kind::NoSuchPartition),
        1 => Just(Kind::TooLarge),
        1 => Just(Kind::NamelessHeader),
    ]
}

fn publish_frames() -> impl Strategy<Value = Vec<PublishFrame>> {
    let frame = prop_oneof![
        8 => proptest::collection::vec(kinds(), 0..6).prop_map(PublishFrame::Batch),
        1 => Just(PublishFrame::Open),
        1 => Just(PublishFrame::Empty),
    ];
    (any::<bool>(), proptest::collection::vec(frame, 0..8)).prop_map(|(opens_late, mut frames)| {
        if !opens_late || frames.is_empty() {
            frames.insert(0, PublishFrame::Open);
        }
        frames
    })
}

/// What must come of a publish stream.
#[derive(Debug, Default)]
struct Expected {
    opened: bool,
    payloads: u64,
    rejected: Vec<u64>,
    duplicates: u64,
    stored: Vec<String>,
    end: Option<Code>,
}

fn encode(case: u64, is_producer: bool, frames: &[PublishFrame]) -> (Bytes, Expected) {
    let mut bytes = BytesMut::new();
    let mut expected = Expected::default();
    let mut sequence = 0;
    let mut known: Vec<pb::Payload> = Vec::new();
    for frame in frames {
        let request = match frame {
            PublishFrame::Open => Some(pb::publish_request::Request::Open(pb::PublishOpen {
                topic: "orders".to_owned(),
                producer_id: if is_producer {
                    format!("case-{case}")
                } else {
                    String::new()
                },
                direct: false,
            })),
            PublishFrame::Empty => None,
            PublishFrame::Batch(kinds) => {
                let mut payloads = Vec::new();
                for &kind in kinds {
                    if kind == Kind::Again {
                        if is_producer && let Some(before) = known.last() {
                            payloads.push(before.clone());
                        }
                        continue;
                    }
                    sequence += 1;
                    let mut payload = pb::Payload {
                        sequence,
                        body: format!("{case}/{sequence}").into(),
                        ..pb::Payload::default()
                    };
                    match kind {
                        Kind::Keyed => payload.key = Bytes::from(format!("key-{}", sequence % 3)),
                        Kind::Placed(partition) => payload.partition = Some(partition),
                        Kind::NoSuchPartition => payload.partition = Some(PARTITIONS),
                        Kind::TooLarge => payload.body = vec![7; MOST_BYTES + 1].into(),
                        Kind::NamelessHeader => payload.headers.push(pb::Header::default()),
                        Kind::Good | Kind::Again => {}
                    }
                    payloads.push(payload);
                }
                if expected.end.is_none() && expected.opened {
                    for payload in &payloads {
                        expected.payloads += 1;
                        let is_bad = payload.partition == Some(PARTITIONS)
                            || payload.body.len() > MOST_BYTES
                            || !payload.headers.is_empty();
                        if is_bad {
                            expected.rejected.push(payload.sequence);
                        } else if known.iter().any(|one| one.sequence == payload.sequence) {
                            expected.duplicates += 1;
                        } else {
                            expected
                                .stored
                                .push(String::from_utf8(payload.body.to_vec()).unwrap());
                            known.push(payload.clone());
                        }
                    }
                }
                Some(pb::publish_request::Request::Batch(pb::PublishBatch {
                    payloads,
                    waited_nanos: 0,
                    offered_messages: None,
                }))
            }
        };
        let is_right = matches!(
            (&request, expected.opened),
            (Some(pb::publish_request::Request::Open(_)), false)
                | (Some(pb::publish_request::Request::Batch(_)), true)
        );
        if expected.end.is_none() {
            if !is_right {
                expected.end = Some(Code::InvalidArgument);
            }
            expected.opened |= matches!(&request, Some(pb::publish_request::Request::Open(_)));
        }
        bytes.extend_from_slice(&framed(&pb::PublishRequest { request }));
    }
    (bytes.freeze(), expected)
}

/// Sends the first message alone, then what is left in pieces of these sizes, and reads to the end.
async fn exchange<M: prost::Message + Default>(
    broker: &TestBroker,
    method: &str,
    bytes: Bytes,
    pieces: &[usize],
) -> (Vec<M>, Code, String) {
    let connection = RawConnection::open(broker.data).await.unwrap();
    let mut stream = connection.call(method).await.unwrap();
    let mut unframer = Unframer::default();
    let mut said = Vec::new();
    let first = 5 + u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
    // It may have ended already; then what it said tells why.
    let _ = stream.send(bytes.slice(..first), false);
    // Nothing may be sent before the welcome.
    let end = match stream.read().await {
        Said::Bytes(some) => {
            said.extend(unframer.push(&some));
            let mut rest = bytes.slice(first..);
            for &piece in pieces.iter().cycle() {
                let piece = rest.split_to(piece.min(rest.len()));
                let _ = stream.send(piece, rest.is_empty());
                if rest.is_empty() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            loop {
                match stream.read().await {
                    Said::Bytes(some) => said.extend(unframer.push(&some)),
                    end => break end,
                }
            }
        }
        end => end,
    };
    match end {
        Said::Status(Some(code), text) => (said, Code::from(code), text),
        other => panic!("no status but {other:?}"),
    }
}

async fn publish_case(
    broker: &TestBroker,
    (case, is_producer): (u64, bool),
    frames: &[PublishFrame],
    pieces: &[usize],
) -> Vec<String> {
    let (bytes, expected) = encode(case, is_producer, frames);
    let talk = exchange::<pb::PublishResponse>(broker, "Publish", bytes, pieces);
    let (said, code, text) = tokio::time::timeout(broker::PATIENCE, talk)
        .await
        .expect("it ends");
    assert_eq!(code, expected.end.unwrap_or(Code::Ok), "{text}");
    let (mut welcomes, mut rejected, mut duplicates) = (0, Vec::new(), 0);
    let mut last = pb::Ack::default();
    for (at, response) in said.into_iter().enumerate() {
        match response.response.expect("a response") {
            pb::publish_response::Response::Welcome(_) => {
                assert_eq!(at, 0);
                welcomes += 1;
            }
            pb::publish_response::Response::Credit(credit) => {
                assert!(credit.messages > 0 && credit.bytes > 0);
            }
            pb::publish_response::Response::Ack(ack) => {
                assert!(ack.sequence >= last.sequence && ack.payloads > last.payloads);
                assert!(
                    rejected
                        .iter()
                        .all(|&one| one > last.sequence || one <= ack.sequence),
                    "a refusal comes before the ack that covers it"
                );
                duplicates += ack.duplicates;
                last = ack;
            }
            pb::publish_response::Response::Rejected(one) => {
                assert_eq!(Code::from(one.code), Code::InvalidArgument);
                rejected.push(one.sequence);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(welcomes, u64::from(expected.opened));
    assert_eq!(rejected, expected.rejected);
    assert_eq!(
        (last.payloads, duplicates),
        (expected.payloads, expected.duplicates)
    );
    expected.stored
}

#[derive(Debug, Clone)]
enum SubscribeFrame {
    Open,
    Nameless,
    Credit(u64, u64),
    /// So many tokens, of acks, nacks, extensions and give-ups; none of them was issued.
    Settle(Vec<(u8, Vec<u8>)>),
    Empty,
}

fn subscribe_frames() -> impl Strategy<Value = Vec<SubscribeFrame>> {
    let token = (0..4_u8, proptest::collection::vec(any::<u8>(), 0..40));
    let frame = prop_oneof![
        4 => (0..5_u64, prop_oneof![Just(0), Just(1), Just(1 << 20), Just(u64::MAX)])
            .prop_map(|(messages, bytes)| SubscribeFrame::Credit(messages, bytes)),
        4 => proptest::collection::vec(token, 0..5).prop_map(SubscribeFrame::Settle),
        1 => Just(SubscribeFrame::Open),
        1 => Just(SubscribeFrame::Nameless),
        1 => Just(SubscribeFrame::Empty),
    ];
    (any::<bool>(), proptest::collection::vec(frame, 0..8)).prop_map(|(opens_late, mut frames)| {
        if !opens_late || frames.is_empty() {
            frames.insert(0, SubscribeFrame::Open);
        }
        frames
    })
}

async fn subscribe_case(broker: &TestBroker, group: String, frames: &[SubscribeFrame], pieces: &[usize]) {
    use pb::subscribe_request::Request;
    let mut bytes = BytesMut::new();
    let (mut opened, mut end) = (false, None);
    let (mut credit, mut tokens) = (0, 0);
    for frame in frames {
        let name = if matches!(frame, SubscribeFrame::Nameless) {
            ""
        } else {
            &group
        };
        let request = match frame {
            SubscribeFrame::Open | SubscribeFrame::Nameless => Some(Request::Open(pb::SubscribeOpen {
                topic: "orders".to_owned(),
                group: name.to_owned(),
                ..pb::SubscribeOpen::default()
            })),
            SubscribeFrame::Credit(messages, bytes) => Some(Request::Credit(pb::ConsumerCredit {
                messages: *messages,
                bytes: *bytes,
            })),
            SubscribeFrame::Settle(all) => {
                let mut settle = pb::Settle::default();
                for (kind, token) in all {
                    let token = Bytes::from(token.clone());
                    match kind {
                        0 => settle.ack.push(token),
                        1 => settle.nack.push(pb::Nack {
                            token,
                            ..pb::Nack::default()
                        }),
                        2 => settle.extend.push(pb::Extend {
                            token,
                            deadline: None,
                        }),
                        _ => settle.give_up.push(token),
                    }
                }
                Some(Request::Settle(settle))
            }
            SubscribeFrame::Empty => None,
        };
        if end.is_none() {
            let is_right = match &request {
                Some(Request::Open(open)) => !opened && !open.group.is_empty(),
                Some(_) => opened,
                None => false,
            };
            if is_right {
                match frame {
                    SubscribeFrame::Credit(messages, _) => credit += messages,
                    SubscribeFrame::Settle(all) => tokens += all.len(),
                    _ => opened = true,
                }
            } else {
                end = Some(Code::InvalidArgument);
            }
        }
        bytes.extend_from_slice(&framed(&pb::SubscribeRequest { request }));
    }
    let talk = exchange::<pb::SubscribeResponse>(broker, "Subscribe", bytes.freeze(), pieces);
    let (said, code, text) = tokio::time::timeout(broker::PATIENCE, talk)
        .await
        .expect("it ends");
    assert_eq!(code, end.unwrap_or(Code::Ok), "{text}");
    let (mut delivered, mut answered) = (0, 0);
    for (at, response) in said.into_iter().enumerate() {
        use pb::subscribe_response::Response;
        match response.response.expect("a response") {
            Response::Welcome(_) => assert_eq!(at, 0),
            Response::Deliveries(batch) => delivered += batch.deliveries.len() as u64,
            Response::Settled(settled) => {
                assert!(settled.settled.is_empty(), "none of them was issued");
                answered += settled.refused.len();
            }
            Response::Pending(pending) => assert!(pending.messages <= credit),
            other => panic!("{other:?}"),
        }
    }
    assert!(delivered <= credit, "{delivered} of {credit}");
    // A stream that ends for a fault does not wait for answers.
    assert!(
        answered <= tokens && (end.is_some() || answered == tokens),
        "{answered} of {tokens}"
    );
}

fn run<S: Strategy>(strategy: &S, case: impl Fn(S::Value)) {
    let mut config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    if std::env::var("PROPTEST_CASES").is_err() {
        config.cases = 300;
    }
    let result = TestRunner::new(config).run(strategy, |value| {
        case(value);
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![1..20_usize, 20..5000_usize], 1..5)
}

#[test]
fn whatever_a_publisher_sends_each_payload_is_answered_once_and_what_is_acknowledged_is_there_once() {
    let runtime = Runtime::new().unwrap();
    let flags = ["--max-message-bytes", "1000"];
    let broker = runtime.block_on(one_broker(PARTITIONS, &flags));
    let next = AtomicU64::new(0);
    let stored = std::cell::RefCell::new(BTreeMap::new());
    let strategy = (any::<bool>(), publish_frames(), pieces());
    run(&strategy, |(is_producer, frames, pieces)| {
        let case = next.fetch_add(1, Ordering::Relaxed);
        let new = runtime.block_on(publish_case(&broker, (case, is_producer), &frames, &pieces));
        stored.borrow_mut().extend(new.into_iter().map(|body| (body, 0)));
    });
    let mut stored = stored.into_inner();
    let found = runtime.block_on(async {
        let mut subscriber = Subscriber::orders(&broker, "all").await;
        subscriber.credit(1 << 30);
        let mut found = subscriber.take(stored.len()).await;
        // One that is there twice would come now.
        let more = tokio::time::timeout(Duration::from_millis(500), subscriber.take(1)).await;
        found.extend(more.unwrap_or_default());
        found
    });
    for delivery in found {
        let body = String::from_utf8(delivery.body.to_vec()).unwrap();
        *stored
            .get_mut(&body)
            .unwrap_or_else(|| panic!("{body} was not acknowledged")) += 1;
    }
    assert!(stored.values().all(|&count| count == 1), "{stored:?}");
    println!("{} sequences, {} messages", next.into_inner(), stored.len());
}

#[test]
fn whatever_a_subscriber_sends_each_token_is_answered_once_and_no_more_comes_than_the_credit() {
    let runtime = Runtime::new().unwrap();
    let broker = runtime.block_on(one_broker(PARTITIONS, &[]));
    runtime.block_on(async {
        let mut publisher = broker::Publisher::orders(&broker).await;
        publisher.send(
            (1..=20)
                .map(|sequence| broker::payload(sequence, b"hello"))
                .collect(),
        );
        publisher.acked(20).await;
    });
    let next = AtomicU64::new(0);
    run(&(subscribe_frames(), pieces()), |(frames, pieces)| {
        let case = next.fetch_add(1, Ordering::Relaxed);
        // A few groups, so that members come to what others had.
        runtime.block_on(subscribe_case(
            &broker,
            format!("group-{}", case % 7),
            &frames,
            &pieces,
        ));
    });
    runtime.block_on(broker.pressure_becomes("nothing is left", |report| report.streams == 0));
}
