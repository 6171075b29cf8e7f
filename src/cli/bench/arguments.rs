//! What `sluice bench` is told.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};

use super::body::HEADER;
use super::schedule::{Schedule, Step};
use crate::cli::options::{duration, start};
use crate::cli::{Connection, Failure, Output};
use crate::client::Start;

const EXAMPLES: &str = "\
Examples:
  sluice bench --topic load --rate 20000 --duration 60s
        open loop: latencies count from the intended send times
  sluice bench --topic load --rate 0 --duration 30s --publishers 8
        as fast as credit allows
  sluice bench --topic load --schedule 1000:30s,5000:60s,1000:120s --producer-id demo --output json
  sluice bench --topic load --mode publish --run-id 7 --rate 100 --record acked.txt
  sluice bench --topic load --mode subscribe --run-id 7 --duration 60s

Every message carries its run, producer, number, intended time and a checksum; each one is checked.
  lost         acknowledged, and not delivered by the end of --drain-timeout
  duplicated   stored more than once: the same message at two places
  redelivered  the same place delivered again, which at-least-once delivery allows
  reordered    a producer's messages in another order within their partition
  unknown      not acknowledged by the end: neither stored nor lost for certain
Latencies of an open loop are free of coordinated omission.

Exit codes: 0 nothing is wrong; 1 it failed, or messages were lost or damaged, or with --producer-id
duplicated or reordered; 2 usage.";

/// Loads a cluster with messages of known content and checks every one of them for loss, duplication and order.
///
/// Prints one line a second and a summary. Every load is bounded in messages and in time.
#[derive(Args, Debug, Clone)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// The topic.
    #[arg(long, short, env = "SLUICE_TOPIC")]
    pub(super) topic: String,
    /// Messages a second of all publishers together, sent on time whatever comes back; 0: as fast as credit allows.
    #[arg(
        long,
        short,
        value_name = "N",
        env = "SLUICE_BENCH_RATE",
        default_value_t = 1000,
        conflicts_with = "schedule"
    )]
    pub(super) rate: u64,
    /// How long to publish (with --mode subscribe: how long to receive).
    #[arg(long, short, value_name = "DURATION", env = "SLUICE_BENCH_DURATION", default_value = "30s", value_parser = duration, conflicts_with = "schedule")]
    pub(super) duration: Duration,
    /// Rates one after the other instead, as RATE:DURATION,...; a rate of 0 is a pause.
    #[arg(
        long,
        value_name = "STEPS",
        env = "SLUICE_BENCH_SCHEDULE",
        value_delimiter = ','
    )]
    pub(super) schedule: Vec<Step>,
    /// The summary's latencies leave out messages of so long at the beginning, in which streams are opened and a group is
    /// joined. Everything else counts them.
    #[arg(long, value_name = "DURATION", env = "SLUICE_BENCH_WARM_UP", default_value = "0s", value_parser = duration)]
    pub(super) warm_up: Duration,
    /// Stop publishing after so many messages, even if there is time left.
    #[arg(long, short = 'n', value_name = "N", env = "SLUICE_BENCH_MESSAGES")]
    pub(super) messages: Option<u64>,
    /// Bytes of each body, at least 40.
    #[arg(long, short, value_name = "BYTES", env = "SLUICE_BENCH_SIZE", default_value_t = 256, value_parser = clap::value_parser!(u32).range(HEADER as i64..=64 << 20))]
    pub(super) size: u32,
    /// Independent publishers, each with a stream to each broker.
    #[arg(long, short, value_name = "N", env = "SLUICE_BENCH_PUBLISHERS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) publishers: u32,
    /// Members of the consumer group.
    #[arg(long, value_name = "N", env = "SLUICE_BENCH_SUBSCRIBERS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) subscribers: u32,
    /// Connections to each broker; unless given, one for every 100 publishers or subscribers.
    #[arg(long, value_name = "N", env = "SLUICE_BENCH_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) connections: Option<u32>,
    /// The consumer group; unless given, one of its own for this run.
    #[arg(long, short, env = "SLUICE_GROUP")]
    pub(super) group: Option<String>,
    /// Where the group starts; unless given, ten seconds before now.
    #[arg(long, value_name = "START", env = "SLUICE_BENCH_FROM", value_parser = start)]
    pub(super) from: Option<Start>,
    /// Different keys; 0: messages have none and are spread over the partitions.
    #[arg(long, short, value_name = "N", env = "SLUICE_BENCH_KEYS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(super) keys: u32,
    /// The most messages of one batch.
    #[arg(long, short, value_name = "N", env = "SLUICE_BENCH_BATCH", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub(super) batch: u32,
    /// Messages that are due within so many microseconds are handed over together. Fewer are nearer to the intended
    /// times, and cost the broker a request each time.
    #[arg(long, value_name = "N", env = "SLUICE_BENCH_TICK_MICROS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(50..=1_000_000))]
    pub(super) tick_micros: u32,
    /// How long a message may wait for others to share its batch.
    #[arg(long, value_name = "DURATION", env = "SLUICE_BENCH_LINGER", default_value = "0s", value_parser = duration)]
    pub(super) linger: Duration,
    /// The most messages of a publisher that are handed over and unacknowledged; unless given, 16384, or 1024 with
    /// --rate 0, where every one more is latency.
    #[arg(long, value_name = "N", env = "SLUICE_BENCH_WINDOW", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) window: Option<u32>,
    /// Give every publisher a producer id that starts with this, so that nothing may be stored twice.
    #[arg(long, value_name = "PREFIX", env = "SLUICE_BENCH_PRODUCER_ID")]
    pub(super) producer_id: Option<String>,
    /// How long to wait at the end for acknowledgements, and then for deliveries.
    #[arg(long, value_name = "DURATION", env = "SLUICE_BENCH_DRAIN_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub(super) drain_timeout: Duration,
    /// Publish, subscribe, or both.
    #[arg(long, short, value_enum, env = "SLUICE_BENCH_MODE", default_value_t)]
    pub(super) mode: Mode,
    /// Names the run in its messages, so that separate publishing and subscribing ends find each other; unless
    /// given, random (and every run is accepted by --mode subscribe).
    #[arg(long, value_name = "N", env = "SLUICE_BENCH_RUN_ID")]
    pub(super) run_id: Option<u64>,
    /// Give back every Nth message once instead of acknowledging it.
    #[arg(long, value_name = "N", env = "SLUICE_BENCH_NACK_EVERY", default_value_t = 0)]
    pub(super) nack_every: u64,
    /// How often a line is printed.
    #[arg(long, value_name = "DURATION", env = "SLUICE_BENCH_REPORT_EVERY", default_value = "1s", value_parser = duration)]
    pub(super) report_every: Duration,
    /// Append a line for every acknowledged message: producer, number, partition, offset, and = if that is the
    /// message's own offset or < if it is a later one's.
    #[arg(long, value_name = "FILE", env = "SLUICE_BENCH_RECORD")]
    pub(super) record: Option<PathBuf>,
    /// How lines and summary are printed.
    #[arg(long, short, value_enum, env = "SLUICE_OUTPUT", default_value_t)]
    pub(super) output: Output,
}

