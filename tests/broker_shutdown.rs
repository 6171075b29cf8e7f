//! SIGTERM under load, with the real executable.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

#[path = "support/broker.rs"]
mod broker;
#[path = "support/ports.rs"]
mod ports;
#[path = "support/process.rs"]
mod process;
#[path = "support/raw.rs"]
mod raw;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::{Publisher, connect};
use bytes::Bytes;
use process::BrokerProcess;
use raw::{RawConnection, RawStream, framed, stalled_member};
use sluice::pb;
use sluice::pb::broker_client::BrokerClient;
use sluice::pb::publish_response::Response;

const PUBLISHERS: u64 = 4;

/// What one publisher was told.
struct Told {
    acked: u64,
    sent: u64,
    goes_away: bool,
    /// How the stream ended.
    end: Result<(), tonic::Status>,
}

fn message(publisher: u64, sequence: u64) -> String {
    format!("{publisher}:{sequence}")
}

/// Sends as much as the credit allows until it is told to stop, and reads to the end.
async fn flood(address: SocketAddr, publisher: u64, acked: Arc<AtomicU64>) -> Told {
    let mut client = BrokerClient::new(connect(address).await);
    let open = pb::PublishOpen {
        topic: "orders".to_owned(),
        ..pb::PublishOpen::default()
    };
    let mut stream = Publisher::open_on(&mut client, open).await.unwrap();
    let mut credit = stream.welcome.credit.unwrap().messages;
    let mut told = Told {
        acked: 0,
        sent: 0,
        goes_away: false,
        end: Ok(()),
    };
    loop {
        while !told.goes_away && told.sent + 4 - told.acked <= credit {
            let some = (told.sent + 1..=told.sent + 4).map(|sequence| pb::Payload {
                sequence,
                body: message(publisher, sequence).into(),
                ..pb::Payload::default()
            });
            stream.send(some.collect());
            told.sent += 4;
        }
        match stream.next().await {
            Ok(Some(Response::Ack(ack))) => {
                acked.fetch_add(ack.sequence - told.acked, Ordering::Relaxed);
                told.acked = ack.sequence;
            }
            Ok(Some(Response::Credit(new))) => credit = new.messages,
            Ok(Some(Response::GoAway(_))) => told.goes_away = true,
            Ok(Some(_)) => {}
            Ok(None) => return told,
            Err(status) => {
                told.end = Err(status);
                return told;
            }
        }
    }
}

/// A publisher that sends a little and reads nothing.
async fn deaf(connection: &RawConnection) -> RawStream {
    let mut stream = connection.call("Publish").await.unwrap();
    let requests = [
        pb::publish_request::Request::Open(pb::PublishOpen {
            topic: "orders".to_owned(),
            ..pb::PublishOpen::default()
        }),
        pb::publish_request::Request::Batch(pb::PublishBatch {
            payloads: vec![pb::Payload {
                sequence: 1,
                body: Bytes::from_static(b"deaf"),
                ..pb::Payload::default()
            }],
            waited_nanos: 0,
            offered_messages: None,
        }),
    ];
    for request in requests {
        let request = pb::PublishRequest {
            request: Some(request),
        };
        stream.send(framed(&request), false).unwrap();
    }
    stream
}

/// Every message there is, until all that are wanted were found.
async fn find(address: SocketAddr, mut wanted: HashSet<String>) {
    let mut client = BrokerClient::new(connect(address).await);
    let open = pb::subscribe_request::Request::Open(pb::SubscribeOpen {
        topic: "orders".to_owned(),
        group: "all".to_owned(),
        ..pb::SubscribeOpen::default()
    });
    let credit = pb::subscribe_request::Request::Credit(pb::ConsumerCredit {
        messages: 1 << 30,
        bytes: 1 << 40,
    });
    let requests = [open, credit].map(|request| pb::SubscribeRequest {
        request: Some(request),
    });
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter(requests), tokio_stream::pending());
    let mut responses = client.subscribe(requests).await.unwrap().into_inner();
    while !wanted.is_empty() {
        let response = tokio::time::timeout(process::PATIENCE, responses.message()).await;
        let Ok(Ok(Some(response))) = response else {
            panic!(
                "{} acknowledged messages are not there: {response:?}",
                wanted.len()
            )
        };
        if let Some(pb::subscribe_response::Response::Deliveries(batch)) = response.response {
            for one in batch.deliveries {
                wanted.remove(std::str::from_utf8(&one.body).unwrap());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_finishes_what_was_accepted_and_waits_for_nobody_who_does_not_read() {
    let kept = (pb::Durability::Fsync, pb::Retention::default());
    let mut broker = BrokerProcess::start(
        kept.0,
        kept.1,
        &["--shutdown-grace", "60s", "--segment-bytes", "4Mi"],
    )
    .await;
    let connection = RawConnection::open(broker.data).await.unwrap();
    let _stalled = stalled_member(&connection).await;
    let _deaf = deaf(&connection).await;
    let _idle = connect(broker.data).await;
    let acked = Arc::new(AtomicU64::new(0));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| tokio::spawn(flood(broker.data, publisher, Arc::clone(&acked))))
        .collect();
    let running = async {
        while acked.load(Ordering::Relaxed) < 2000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(process::PATIENCE, running)
        .await
        .expect("it takes messages");
    broker.terminate();
    let mut wanted = HashSet::new();
    for (publisher, task) in publishers.into_iter().enumerate() {
        let told = task.await.unwrap();
        assert!(told.goes_away, "publisher {publisher} was not told");
        told.end.expect("the stream ends well");
        assert_eq!(told.acked, told.sent, "what was sent in time is acknowledged");
        wanted.extend((1..=told.acked).map(|sequence| message(publisher as u64, sequence)));
    }
    // Far below its grace.
    let status = broker.wait(Duration::from_secs(30)).await;
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    let directory = broker.take_directory();
    let again = BrokerProcess::start_in(directory, 2, kept, &["--segment-bytes", "4Mi"]).await;
    find(again.data, wanted).await;
}
