//! NATS JetStream: one server, file storage, an fsync before every ack; published with NATS' own benchmark.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use super::Programs;
use crate::ports;
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
    /// Message by message, some of them unacknowledged.
    Async,
    /// In atomic batches.
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
    let address = ports::free_address()?;
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
    /// Of each stream.
    pub(crate) clients: u32,
    pub(crate) size: u32,
    /// To each stream.
    pub(crate) messages: u64,
    /// Messages of an atomic batch, or unacknowledged.
    pub(crate) window: u32,
    /// Streams, for want of partitions; each with a benchmark of its own.
    pub(crate) streams: u32,
    /// Messages a second; 0: as fast as it goes.
    pub(crate) rate: u64,
}

/// Publishes to all streams at once. The rate is the sum of theirs, p50 and p99 those of the stream with the worst.
pub(crate) async fn publish(programs: &Programs, nats: &Nats, load: Load) -> anyhow::Result<Printed> {
    let all = (0..load.streams).map(|stream| publish_one(programs, nats, load, stream));
    let all = futures::future::try_join_all(all).await?;
    Ok(Printed {
        rate: all.iter().map(|one| one.rate).sum(),
        p50: all.iter().map(|one| one.p50).fold(0.0, f64::max),
        p99: all.iter().map(|one| one.p99).fold(0.0, f64::max),
    })
}

async fn publish_one(programs: &Programs, nats: &Nats, load: Load, stream: u32) -> anyhow::Result<Printed> {
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
            "--maxbytes=1GB",
            "--no-progress",
        ])
        .arg(format!("--batch={}", load.window))
        .arg(format!("--stream=bench-{stream}"))
        .arg(format!("--clients={}", load.clients))
        .arg(format!("--size={}", load.size))
        .arg(format!("--msgs={}", load.messages));
    if load.rate > 0 {
        command.arg(format!("--throughput={}", load.rate));
    }
    command.arg(format!("bench{stream}.messages"));
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
    // That of all clients, where there are several, is on a line of its own.
    let of_all = text.lines().find(|line| line.contains("latencies per operation"));
    let latencies = of_all.or_else(|| text.lines().find(|line| line.contains("P50:")))?;
    let named = |name: &str| {
        let mut parts = latencies.split(['~', '|']).map(str::trim);
        // Where it is of all clients, there is no colon.
        let part = parts.find_map(|part| {
            let rest = part.strip_prefix(name)?;
            rest.starts_with([':', ' ']).then_some(rest)
        })?;
        number(part)
    };
    Some(Printed {
        rate: number(figures.split("msgs/sec").next()?)?,
        p50: named("P50")?,
        p99: named("P99")?,
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

    #[test]
    fn the_figures_of_several_clients_are_those_of_all_of_them() {
        let text = "  [1] 48,965 msgs/sec ~ 12 MiB/sec ~ min: 6,013.86us ~ P50: 8,309.49us ~ P99: 15,685.37us ~ P99.9: 15,685.37us\n  \
                    [2] 49,170 msgs/sec ~ 12 MiB/sec ~ min: 5,883.09us ~ P50: 10,740.65us ~ P99: 12,879.63us ~ P99.9: 12,879.63us\n\n \
                    NATS JetStream asynchronous publisher aggregated stats: 97,629 msgs/sec ~ 24 MiB/sec\n \
                    message rates min 48,965 | avg 49,067 | max 49,170 | stddev 102 msgs\n \
                    latencies per operation min 5,883.09us | avg 10,157.27us | max 15,685.37us | stddev 10,617.96us | \
                    P50 10,740.65us | P90 15,685.37us | P99 15,685.37us | P99.9: 15,685.37us\n";
        let printed = parse(text).unwrap();
        assert_eq!(
            (printed.rate, printed.p50, printed.p99),
            (97629.0, 10740.65, 15685.37)
        );
    }
}
