//! What connections and streams cost in memory (bars P2 and P3): starts a broker in a process of its own, opens idle
//! publish streams, and prints the broker's resident memory.
//!
//! ```sh
//! cargo build --release --bin sluice --example memory
//! target/release/examples/memory target/release/sluice
//! ```

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement that cannot go on ends"
)]

#[path = "../tests/support/raw.rs"]
mod raw;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::stream::{StreamExt as _, TryStreamExt as _};
use raw::{RawConnection, RawStream, Said, framed};
use sluice::pb;

/// Both processes need a file for each connection, and a few more.
const MOST_FILES: u64 = 20_000;
const STEPS: [usize; 5] = [1000, 4000, 8000, 12_000, 16_000];

struct Broker {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Broker {
    async fn start(program: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let child = Command::new(program)
            .args([
                "broker",
                "--standalone",
                "--memory-durability",
                "--topic",
                "orders:4",
            ])
            .args(["--listen", &address.to_string()])
            .args(["--control-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(directory.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the broker's executable starts");
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self {
            child,
            address,
            _directory: directory,
        }
    }

    /// Resident memory in bytes, once nothing happens any more.
    async fn resident(&self) -> u64 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

async fn stream(connection: &RawConnection) -> RawStream {
    let mut stream = connection.call("Publish").await.unwrap();
    let open = pb::PublishRequest {
        request: Some(pb::publish_request::Request::Open(pb::PublishOpen {
            topic: "orders".to_owned(),
            ..pb::PublishOpen::default()
        })),
    };
    stream.send(framed(&open), false).unwrap();
    match stream.read().await {
        Said::Bytes(_) => stream,
        other => panic!("no welcome but {other:?}"),
    }
}

async fn connections(address: SocketAddr, count: usize) -> Vec<RawConnection> {
    futures::stream::iter(0..count)
        .map(|_| RawConnection::open(address))
        .buffer_unordered(64)
        .try_collect()
        .await
        .expect("a connection")
}

async fn streams(connections: &[RawConnection], each: usize) -> Vec<RawStream> {
    futures::stream::iter(connections.iter().flat_map(|one| std::iter::repeat_n(one, each)))
        .map(stream)
        .buffer_unordered(64)
        .collect()
        .await
}

/// The slope of a line through the points, by least squares.
fn slope(points: &[(usize, u64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: &dyn Fn(&(usize, u64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(&|point| point.0 as f64), mean(&|point| point.1 as f64));
    let above: f64 = points
        .iter()
        .map(|&(n, bytes)| (n as f64 - x) * (bytes as f64 - y))
        .sum();
    let below: f64 = points.iter().map(|&(n, _)| (n as f64 - x).powi(2)).sum();
    above / below
}

async fn grow(program: &str, with_stream: bool) {
    let broker = Broker::start(program).await;
    let (mut open, mut opened) = (Vec::new(), Vec::new());
    let empty = broker.resident().await;
    println!("{:>8} connections {empty:>12} bytes", 0);
    let mut points = Vec::new();
    for step in STEPS {
        let more = connections(broker.address, step - open.len()).await;
        if with_stream {
            opened.extend(streams(&more, 1).await);
        }
        open.extend(more);
        let resident = broker.resident().await;
        println!("{step:>8} connections {resident:>12} bytes");
        points.push((step, resident));
    }
    println!("         {:.1} bytes a connection", slope(&points));
}

#[tokio::main]
async fn main() {
    let program = std::env::args()
        .nth(1)
        .expect("the path of the sluice executable");
    let limit = rustix::process::Rlimit {
        current: Some(MOST_FILES),
        maximum: Some(MOST_FILES),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("20,000 files may be open");
    println!("idle connections:");
    grow(&program, false).await;
    println!("connections with one idle publish stream (P2):");
    grow(&program, true).await;
    println!("50,000 idle publish streams on 500 connections (P3):");
    let broker = Broker::start(&program).await;
    let empty = broker.resident().await;
    let open = connections(broker.address, 500).await;
    let opened = streams(&open, 100).await;
    let resident = broker.resident().await;
    println!(
        "{resident} bytes ({empty} before), {:.1} bytes a stream",
        (resident - empty) as f64 / opened.len() as f64
    );
    drop((opened, open));
    println!("{} bytes when they are gone", broker.resident().await);
}
