//! Publisher, subscriber and bench against real brokers: partitions that move in the middle of a load, a broker
//! that is killed.

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

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use broker::{TestBroker, Wanted};
use serde_json::Value;
use sluice::pb;

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// Runs a load; returns its exit code and summary.
async fn bench(address: String, topic: &str, more: &[&str]) -> (Option<i32>, Value) {
    let output = tokio::process::Command::new(SLUICE)
        .args([
            "bench",
            "--output",
            "json",
            "--address",
            &address,
            "--topic",
            topic,
        ])
        .args(more)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), output)
        .await
        .unwrap()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let summary = stdout
        .lines()
        .last()
        .map(|line| serde_json::from_str(line).unwrap());
    let stderr = String::from_utf8_lossy(&output.stderr);
    (
        output.status.code(),
        summary.unwrap_or_else(|| panic!("{stderr}")),
    )
}

fn assert_nothing_wrong(code: Option<i32>, summary: &Value, messages: u64) {
    for (name, expected) in [
        ("acknowledged", messages),
        ("delivered", messages),
        ("lost", 0),
        ("duplicated", 0),
        ("reordered", 0),
        ("damaged", 0),
        ("unknown", 0),
    ] {
        assert_eq!(summary[name], expected, "{name} in {summary}");
    }
    assert_eq!(code, Some(0));
}

/// Seals the open entry of a partition and extends the chain to another broker.
async fn move_partition(wanted: &mut Wanted, index: usize, from: &TestBroker, to: &TestBroker) {
    let partition = &mut wanted.configuration.topics[0].partitions[index];
    let entry = pb::EntryId {
        topic: "orders".to_owned(),
        topic_uid: "uid-1".to_owned(),
        partition: index as u32,
        epoch: partition.epoch,
    };
    let seal = pb::SealRequest { entry: Some(entry) };
    let sealed = from.operator().await.seal(seal).await.unwrap().into_inner();
    partition.chain.last_mut().unwrap().sealed_at = Some(sealed.sealed_at);
    partition.epoch += 1;
    partition.chain.push(pb::ChainEntry {
        epoch: partition.epoch,
        brokers: vec![to.name.clone()],
        sealed_at: None,
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_broker_takes_its_share_and_gives_it_back_in_the_middle_of_a_load() {
    let first = TestBroker::start("orders-0", &[]).await;
    let second = TestBroker::start("orders-1", &[]).await;
    let both = [&first, &second];
    let mut wanted = Wanted::spread(&both[..1], 4);
    wanted.configuration.brokers = Wanted::spread(&both, 4).configuration.brokers;
    wanted.apply(&both).await;
    let scale = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for index in [1, 3] {
            move_partition(&mut wanted, index, &first, &second).await;
        }
        wanted.offer(&[&second, &first]).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        move_partition(&mut wanted, 3, &second, &first).await;
        wanted.offer(&both).await;
    };
    let load = [
        "--rate",
        "1000",
        "--duration",
        "5s",
        "--keys",
        "200",
        "--publishers",
        "3",
    ];
    let rest = [
        "--subscribers",
        "2",
        "--producer-id",
        "moves",
        "--drain-timeout",
        "40s",
    ];
    let load = [&load[..], &rest].concat();
    let ((code, summary), ()) = tokio::join!(bench(first.data.to_string(), "orders", &load), scale);
    assert_nothing_wrong(code, &summary, 5000);
    // Partition 1 stayed with the second broker from then on: it took about 3.5 s of a quarter of the load.
    let taken = second.pressure().await.accepted_messages;
    assert!(taken > 500, "the second broker took {taken}: {summary}");
}

/// A broker process of its own, with ports and a directory that it finds again.
struct Process {
    child: Child,
    arguments: Vec<String>,
}

impl Process {
    fn start(directory: &Path) -> Self {
        let port = || ports::free_address().unwrap().to_string();
        let directory = directory.to_str().unwrap();
        let mut arguments = [
            "broker",
            "--standalone",
            "--topic",
            "load:8",
            "--data-dir",
            directory,
        ]
        .map(str::to_owned)
        .to_vec();
        for flag in ["--listen", "--control-listen", "--http-listen"] {
            arguments.extend([flag.to_owned(), port()]);
        }
        let child = Self::spawn(&arguments);
        Self { child, arguments }
    }

    fn spawn(arguments: &[String]) -> Child {
        let command = &mut Command::new(SLUICE);
        command.args(arguments).stderr(Stdio::null()).spawn().unwrap()
    }

    fn address(&self) -> String {
        self.arguments[7].clone()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_twice_loses_nothing_and_stores_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path());
    let address = process.address();
    let load = [
        "--rate",
        "1000",
        "--duration",
        "5s",
        "--keys",
        "50",
        "--publishers",
        "2",
    ];
    let rest = [
        "--subscribers",
        "2",
        "--producer-id",
        "killed",
        "--drain-timeout",
        "60s",
    ];
    let load = [&load[..], &rest].concat();
    let kill = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(1700)).await;
            process.kill();
            tokio::time::sleep(Duration::from_millis(200)).await;
            process.child = Process::spawn(&process.arguments);
        }
    };
    let ((code, summary), ()) = tokio::join!(bench(address, "load", &load), kill);
    assert_nothing_wrong(code, &summary, 5000);
    assert!(summary["reconnects"].as_u64() > Some(0), "{summary}");
}
