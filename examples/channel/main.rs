//! `cargo run --release --example channel [QUICK]`: the channel's loop on a real broker. Fixed 128, fixed 65,536 and Auto side by side, with
//! bursts and with a steady overload. Needs root, for a cgroup with a CPU quota.
//!
//! The broker is a process of its own with 200m; its reports come over gRPC, `decide_channel` takes them as in the operator, and what it
//! decides goes back with Configure.

#[path = "../real/mod.rs"]
mod real;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use real::broker::Broker;
use real::reports::{Reports, observed};
use sluice::operator::scaling::now;
use sluice::pb::Durability;
use sluice::scaling::counters::difference;
use sluice::scaling::{BrokerCounters, ChannelMode, Mode, Policy, State, decide_channel};

const MILLICORES: u64 = 200;
const BYTES: &str = "1024";
const PUBLISHERS: &str = "6";

fn main() -> ExitCode {
    real::main(run)
}

async fn run() -> Result<()> {
    let seconds: u64 = if std::env::args().nth(1).is_some() { 24 } else { 90 };
    println!(
        "A broker of {MILLICORES}m, {BYTES} B, {PUBLISHERS} publishers, {seconds} s each of which the second half counts. Load average: {}.\n",
        real::load_average()
    );
    let most = saturated().await?;
    println!("It does {most:.0}/s with a channel of 1024.\n");
    println!(
        "| load | channel | publish p50 ms | publish p99 ms | blocked % | shortest wait ms | most memory MB | acknowledged/s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for name in ["bursts", "steady overload"] {
        let schedule = if name == "bursts" {
            bursts(most, seconds)
        } else {
            format!("{:.0}:{seconds}s", 1.5 * most)
        };
        for (label, mode, capacity) in [
            ("fixed 128", ChannelMode::Fixed, 128),
            ("fixed 65536", ChannelMode::Fixed, 65_536),
            ("Auto", ChannelMode::Auto, 128),
        ] {
            let mut policy = Policy::default();
            policy.autoscaling.mode = Mode::Recommend;
            policy.channel.mode = mode;
            policy.channel.capacity = capacity;
            println!("| {name} | {} |", row(label, &policy, &schedule, seconds).await?);
        }
    }
    println!("\nLoad average after: {}.", real::load_average());
    Ok(())
}

/// A fifth of what the broker can do, and every two seconds three times as much as it can for 200 ms.
fn bursts(most: f64, seconds: u64) -> String {
    let pair = format!("{:.0}:1800ms,{:.0}:200ms", most / 5.0, 3.0 * most);
    vec![pair; (seconds / 2) as usize].join(",")
}

/// What the broker acknowledges a second while publishers send as fast as credit allows.
async fn saturated() -> Result<f64> {
    let broker = Broker::start(MILLICORES, Durability::Fsync, 1_024)?;
    let mut reports = Reports::of(broker.control).await?;
    let load = [
        "--rate",
        "0",
        "--duration",
        "10s",
        "--size",
        BYTES,
        "--publishers",
        PUBLISHERS,
    ]
    .map(str::to_owned);
    let running = broker.load(0, &load)?;
    let mut first: Option<BrokerCounters> = None;
    let mut rate = 0.0;
    for second in 0..9 {
        let (_, report) = reports.next().await?;
        if second < 3 {
            first = Some(report.counters);
        } else if let Some(interval) = first
            .as_ref()
            .and_then(|first| difference(first, &report.counters))
        {
            rate = interval.acked_rate();
        }
    }
    running.lines().await?;
    Ok(rate)
}

async fn row(label: &str, policy: &Policy, schedule: &str, seconds: u64) -> Result<String> {
    let mut capacity = policy.channel.capacity;
    let mut broker = Broker::start(MILLICORES, Durability::Fsync, capacity)?;
    let mut reports = Reports::of(broker.control).await?;
    let load = [
        "--schedule",
        schedule,
        "--size",
        BYTES,
        "--publishers",
        PUBLISHERS,
    ]
    .map(str::to_owned);
    let running = broker.load(0, &load)?;
    let mut state = State::new(now());
    let mut first: Option<BrokerCounters> = None;
    let (mut interval, mut memory, mut shortest) = (None, 0, 0);
    for second in 0..seconds {
        let (raw, report) = reports.next().await?;
        memory = memory.max(raw.memory_bytes);
        let decided = decide_channel(policy, &observed(report, capacity), &mut state, report.received);
        if decided.changes() {
            capacity = decided.capacity;
            let configuration = broker.configuration(capacity);
            reports.configure(configuration).await?;
        }
        if second < seconds / 2 {
            first = Some(report.counters);
        } else {
            interval = first
                .as_ref()
                .and_then(|first| difference(first, &report.counters));
            shortest = shortest.max(report.gauges.sojourn_min_nanos);
        }
    }
    let interval = interval.unwrap_or_default();
    // A standing overload leaves more unsent than the load waits for at its end.
    let lines = running.lines().await?;
    let half = Duration::from_secs(seconds / 2).as_secs_f64();
    let counted = || {
        lines
            .iter()
            .filter(|line| line["type"] == "interval" && line["seconds"].as_f64().is_some_and(|at| at > half))
    };
    let median = |name: &str| {
        let mut all: Vec<u64> = counted()
            .filter_map(|line| line["publish"][name].as_u64())
            .collect();
        all.sort_unstable();
        all.get(all.len() / 2)
            .map_or(f64::NAN, |micros| *micros as f64 / 1e3)
    };
    Ok(format!(
        "{label} (ends at {capacity}) | {:.0} | {:.0} | {:.0} | {:.1} | {:.0} | {:.0}",
        median("p50"),
        median("p99"),
        interval.blocked_fraction() * 100.0,
        shortest as f64 / 1e6,
        memory as f64 / 1e6,
        interval.acked_rate(),
    ))
}
