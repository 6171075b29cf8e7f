//! NATS JetStream: one server, file storage, an fsync before every ack; published with NATS' own benchmark.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use super::Programs;
use crate::process::{self, Server};

const LIMIT: Duration = Duration::from_secs(120);

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Nats {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
}

/// How it is published to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Message by message, 500 at a time unacknowledged, as `nats bench` does by default.
    Async,
    /// In atomic batches of 500.
    Atomic,
}

/// What `nats bench` prints: messages a second, and microseconds of an async window or batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printed {
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

pub(crate) async fn start(programs: &Programs, folder: &Path) -> anyhow::Result<Nats> {
    std::fs::create_dir_all(folder)?;
    let address = process::free_address()?;
    let configuration = folder.join("nats.conf");
    let text = format!(
        "listen: \"{address}\"\njetstream {{ store_dir: \"{}\", sync_interval: always, max_file_store: 20GB }}\n",
        folder.join("data").display()
    );
    std::fs::write(&configuration, text)?;
    let mut command = Command::new(&programs.nats_server);
    command.arg("-c").arg(&configuration);
    let mut server = Server::start("nats-server", &mut command, &folder.join("log"))?;
    server.ready(address).await?;
    Ok(Nats { server, address })
}

/// One load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) way: Way,
    pub(crate) clients: u32,
    pub(crate) size: u32,
    pub(crate) messages: u64,
    /// Messages a second; 0: as fast as it goes.
    pub(crate) rate: u64,
}

pub(crate) async fn publish(programs: &Programs, nats: &Nats, load: Load) -> anyhow::Result<Printed> {
    let way = match load.way {
        Way::Async => "async",
        Way::Atomic => "atomic",
    };
    let mut command = Command::new(&programs.nats);
    command
        .arg("--server")
        .arg(format!("nats://{}", nats.address))
        .args(["--no-context", "--timeout=30s", "bench", "js", "pub", way])
        .args([
            "--create",
            "--purge",
            "--storage=file",
            "--maxbytes=8GB",
            "--no-progress",
            "--batch=500",
        ])
        .arg(format!("--clients={}", load.clients))
        .arg(format!("--size={}", load.size))
        .arg(format!("--msgs={}", load.messages));
    if load.rate > 0 {
        command.arg(format!("--throughput={}", load.rate));
    }
    command.arg("bench.messages");
    let text = process::output(&mut command, LIMIT).await?;
    parse(&text).with_context(|| format!("nats bench printed something else than expected:\n{text}"))
}

/// The line of all clients is `... publisher [aggregated] stats: 1,048 msgs/sec ~ ... ~ P50: 444,331.24us ~ ...`.
fn parse(text: &str) -> Option<Printed> {
    let is_total = |line: &&str| line.contains("aggregated stats:");
    let line = text
        .lines()
        .find(is_total)
        .or_else(|| text.lines().find(|line| line.contains("stats:")))?;
    let (_, figures) = line.split_once("stats:")?;
    let number = |text: &str| -> Option<f64> {
        let digits: String = text
            .trim()
            .chars()
            .filter(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        digits.parse().ok()
    };
    let named = |name: &str| {
        let part = text
            .lines()
            .flat_map(|line| line.split('~'))
            .filter_map(|part| part.trim().strip_prefix(name))
            .next_back()?;
        number(part)
    };
    Some(Printed {
        rate: number(figures.split("msgs/sec").next()?)?,
        p50: named("P50:")?,
        p99: named("P99:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_one_client_are_read() {
        let text = "14:36:22 Purging the stream\n\nNATS JetStream atomic batch publisher stats: 15,273 msgs/sec ~ 3.7 MiB/sec ~ \
                    min: 4,927.43us ~ avg: 32,734.13us ~ max: 188,193.26us ~ P50: 17,038.86us ~ P90: 79,912.78us ~ \
                    P99: 158,058.70us ~ P99.9: 188,193.26us\n";
        let printed = parse(text).unwrap();
        assert_eq!(
            (printed.rate, printed.p50, printed.p99),
            (15273.0, 17038.86, 158_058.70)
        );
    }
}
