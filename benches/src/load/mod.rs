//! The load generator: one for all servers, open loop. Every message has an intended time that is fixed before the
//! load starts, and its latency counts from there, so that a server that is slow cannot hide it by slowing the load.

mod article;
mod connect;
mod latency;
mod pace;
mod sluice;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::proc;
use latency::Latencies;
use pace::Pace;

/// How long answers are waited for after the last message.
const PATIENCE: Duration = Duration::from_secs(5);
/// A server's memory is read when it has not changed by a two-hundredth over so many looks.
const LOOKS: usize = 4;
const LOOK: Duration = Duration::from_millis(250);
/// And after this time whatever it does.
const MOST_LOOKS: usize = 60;

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// A payload in, an ack out.
    Article,
    /// Sluice's Publish: what is due together goes in one batch, acks are cumulative.
    Sluice,
}

/// A load of fixed rate over many streams.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// Which protocol the server speaks.
    #[arg(long, value_enum)]
    pub(crate) protocol: Protocol,
    /// Where it serves.
    #[arg(long)]
    pub(crate) address: SocketAddr,
    /// Its process, whose memory and processor time are read.
    #[arg(long)]
    pub(crate) pid: u32,
    /// Connections.
    #[arg(long, default_value_t = 1000)]
    pub(crate) connections: usize,
    /// Streams on each connection.
    #[arg(long, default_value_t = 1)]
    pub(crate) streams: usize,
    /// Messages a second, over all streams; 0: none, only streams that are open.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) rate: u64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Seconds before them that are not.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) warm_up: f64,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 256)]
    pub(crate) size: usize,
    /// Sluice's topic.
    #[arg(long, default_value = "bench")]
    pub(crate) topic: String,
}

/// What came of it. Latencies are microseconds, sizes bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Loaded {
    pub(crate) connections: usize,
    pub(crate) streams: usize,
    pub(crate) rate: u64,
    /// Messages of the measured time.
    pub(crate) messages: u64,
    /// Those among them that were not acknowledged in time.
    pub(crate) missing: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// How late the generator itself handed messages over: a part of the latencies that is not the server's.
    pub(crate) generator_p50: f64,
    pub(crate) generator_p99: f64,
    /// The server's memory before the first connection, with all streams open and at the end of the load.
    pub(crate) rss_before: u64,
    pub(crate) rss_open: u64,
    pub(crate) rss_loaded: u64,
    /// The server's processor time while it was measured.
    pub(crate) cpu_seconds: f64,
    pub(crate) measured_seconds: f64,
}

/// Runs the load.
pub(crate) async fn run(load: Load) -> anyhow::Result<Loaded> {
    let rss_before = proc::rss(load.pid)?;
    let count = load.connections * load.streams;
    let pace = Arc::new(Pace::new(&load, count));
    let latencies = Arc::new(Latencies::new(count)?);
    let mut streams = JoinSet::new();
    let senders = connect::all(&load, &pace, &latencies, &mut streams).await?;
    let rss_open = settled_rss(load.pid).await?;
    let (mut cpu_seconds, mut measured_seconds) = (0.0, 0.0);
    let mut lags = latency::Lags::default();
    if load.rate > 0 {
        pace.start();
        let pacer = {
            let pace = Arc::clone(&pace);
            std::thread::spawn(move || pace.run(&senders))
        };
        tokio::time::sleep_until(pace.measured_from().into()).await;
        let cpu_before = proc::cpu_seconds(load.pid)?;
        let measured = std::time::Instant::now();
        tokio::time::sleep_until(pace.ends().into()).await;
        cpu_seconds = proc::cpu_seconds(load.pid)? - cpu_before;
        measured_seconds = measured.elapsed().as_secs_f64();
        let (all, senders_back) = pacer.join().map_err(|_| anyhow::anyhow!("the pacer failed"))?;
        lags = all;
        let end = tokio::time::Instant::now() + PATIENCE;
        while latencies.answered() < pace.measured_messages() && tokio::time::Instant::now() < end {
            if let Some(ended) = streams.try_join_next() {
                ended??;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(senders_back);
    }
    let rss_loaded = proc::rss(load.pid)?;
    if let Some(ended) = streams.try_join_next() {
        ended??;
    }
    let histogram = latencies.total()?;
    let micros = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Loaded {
        connections: load.connections,
        streams: count,
        rate: load.rate,
        messages: pace.measured_messages(),
        missing: pace.measured_messages().saturating_sub(histogram.len()),
        p50: micros(0.5),
        p99: micros(0.99),
        p999: micros(0.999),
        max: micros(1.0),
        generator_p50: lags.micros(0.5),
        generator_p99: lags.micros(0.99),
        rss_before,
        rss_open,
        rss_loaded,
        cpu_seconds,
        measured_seconds,
    })
}

/// Waits until a server's memory stays as it is: until it has taken in all streams.
async fn settled_rss(pid: u32) -> anyhow::Result<u64> {
    let mut seen = Vec::new();
    for _ in 0..MOST_LOOKS {
        tokio::time::sleep(LOOK).await;
        seen.push(proc::rss(pid)?);
        let last = seen.iter().rev().take(LOOKS);
        let (least, most) = (last.clone().min().copied(), last.max().copied());
        if seen.len() >= LOOKS
            && most
                .zip(least)
                .is_some_and(|(most, least)| (most - least) * 200 <= most)
        {
            break;
        }
    }
    proc::rss(pid)
}

/// Where the numbers of messages go that are due on a stream.
type Due = mpsc::UnboundedSender<u64>;
