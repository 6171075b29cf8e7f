//! Bar P6: a stalled consumer and publishers that send all that they may cost no connection, and no more memory than
//! the limit says.

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

use std::time::{Duration, Instant};

use broker::{Publisher, connect, payload};
use process::BrokerProcess;
use raw::{RawConnection, stalled_member};
use sluice::pb;
use sluice::pb::broker_client::BrokerClient;
use sluice::pb::publish_response::Response;

const MAX_INFLIGHT: u64 = 32 << 20;
const ROOM: u64 = 64 << 20;

/// One message a frame, as much as the credit allows, until so many are acknowledged.
async fn flood(address: std::net::SocketAddr, size: usize, count: u64) {
    let mut client = BrokerClient::new(connect(address).await);
    let open = pb::PublishOpen {
        topic: "orders".to_owned(),
        ..pb::PublishOpen::default()
    };
    let mut stream = Publisher::open_on(&mut client, open).await.unwrap();
    let mut credit = stream.welcome.credit.unwrap();
    let body = vec![7; size];
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        while sent < acked + credit.messages.min(credit.bytes / size as u64) {
            sent += 1;
            stream.send(vec![payload(sent, &body)]);
        }
        match stream.next().await.unwrap().expect("the stream goes on") {
            Response::Ack(ack) => acked = ack.payloads,
            Response::Credit(new) => credit = new,
            other => panic!("{other:?}"),
        }
    }
}

/// The 99th percentile of how long a polite client waits for one message's acknowledgement.
async fn polite(address: std::net::SocketAddr, count: u64) -> Duration {
    let mut client = BrokerClient::new(connect(address).await);
    let open = pb::PublishOpen {
        topic: "orders".to_owned(),
        ..pb::PublishOpen::default()
    };
    let mut stream = Publisher::open_on(&mut client, open).await.unwrap();
    let mut waits = Vec::new();
    for sequence in 1..=count {
        let began = Instant::now();
        stream.send(vec![payload(sequence, b"polite")]);
        stream.acked(sequence).await;
        waits.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    waits.sort();
    waits[waits.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_consumer_and_flooding_publishers_cost_no_connection_and_bounded_memory() {
    let flags = ["--max-inflight-bytes", "32Mi", "--segment-bytes", "4Mi"];
    let retention = pb::Retention {
        bytes: 64 << 20,
        ..pb::Retention::default()
    };
    let broker = BrokerProcess::start(pb::Durability::Memory, retention, &flags).await;
    let alone = polite(broker.data, 200).await;
    let connection = RawConnection::open(broker.data).await.unwrap();
    let stalled = stalled_member(&connection).await;
    for size in [64, 1024] {
        let floods = (0..4).map(|_| flood(broker.data, size, 20_000));
        let (_, beside) = tokio::join!(futures::future::join_all(floods), polite(broker.data, 200));
        let memory = broker.resident();
        println!("{size} bytes: {memory} bytes resident, p99 {beside:?} beside the flood, {alone:?} alone");
        assert!(memory < MAX_INFLIGHT + ROOM, "{memory}");
    }
    // Neither the stalled one nor anybody else was cut off.
    let page = broker.page("/metrics").await;
    for reason in ["resets", "control", "protocol", "keepalive"] {
        let line = format!("sluice_broker_refused_connections_total{{reason=\"{reason}\"}} 0\n");
        assert!(page.contains(&line), "{page}");
    }
    assert_eq!(process::metric(&page, "group_members"), 1);
    drop(stalled);
}
