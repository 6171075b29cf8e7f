//! Sluice: one broker, standalone, and its own client.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::process::Command;

use super::Programs;
use crate::ports;
use crate::process::{self, Server};
use crate::processors::{Share, on};

/// The topic of every load.
pub(crate) const TOPIC: &str = "bench";
/// A topic for clients that have nothing to do with it.
pub(crate) const OTHER_TOPIC: &str = "other";
/// Messages between network and log, over all streams. In a cluster the operator finds this figure; a standalone broker
/// is told.
const CHANNEL: &str = "32768";

/// How a broker is to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) partitions: u32,
    /// Acknowledge from memory.
    pub(crate) is_memory: bool,
}

/// A broker that runs.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
}

/// Starts a broker on a folder.
pub(crate) async fn start(programs: &Programs, folder: &Path, settings: Settings) -> anyhow::Result<Broker> {
    let (mut command, address) = command(programs, folder, settings)?;
    let server = Server::start("sluice", &mut command, &folder.join("log"))?;
    Broker::ready(server, address).await
}

/// The same, on the processors that are the servers' where a load has its own.
pub(crate) async fn start_apart(
    programs: &Programs,
    folder: &Path,
    settings: Settings,
) -> anyhow::Result<Broker> {
    let (mut command, address) = command(programs, folder, settings)?;
    let log = folder.join("log");
    let server = on(Share::Server, || Server::start("sluice", &mut command, &log))?;
    Broker::ready(server, address).await
}

impl Broker {
    async fn ready(mut server: Server, address: SocketAddr) -> anyhow::Result<Self> {
        server.ready(address).await?;
        Ok(Self { server, address })
    }
}

/// What starts it, and where it will serve.
pub(super) fn command(
    programs: &Programs,
    folder: &Path,
    settings: Settings,
) -> anyhow::Result<(Command, SocketAddr)> {
    std::fs::create_dir_all(folder)?;
    let address = ports::free_address()?;
    let (control, http) = (ports::free_address()?, ports::free_address()?);
    let mut command = Command::new(&programs.sluice);
    command
        .args([
            "broker",
            "--standalone",
            "--name",
            "bench-0",
            "--channel-capacity",
            CHANNEL,
        ])
        .args(["--topic", &format!("{TOPIC}:{}", settings.partitions)])
        .args(["--topic", &format!("{OTHER_TOPIC}:4")])
        .arg(format!("--listen={address}"))
        .arg(format!("--control-listen={control}"))
        .arg(format!("--http-listen={http}"))
        .arg("--data-dir")
        .arg(folder.join("data"));
    if settings.is_memory {
        command.arg("--memory-durability");
    }
    Ok((command, address))
}

/// The last line of `sluice bench --output json`, as far as it is used.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) acknowledged: u64,
    pub(crate) acknowledged_rate: f64,
    pub(crate) delivered: u64,
    pub(crate) unknown: u64,
    pub(crate) reconnects: u64,
    pub(crate) publish_latency: Option<Percentiles>,
    pub(crate) delivery_latency: Option<Percentiles>,
}

/// Microseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// For `sluice bench` where latency is what counts: else its own timers would be most of it.
pub(crate) const FINE_TICK: &str = "--tick-micros=500";

/// Runs `sluice bench`, from the call on.
pub(crate) fn bench(
    programs: &Programs,
    broker: SocketAddr,
    arguments: &[String],
    limit: Duration,
) -> impl Future<Output = anyhow::Result<Summary>> + use<> {
    let mut command = Command::new(&programs.sluice);
    command
        .arg("bench")
        .arg(format!("--address={broker}"))
        .args(["--output", "json"])
        .args(arguments);
    if !arguments.iter().any(|argument| argument.starts_with("--topic")) {
        command.args(["--topic", TOPIC]);
    }
    let running = process::output(&mut command, limit);
    async move {
        let text = running.await?;
        let line = text.lines().last().context("sluice bench printed nothing")?;
        serde_json::from_str(line).with_context(|| format!("the summary of sluice bench: {line}"))
    }
}
