//! Where a subscription starts and in which order it comes, by the client and the command line against real brokers.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

#[path = "support/broker.rs"]
mod broker;

use std::collections::HashMap;
use std::time::Duration;

use broker::{PATIENCE, Publisher, TestBroker, Wanted, one_broker, payload};
use sluice::client::{Client, Delivery, Subscriber};
use sluice::pb;
use sluice::pb::publish_response::Response;

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

fn keyed(sequence: u64, key: &str) -> pb::Payload {
    pb::Payload {
        key: key.to_owned().into(),
        ..payload(sequence, sequence.to_string().as_bytes())
    }
}

/// Publishes, and returns the last offset.
async fn publish(broker: &TestBroker, payloads: Vec<pb::Payload>) -> u64 {
    let mut publisher = Publisher::orders(broker).await;
    let mut said = Vec::new();
    for batch in payloads.chunks(100) {
        publisher.send(batch.to_vec());
        said = publisher.acked(batch.last().unwrap().sequence).await;
    }
    publisher.finish().await;
    let Some(Response::Ack(ack)) = said.last() else {
        panic!("{said:?}")
    };
    ack.offsets[0].offset
}

/// What `sluice sub` prints, and its exit code.
async fn sub(broker: &TestBroker, group: &str, more: &[&str]) -> (Vec<String>, Option<i32>, String) {
    let address = broker.data.to_string();
    let output = tokio::process::Command::new(SLUICE)
        .args([
            "sub",
            "--address",
            &address,
            "--topic",
            "orders",
            "--group",
            group,
        ])
        .args(more)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), output)
        .await
        .unwrap()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (
        lines.lines().map(str::to_owned).collect(),
        output.status.code(),
        errors,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_four_starts_hold_on_the_command_line() {
    let broker = one_broker(1, &[]).await;
    publish(&broker, (1..=3).map(|n| keyed(n, "k")).collect()).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let between = k8s_openapi::jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap();
    let last = publish(&broker, (4..=5).map(|n| keyed(n, "k")).collect()).await;
    let offset = format!("offset:{last}");
    let time = format!("time:{between}");
    for (from, expected) in [
        ("earliest", &["1", "2", "3", "4", "5"][..]),
        (&offset, &["5"]),
        (&time, &["4", "5"]),
        ("time:2001-01-01T00:00:00Z", &["1", "2", "3", "4", "5"]),
    ] {
        let max = expected.len().to_string();
        let (lines, code, errors) = sub(
            &broker,
            from,
            &["--from", from, "--max", &max, "--timeout", "20s"],
        )
        .await;
        assert_eq!(lines, expected, "{from}: {errors}");
        assert_eq!(code, Some(0));
    }
    // What comes after the end comes, and nothing before.
    for from in ["latest", "time:2999-01-01T00:00:00Z"] {
        let (lines, code, errors) = sub(&broker, from, &["--from", from, "--timeout", "500ms"]).await;
        assert_eq!((lines, code), (Vec::new(), Some(0)), "{errors}");
    }
    publish(&broker, vec![keyed(6, "k")]).await;
    for from in ["latest", "time:2999-01-01T00:00:00Z"] {
        let (lines, ..) = sub(&broker, from, &["--from", from, "--max", "1", "--timeout", "20s"]).await;
        assert_eq!(lines, ["6"], "{from}");
    }
}

async fn next(subscriber: &mut Subscriber) -> Delivery {
    tokio::time::timeout(PATIENCE, subscriber.next())
        .await
        .expect("a message")
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_comes_one_by_one_to_ordered_members_through_any_broker() {
    let (a, b) = (
        TestBroker::start("orders-0", &[]).await,
        TestBroker::start("orders-1", &[]).await,
    );
    Wanted::spread(&[&a, &b], 4).apply(&[&a, &b]).await;
    const KEYS: u64 = 20;
    const ALL: u64 = 400;
    let keyed = |n: u64| keyed(n, &format!("key-{}", n % KEYS));
    publish(&a, (1..=ALL).map(keyed).collect()).await;
    let options = sluice::client::ClientOptions {
        forward: true,
        ..sluice::client::ClientOptions::default()
    };
    let forwarded = Client::connect_with([a.data.to_string()], options).await.unwrap();
    let direct = Client::connect([b.data.to_string()]).await.unwrap();
    let mut one = forwarded
        .subscriber("orders", "g")
        .ordered(true)
        .open()
        .await
        .unwrap();
    let mut two = direct
        .subscriber("orders", "g")
        .ordered(true)
        .open()
        .await
        .unwrap();
    // One that is not ordered is told what the others are; it may try until they have left.
    let refused = forwarded
        .subscriber("orders", "g")
        .open_timeout(Duration::from_secs(2))
        .open()
        .await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("ordered: true"), "{refused}");
    let mut seen: HashMap<u64, u64> = HashMap::new();
    for count in 0..ALL {
        let delivery = tokio::select! {
            delivery = next(&mut one) => delivery,
            delivery = next(&mut two) => delivery,
        };
        let n: u64 = String::from_utf8_lossy(&delivery.body).parse().unwrap();
        let before = seen.insert(n % KEYS, n);
        let expected = before.map_or(if n.is_multiple_of(KEYS) { KEYS } else { n % KEYS }, |before| {
            before + KEYS
        });
        assert_eq!(n, expected, "after {before:?}, as number {count}");
        delivery.ack();
    }
    one.close().await;
    two.close().await;
    let (lines, code, errors) = sub(&b, "printed", &["--ordered", "--max", "400", "--timeout", "20s"]).await;
    assert_eq!((lines.len(), code), (400, Some(0)), "{errors}");
    for key in 0..KEYS {
        let numbers = lines.iter().map(|line| line.parse::<u64>().unwrap());
        assert!(numbers.filter(|n| n % KEYS == key).is_sorted());
    }
}
