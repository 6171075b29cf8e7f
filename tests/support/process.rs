//! The real executable as a broker, configured as an operator would, and what can be seen of it from outside.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use sluice::pb;
use sluice::pb::control_client::ControlClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::Endpoint;

use super::ports::free_address;

/// Nothing here takes longer, unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A broker in a process of its own, killed when dropped.
pub struct BrokerProcess {
    child: Child,
    pub data: SocketAddr,
    control: SocketAddr,
    http: SocketAddr,
    directory: Option<tempfile::TempDir>,
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl BrokerProcess {
    /// A broker with the topic `orders`.
    pub async fn start(durability: pb::Durability, retention: pb::Retention, flags: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), 1, (durability, retention), flags).await
    }

    /// The same on a directory that was used before, with a newer configuration than then.
    pub async fn start_in(
        directory: tempfile::TempDir,
        generation: u64,
        (durability, retention): (pb::Durability, pb::Retention),
        flags: &[&str],
    ) -> Self {
        let port = || free_address().unwrap();
        let (data, control, http) = (port(), port(), port());
        let child = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(["broker", "--name", "orders-0", "--cluster", "default/orders"])
            .args(["--listen", &data.to_string()])
            .args(["--control-listen", &control.to_string()])
            .args(["--http-listen", &http.to_string()])
            .arg("--data-dir")
            .arg(directory.path())
            .args(flags)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let broker = Self {
            child,
            data,
            control,
            http,
            directory: Some(directory),
        };
        let configuration = pb::Configuration {
            generation,
            ..broker.configuration(durability, retention)
        };
        let endpoint = Endpoint::from_shared(format!("http://{control}")).unwrap();
        let configured = async {
            let channel = loop {
                match endpoint.connect().await {
                    Ok(channel) => break channel,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            ControlClient::new(channel)
                .configure(configuration)
                .await
                .unwrap()
        };
        let answer = tokio::time::timeout(PATIENCE, configured)
            .await
            .expect("it starts");
        assert_eq!(answer.into_inner().problems, []);
        broker
    }

    fn configuration(&self, durability: pb::Durability, retention: pb::Retention) -> pb::Configuration {
        let partition = |index| pb::PartitionConfiguration {
            index,
            epoch: 1,
            chain: vec![pb::ChainEntry {
                epoch: 1,
                brokers: vec!["orders-0".to_owned()],
                sealed_at: None,
            }],
        };
        pb::Configuration {
            generation: 1,
            broker: "orders-0".to_owned(),
            cluster: "default/orders".to_owned(),
            durability: durability.into(),
            channel: Some(pb::ChannelConfiguration { capacity: 128 }),
            limits: None,
            brokers: vec![pb::PeerEndpoint {
                name: "orders-0".to_owned(),
                address: self.data.to_string(),
                control_address: self.control.to_string(),
            }],
            topics: vec![pb::TopicConfiguration {
                name: "orders".to_owned(),
                uid: "uid-1".to_owned(),
                partitions: (0..4).map(partition).collect(),
                ack_deadline: Some(prost_types::Duration {
                    seconds: 30,
                    nanos: 0,
                }),
                max_deliveries: 0,
                dead_letter_topic: String::new(),
                retention: Some(retention),
            }],
            auto_create_topics: false,
            leader_term: 1,
        }
    }

    /// A page of its HTTP port.
    pub async fn page(&self, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// One value of `/metrics`: the name without `sluice_broker_`, with its labels where it has any.
    pub async fn metric(&self, name: &str) -> u64 {
        metric(&self.page("/metrics").await, name)
    }

    /// Its open files and sockets, less the log's segments, which come and go by retention.
    pub fn open_files(&self) -> usize {
        let directory = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        directory
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .filter(|target| !is_segment(target))
            .count()
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Its directory, to start another one on when this one has ended.
    pub fn take_directory(&mut self) -> tempfile::TempDir {
        self.directory.take().expect("it was not taken before")
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn wait(&mut self, at_most: Duration) -> Option<ExitStatus> {
        let end = tokio::time::Instant::now() + at_most;
        while tokio::time::Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }
}

fn is_segment(target: &Path) -> bool {
    target.extension().is_some_and(|extension| extension == "log")
}

/// One value of a page of metrics.
pub fn metric(page: &str, name: &str) -> u64 {
    let begin = format!("sluice_broker_{name} ");
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(&begin))
        .unwrap_or_else(|| panic!("no {name} in {page}"));
    line.trim().parse::<f64>().unwrap() as u64
}
