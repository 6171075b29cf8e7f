//! The broker's process, and the load's.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sluice::pb;

use super::quota::Quota;

const TOPIC: &str = "load";
const PARTITIONS: u32 = 6;

/// A broker that runs; gone when this is dropped, with all that it stored.
pub(crate) struct Broker {
    child: Child,
    pub(crate) listen: SocketAddr,
    pub(crate) control: SocketAddr,
    pub(crate) durability: pb::Durability,
    generation: u64,
    // In the order in which they go.
    pub(crate) quota: Quota,
    _directory: tempfile::TempDir,
}

impl Broker {
    /// Starts a standalone broker with so many thousandths of a core.
    pub(crate) fn start(millicores: u64, durability: pb::Durability, channel: u32) -> Result<Self> {
        let quota = Quota::of_millicores(millicores)?;
        let directory = tempfile::tempdir()?;
        let free = || -> Result<SocketAddr> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?) };
        let (listen, control, http) = (free()?, free()?, free()?);
        let mut command = quota.command(std::env::current_exe()?);
        command
            .args(["broker", "--standalone", "--name", "broker-0"])
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--listen", &listen.to_string()])
            .args(["--control-listen", &control.to_string()])
            .args(["--http-listen", &http.to_string()])
            .args(["--topic", &format!("{TOPIC}:{PARTITIONS}")])
            .args(["--channel-capacity", &channel.to_string()])
            .stdin(Stdio::null());
        if durability == pb::Durability::Memory {
            command.arg("--memory-durability");
        }
        let child = command.spawn().context("cannot start the broker")?;
        Ok(Self {
            child,
            listen,
            control,
            durability,
            generation: 1,
            quota,
            _directory: directory,
        })
    }

    /// What the operator would send to set the channel's capacity.
    pub(crate) fn configuration(&mut self, channel: u32) -> pb::Configuration {
        self.generation += 1;
        let partition = |index| pb::PartitionConfiguration {
            index,
            epoch: 1,
            chain: vec![pb::ChainEntry {
                epoch: 1,
                brokers: vec!["broker-0".to_owned()],
                sealed_at: None,
            }],
        };
        pb::Configuration {
            generation: self.generation,
            broker: "broker-0".to_owned(),
            cluster: "standalone/standalone".to_owned(),
            durability: self.durability.into(),
            channel: Some(pb::ChannelConfiguration { capacity: channel }),
            limits: None,
            brokers: vec![pb::PeerEndpoint {
                name: "broker-0".to_owned(),
                address: self.listen.to_string(),
                control_address: self.control.to_string(),
            }],
            topics: vec![pb::TopicConfiguration {
                name: TOPIC.to_owned(),
                uid: format!("standalone-{TOPIC}"),
                partitions: (0..PARTITIONS).map(partition).collect(),
                ack_deadline: prost_types::Duration::try_from(Duration::from_secs(30)).ok(),
                ..pb::TopicConfiguration::default()
            }],
            auto_create_topics: false,
            leader_term: 1,
        }
    }

    /// Starts `sluice bench` against it: publishers, and so many consumers.
    pub(crate) fn load(&self, consumers: u64, arguments: &[String]) -> Result<Load> {
        let (mode, subscribers) = match consumers {
            0 => ("publish", 1),
            _ => ("both", consumers),
        };
        let child = Command::new(std::env::current_exe()?)
            .args(["bench", "--mode", mode, "--output", "json", "--topic", TOPIC])
            .args(["--subscribers", &subscribers.to_string(), "--from", "latest"])
            .args(["--drain-timeout", "2s"])
            .args(["--address", &self.listen.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the load")?;
        Ok(Load(child))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = killed {
            eprintln!("cannot stop the broker: {error}");
        }
    }
}

/// A load that runs, bounded in time by what it was told.
pub(crate) struct Load(Child);

impl Load {
    /// Its lines, as JSON, once it has ended. What it could not send within its time does not make it fail here.
    pub(crate) async fn lines(mut self) -> Result<Vec<serde_json::Value>> {
        let output = self.0.stdout.take().context("the load has no output")?;
        let text = tokio::task::spawn_blocking(move || std::io::read_to_string(output)).await??;
        self.0.wait()?;
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }
}
