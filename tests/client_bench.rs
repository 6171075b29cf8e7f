//! That `sluice bench` sees what goes wrong, and says so in its exit code.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

mod client_support;

use std::process::Output;
use std::time::Duration;

use client_support::{Cluster, TOPIC};
use serde_json::Value;

async fn bench(cluster: &Cluster, more: &[&str]) -> (Option<i32>, Value, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["bench", "--topic", TOPIC, "--output", "json"])
        .env("SLUICE_BENCH_DRAIN_TIMEOUT", "2s")
        .args(["--address", &cluster.addresses().join(",")])
        .args(more)
        .env_remove("SLUICE_LOG")
        .output();
    let Output {
        status,
        stdout,
        stderr,
    } = tokio::time::timeout(Duration::from_secs(60), output)
        .await
        .unwrap()
        .unwrap();
    let stdout = String::from_utf8(stdout).unwrap();
    let lines: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let summary = lines.last().cloned().unwrap_or_default();
    (status.code(), summary, String::from_utf8(stderr).unwrap())
}

fn counts<const N: usize>(summary: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| {
        summary[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name} in {summary}"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_without_faults_accounts_for_every_message() {
    let cluster = Cluster::start(2, 4).await;
    let load = [
        "--schedule",
        "500:500ms,2000:500ms",
        "--publishers",
        "3",
        "--subscribers",
        "2",
    ];
    let (code, summary, stderr) = bench(
        &cluster,
        &[
            &load[..],
            &["--keys", "50", "--producer-id", "p", "--nack-every", "10"],
        ]
        .concat(),
    )
    .await;
    assert_eq!(code, Some(0), "{stderr} {summary}");
    let names = ["offered", "published", "acknowledged", "delivered"];
    assert_eq!(counts(&summary, names), [1250; 4], "{summary}");
    let names = [
        "lost",
        "duplicated",
        "reordered",
        "damaged",
        "unknown",
        "rejected",
        "foreign",
    ];
    assert_eq!(counts(&summary, names), [0; 7], "{summary}");
    assert_eq!(summary["corrected"], true);
    assert!(counts(&summary, ["nacked"])[0] >= 125, "{summary}");
    cluster.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_acknowledged_and_not_stored_are_found_lost() {
    let cluster = Cluster::start(1, 2).await;
    cluster.set(|faults| faults.lose_every = 100);
    let (code, summary, stderr) = bench(&cluster, &["--rate", "1000", "--messages", "1000"]).await;
    assert_eq!(
        (code, counts(&summary, ["acknowledged", "lost"])),
        (Some(1), [1000, 10]),
        "{summary}"
    );
    assert_eq!(summary["lostExamples"][0], serde_json::json!([0, 99]));
    assert!(
        stderr.contains("10 messages were acknowledged and not delivered within --drain-timeout"),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_stored_twice_are_wrong_only_with_a_producer_id() {
    for (more, code) in [(&["--producer-id", "p"][..], 1), (&[], 0)] {
        let cluster = Cluster::start(1, 2).await;
        cluster.set(|faults| faults.duplicate_every = 50);
        let arguments = [&["--rate", "0", "--messages", "500", "--duration", "5s"], more].concat();
        let (exit, summary, _) = bench(&cluster, &arguments).await;
        assert_eq!(
            (exit, counts(&summary, ["duplicated", "lost"])),
            (Some(code), [10, 0]),
            "{summary}"
        );
        assert_eq!(summary["corrected"], false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_stored_out_of_order_are_found() {
    let cluster = Cluster::start(1, 1).await;
    cluster.set(|faults| faults.swap_every = 100);
    let load = ["--rate", "1000", "--messages", "500", "--producer-id", "p"];
    let (code, summary, _) = bench(&cluster, &load).await;
    assert_eq!(code, Some(1), "{summary}");
    assert!(counts(&summary, ["reordered"])[0] > 0, "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_seen_by_every_message_that_was_due_in_it() {
    let cluster = Cluster::start(1, 1).await;
    // One message at a time and 20 ms for each: 50 a second of 500 that are due.
    cluster.set(|faults| {
        faults.credit = (1, 1 << 20);
        faults.ack_delay = Duration::from_millis(20);
    });
    let load = [
        "--rate",
        "500",
        "--duration",
        "1s",
        "--mode",
        "publish",
        "--drain-timeout",
        "30s",
    ];
    let (code, summary, stderr) = bench(&cluster, &load).await;
    assert_eq!(code, Some(0), "{stderr}");
    let latency = &summary["publishLatency"];
    assert_eq!(latency["count"], 500, "{summary}");
    // A closed loop would report 20 ms for all of them; the last one was due 9 s before it was acknowledged.
    assert!(latency["p50"].as_u64() > Some(3_000_000), "{summary}");
    assert!(latency["max"].as_u64() > Some(8_000_000), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_at_the_end_is_unknown_and_not_lost() {
    let cluster = Cluster::start(1, 1).await;
    cluster.set(|faults| faults.ack_delay = Duration::from_secs(60));
    let (code, summary, _) = bench(&cluster, &["--rate", "100", "--messages", "20"]).await;
    let names = ["published", "acknowledged", "unknown", "lost"];
    assert_eq!(
        (code, counts(&summary, names)),
        (Some(0), [20, 0, 20, 0]),
        "{summary}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_and_lost_streams_in_the_middle_of_a_load_lose_and_duplicate_nothing() {
    let cluster = Cluster::start(3, 6).await;
    let load = [
        "--rate",
        "2000",
        "--duration",
        "2s",
        "--publishers",
        "2",
        "--keys",
        "100",
        "--producer-id",
        "p",
    ];
    let disturb = async {
        for round in 0..8 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cluster.give(round % 6, (round + 1) % 3, round % 2 == 0);
            cluster.cut_streams();
        }
        cluster.push_topology();
    };
    let ((code, summary, stderr), ()) = tokio::join!(bench(&cluster, &load), disturb);
    assert_eq!(code, Some(0), "{stderr} {summary}");
    let names = ["acknowledged", "lost", "duplicated", "reordered"];
    assert_eq!(counts(&summary, names), [4000, 0, 0, 0], "{summary}");
    assert!(counts(&summary, ["reconnects"])[0] > 0, "{summary}");
    cluster.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_holds_every_acknowledged_message() {
    let cluster = Cluster::start(1, 2).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("acked");
    let path = path.to_str().unwrap();
    let (code, _, _) = bench(&cluster, &["--rate", "0", "--messages", "300", "--record", path]).await;
    assert_eq!(code, Some(0));
    let text = std::fs::read_to_string(path).unwrap();
    let mut numbers: Vec<u64> = text
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            assert!(
                fields.len() == 5 && fields[0] == "0" && ["=", "<"].contains(&fields[4]),
                "{line}"
            );
            fields[1].parse().unwrap()
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());
}
