//! The load generator: one for all servers, open loop. Every message has an intended time that is fixed before the
//! load starts, and its latency counts from there, so that a server that is slow cannot hide it by slowing the load.
//!
//! One thread does everything, with little more between it and the sockets than HTTP/2 (the `h2` crate): what the
//! generator itself needs is part of every latency.

mod connect;
mod latency;
mod pace;
mod speech;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::proc;
use latency::Latencies;
use pace::Pace;
use speech::Protocol;
use stream::Common;

/// How long answers are waited for after the last message.
const PATIENCE: Duration = Duration::from_secs(5);
/// A server's memory is read when it has not changed by a two-hundredth over so many looks.
const LOOKS: usize = 4;
const LOOK: Duration = Duration::from_millis(250);
/// And after this time whatever it does.
const MOST_LOOKS: usize = 60;

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

/// Runs the load, on the thread that it is called on.
///
/// # Errors
/// A server that cannot be reached, refuses a message or ends a stream, and a process that cannot be read about.
pub(crate) fn run(load: Load) -> anyhow::Result<Loaded> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(load))
}

async fn measure(load: Load) -> anyhow::Result<Loaded> {
    let pid = load.pid;
    let rss_before = proc::rss(pid)?;
    let common = Arc::new(Common {
        pace: Pace::new(&load, load.connections * load.streams),
        latencies: Latencies::new()?,
        body: Bytes::from(vec![0x5a; load.size]),
        load,
    });
    let Common {
        load,
        pace,
        latencies,
        ..
    } = &*common;
    let mut reading = JoinSet::new();
    let streams = connect::all(&common, &mut reading).await?;
    let rss_open = settled_rss(pid).await?;
    let (mut cpu_seconds, mut measured_seconds) = (0.0, 0.0);
    let mut lags = Latencies::new()?;
    if load.rate > 0 {
        pace.start();
        let cpu = async {
            tokio::time::sleep_until(pace.measured_from().into()).await;
            let (before, since) = (proc::cpu_seconds(pid)?, Instant::now());
            tokio::time::sleep_until(pace.ends().into()).await;
            anyhow::Ok((proc::cpu_seconds(pid)? - before, since.elapsed().as_secs_f64()))
        };
        (lags, (cpu_seconds, measured_seconds)) = tokio::try_join!(pace.run(&streams), cpu)?;
        let end = Instant::now() + PATIENCE;
        while latencies.count() < pace.measured_messages() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let rss_loaded = proc::rss(pid)?;
    if let Some(ended) = reading.try_join_next() {
        ended??;
    }
    Ok(Loaded {
        connections: load.connections,
        streams: streams.len(),
        rate: load.rate,
        messages: pace.measured_messages(),
        missing: pace.measured_messages().saturating_sub(latencies.count()),
        p50: latencies.micros(0.5),
        p99: latencies.micros(0.99),
        p999: latencies.micros(0.999),
        max: latencies.micros(1.0),
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