/// Which end of the load this is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Publish, and receive what was published.
    #[default]
    Both,
    /// Only publish: loss cannot be seen.
    Publish,
    /// Only receive, for --duration.
    Subscribe,
}

impl Arguments {
    pub(super) fn publishes(&self) -> bool {
        self.mode != Mode::Subscribe
    }

    pub(super) fn subscribes(&self) -> bool {
        self.mode != Mode::Publish
    }

    pub(super) fn schedule(&self) -> Result<Schedule, Failure> {
        let limit = self.messages.unwrap_or(u64::MAX);
        let schedule = if !self.schedule.is_empty() {
            Schedule::of_steps(&self.schedule, limit)
        } else if self.rate == 0 {
            Schedule::unpaced(self.duration, limit)
        } else {
            Schedule::of_steps(
                &[Step {
                    rate: self.rate,
                    duration: self.duration,
                }],
                limit,
            )
        };
        schedule.map_err(Failure::Usage)
    }

    pub(super) fn connections(&self) -> u32 {
        let members = self
            .publishers
            .max(if self.subscribes() { self.subscribers } else { 0 });
        self.connections.unwrap_or_else(|| members.div_ceil(100))
    }

    pub(super) fn window(&self) -> u32 {
        let is_unpaced = self.schedule.is_empty() && self.rate == 0;
        self.window.unwrap_or(if is_unpaced { 1024 } else { 16_384 })
    }

    pub(super) fn tick(&self) -> Duration {
        Duration::from_micros(u64::from(self.tick_micros))
    }

    pub(super) fn start(&self) -> Start {
        self.from
            .unwrap_or_else(|| Start::Time(SystemTime::now() - Duration::from_secs(10)))
    }
}
