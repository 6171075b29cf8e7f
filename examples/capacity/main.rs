//! `cargo run --release --example capacity [QUICK] [MILLICORES...]`: what the operator says that a broker can do, at 5, 30 and 70 % of the load, beside what
//! the same broker then does at saturation, how long publishers wait, and in how many of the quota's periods the kernel stopped it. Needs root, for a cgroup with a CPU quota.
//!
//! Each broker is a process of its own under a quota of 200m or 1 core; the load is `sluice bench`. Its reports come over gRPC, and each
//! load begins with an empty memory, so that nothing is known but what the reports of that load say.

#[path = "../real/mod.rs"]
mod real;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use real::broker::Broker;
use real::reports::{Reports, observed};
use sluice::operator::scaling::now;
use sluice::pb::Durability;
use sluice::scaling::counters::{Interval, difference};
use sluice::scaling::{BrokerCounters, ChannelMode, Mode, Policy, State, decide};

/// What the fast loop comes to for the smaller brokers here: 100 ms of what they can do.
const CHANNEL: u32 = 8_192;
const MILLICORES: [u64; 2] = [200, 1_000];
const PUBLISHERS: &str = "6";
/// Consumers that take and acknowledge everything; a broker whose messages are only stored can do more.
const CONSUMERS: [u64; 2] = [0, 2];
const PARTS: [u64; 3] = [5, 30, 70];

fn main() -> ExitCode {
    real::main(run)
}

async fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "QUICK");
    let mut quotas = Vec::new();
    for argument in arguments.iter().filter(|argument| *argument != "QUICK") {
        let quota: u64 = argument
            .parse()
            .with_context(|| format!("{argument:?} is neither QUICK nor millicores, such as 200"))?;
        quotas.push(quota);
    }
    if quotas.is_empty() {
        quotas.extend(MILLICORES);
    }
    let seconds = if quick { 6 } else { 15 };
    println!(
        "Load average before: {}. {seconds} s for each load, a channel of {CHANNEL}, {PUBLISHERS} publishers.\n",
        real::load_average()
    );
    println!(
        "| CPU | durability | consumers | bytes | load % | acked/s | delivered/s | messages a request | messages a commit | commit µs | CPU µs a message | quota used % | stopped % | publish p99 ms | estimate/s | saturated/s | error % |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for millicores in quotas {
        for durability in [Durability::Fsync, Durability::Memory] {
            for consumers in CONSUMERS {
                for bytes in [64, 1_024, 16_384] {
                    let case = Case {
                        millicores,
                        durability,
                        consumers,
                        bytes,
                    };
                    case.measure(seconds).await?;
                }
            }
        }
    }
    println!(
        "\nWhere less than 80 % of the quota is used at saturation, the load could not saturate this broker: the error says nothing."
    );
    println!("\nLoad average after: {}.", real::load_average());
    Ok(())
}

/// A broker, and what its load is like.
struct Case {
    millicores: u64,
    durability: Durability,
    consumers: u64,
    bytes: u64,
}

impl Case {
    /// The broker saturated, then under the three loads.
    async fn measure(&self, seconds: u64) -> Result<()> {
        let broker = Broker::start(self.millicores, self.durability, CHANNEL)?;
        let mut reports = Reports::of(broker.control).await?;
        let saturated = self.load(&broker, &mut reports, 0, seconds).await?;
        let most = saturated.interval.acked_rate();
        for part in PARTS {
            // What was queued is gone, and so is what the disk had to write behind it.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let rate = ((most * part as f64 / 100.0) as u64).max(1);
            let measured = self.load(&broker, &mut reports, rate, seconds).await?;
            self.print(&part.to_string(), &measured, most);
        }
        self.print("saturated", &saturated, most);
        Ok(())
    }

    /// Runs a load, and decides on each report with a memory that began with it.
    async fn load(
        &self,
        broker: &Broker,
        reports: &mut Reports,
        rate: u64,
        seconds: u64,
    ) -> Result<Measured> {
        let arguments = [
            "--rate",
            &rate.to_string(),
            "--size",
            &self.bytes.to_string(),
            "--publishers",
            PUBLISHERS,
            "--duration",
            &format!("{}s", seconds + 2),
            "--warm-up",
            "2s",
        ]
        .map(str::to_owned);
        let running = broker.load(self.consumers, &arguments)?;
        let mut policy = Policy::default();
        policy.autoscaling.mode = Mode::Recommend;
        policy.channel.mode = ChannelMode::Fixed;
        policy.channel.capacity = CHANNEL;
        let mut state = State::new(now());
        let mut first: Option<BrokerCounters> = None;
        let mut measured = Measured {
            interval: Interval::default(),
            estimate: None,
            stopped: f64::NAN,
            p99: f64::NAN,
        };
        let mut periods = broker.quota.periods()?;
        // The first two seconds are the load's start.
        for second in 0..seconds + 2 {
            let (_, report) = reports.next().await?;
            if second < 2 {
                first = Some(report.counters);
                periods = broker.quota.periods()?;
                continue;
            }
            let decision = decide(&policy, &observed(report, CHANNEL), &mut state, report.received);
            measured.estimate = decision.inputs.capacity_per_broker;
            if let Some(interval) = first
                .as_ref()
                .and_then(|first| difference(first, &report.counters))
            {
                measured.interval = interval;
            }
        }
        let (all, stopped) = broker.quota.periods()?;
        measured.stopped = (stopped - periods.1) as f64 / (all - periods.0).max(1) as f64;
        let lines = running.lines().await?;
        let p99 = lines
            .last()
            .and_then(|summary| summary["publishLatency"]["p99"].as_f64());
        measured.p99 = p99.map_or(f64::NAN, |micros| micros / 1e3);
        Ok(measured)
    }

    fn print(&self, part: &str, measured: &Measured, most: f64) {
        let Self {
            millicores,
            durability,
            consumers,
            bytes,
        } = self;
        let interval = &measured.interval;
        let per = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        let estimate = measured.estimate.map_or(f64::NAN, |estimate| estimate as f64);
        println!(
            "| {millicores}m | {durability:?} | {consumers} | {bytes} | {part} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} | {:.1} | {:.0} | {:.0} | {:.1} | {estimate:.0} | {most:.0} | {:+.0} |",
            interval.acked_rate(),
            interval.delivered as f64 / interval.seconds(),
            per(interval.acked, interval.requests),
            interval.batch(),
            per(interval.commit_nanos, interval.commits) / 1e3,
            per(interval.cpu_nanos, interval.acked) / 1e3,
            interval.utilization(*millicores as f64 / 1e3) * 100.0,
            measured.stopped * 100.0,
            measured.p99,
            (estimate / most - 1.0) * 100.0,
        );
    }
}

struct Measured {
    interval: Interval,
    estimate: Option<u64>,
    /// The part of the quota's periods in which the kernel stopped the broker.
    stopped: f64,
    /// Of the time from when a message was to be sent to its acknowledgement, in milliseconds.
    p99: f64,
}
