//! What `sluice simulate` is told.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use crate::cli::options::duration;
use crate::scaling::simulation::{Builtin, PolicyKind, Publishers};

const EXAMPLES: &str = "\
Examples:
  sluice simulate --load step --policy all
        a five-fold step, decided by the operator's own code and by the usual formulas
  sluice simulate --trace load.csv --spec broker.yaml --rate-per-broker 20000 --start-time 12s
        what the autoscaler of a MessageBroker would have done with a recorded load
  sluice simulate --load all --policy all --seeds 10 --out report

  sluice simulate --recording orders.jsonl --spec broker.yaml
        what it would have done with the reports of real brokers, which sluice record has written down

A trace is a CSV file with the columns second,messages_per_second; a rate holds until the next line.

Written to --out (for each load, where there are several):
  summary.json   for each policy, the figures as means over the seeds
  decisions.csv  every change of the number of brokers, with its reason
  timeline.csv   every second of the first seed
  plot.svg, plot.png

The table, and the keys of summary.json:
  actions, reversals       changes of the number of brokers, and those in the other direction than the one before
  first_decision_seconds   from when the load first asks for another number to the first change
  seconds_over_objective   in which a message waits longer than --objective, or is given up
  replica_seconds          brokers summed over time; ideal: the fewest that keep the target utilization
  under_, over_accuracy    how far too few or too many brokers serve, in parts of the ideal, averaged over time
  under_, over_share       the part of the time in which it is so

Exit codes: 0 it is written; 1 a file cannot be read or written; 2 usage, or a trace or spec that makes no sense.";

/// Shows what the autoscaler would do with a load, without a cluster.
///
/// The decisions are the operator's own; brokers, publishers and the load are a model.
#[derive(Args, Debug, Clone)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A recorded load: CSV with the columns second,messages_per_second.
    #[arg(
        long,
        value_name = "FILE",
        env = "SLUICE_SIMULATE_TRACE",
        conflicts_with = "load"
    )]
    pub(super) trace: Option<PathBuf>,
    /// What sluice record has written: every decision that the autoscaler would have made. Only --spec, --start-time and --out
    /// count beside it.
    #[arg(long, value_name = "FILE", env = "SLUICE_SIMULATE_RECORDING", conflicts_with_all = ["load", "trace", "policy"])]
    pub(super) recording: Option<PathBuf>,
    /// A built-in load, in multiples of --rate-per-broker; may be given several times.
    #[arg(long, value_name = "LOAD", env = "SLUICE_SIMULATE_LOAD", value_delimiter = ',', default_value = "step", value_parser = load_names())]
    pub(super) load: Vec<String>,
    /// A MessageBroker (YAML or JSON) whose spec.autoscaling, spec.channel and spec.replicas count. An autoscaling.mode
    /// that only watches is taken for Auto. Unless given, the defaults with 2 to 30 brokers.
    #[arg(long, value_name = "FILE", env = "SLUICE_SIMULATE_SPEC")]
    pub(super) spec: Option<PathBuf>,
    /// Messages a second that a broker can do, with the channel that it begins with.
    #[arg(long, value_name = "N", env = "SLUICE_SIMULATE_RATE_PER_BROKER", default_value_t = 1000.0, value_parser = rate)]
    pub(super) rate_per_broker: f64,
    /// What a broker's CPU time goes by.
    #[arg(long, value_enum, env = "SLUICE_SIMULATE_CPU_BY", default_value_t)]
    pub(super) cpu_by: CpuByArgument,
    /// What a broker takes from the decision to Ready.
    #[arg(long, value_name = "DURATION", env = "SLUICE_SIMULATE_START_TIME", default_value = "15s", value_parser = duration)]
    pub(super) start_time: Duration,
    /// What emptying a broker takes before it is removed.
    #[arg(long, value_name = "DURATION", env = "SLUICE_SIMULATE_DRAIN_TIME", default_value = "15s", value_parser = duration)]
    pub(super) drain_time: Duration,
    /// How long a message may wait.
    #[arg(long, value_name = "DURATION", env = "SLUICE_SIMULATE_OBJECTIVE", default_value = "1s", value_parser = duration)]
    pub(super) objective: Duration,
    /// What decides; may be given several times.
    #[arg(long, value_name = "POLICY", env = "SLUICE_SIMULATE_POLICY", value_delimiter = ',', default_value = "sluice", value_parser = policy_names())]
    pub(super) policy: Vec<String>,
    /// Brokers at the start; unless given, spec.replicas or as many as the load needs in its first second.
    #[arg(long, value_name = "N", env = "SLUICE_SIMULATE_REPLICAS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) replicas: Option<u32>,
    /// What publishers do with messages for which they have no credit.
    #[arg(long, value_enum, env = "SLUICE_SIMULATE_PUBLISHERS", default_value_t)]
    pub(super) publishers: PublishersArgument,
    /// How many different noises to average over.
    #[arg(long, value_name = "N", env = "SLUICE_SIMULATE_SEEDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) seeds: u32,
    /// The standard deviation of the load from second to second, as a part of it.
    #[arg(long, value_name = "PART", env = "SLUICE_SIMULATE_NOISE", default_value_t = 0.1, value_parser = part)]
    pub(super) noise: f64,
    /// The directory to write to; it is made if it is not there.
    #[arg(
        long,
        value_name = "DIR",
        env = "SLUICE_SIMULATE_OUT",
        default_value = "simulation"
    )]
    pub(super) out: PathBuf,
}

/// What a broker's CPU time goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum CpuByArgument {
    /// Messages: what a broker can do is the same with any channel that its commits can fill.
    #[default]
    Messages,
    /// Requests, which hold more messages where the channel is larger: what a broker can do grows with it.
    Requests,
}

/// What publishers do with messages for which they have no credit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum PublishersArgument {
    /// Keep them and send them later.
    #[default]
    Queue,
    /// Keep them, and do not tell how many they are; our client library tells.
    QueueSilently,
    /// Give them up; they count as dropped.
    GiveUp,
}

impl PublishersArgument {
    pub(super) fn model(self) -> Publishers {
        match self {
            Self::Queue => Publishers::Queue,
            Self::QueueSilently => Publishers::QueueSilently,
            Self::GiveUp => Publishers::GiveUp,
        }
    }
}

impl Arguments {
    /// The policies asked for, each once, in their own order.
    pub(super) fn policies(&self) -> Vec<PolicyKind> {
        chosen(&self.policy, PolicyKind::ALL, PolicyKind::name)
    }

    /// The built-in loads asked for, each once, in their own order.
    pub(super) fn loads(&self) -> Vec<Builtin> {
        chosen(&self.load, Builtin::ALL, Builtin::name)
    }
}

fn chosen<T: Copy, const N: usize>(names: &[String], all: [T; N], name: fn(T) -> &'static str) -> Vec<T> {
    all.into_iter()
        .filter(|one| names.iter().any(|asked| asked == "all" || asked == name(*one)))
        .collect()
}

fn load_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Builtin::ALL.into_iter().map(Builtin::name).chain(["all"]))
}

fn policy_names() -> PossibleValuesParser {
    PossibleValuesParser::new(PolicyKind::ALL.into_iter().map(PolicyKind::name).chain(["all"]))
}

/// Reads messages a second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (1.0..=1e9).contains(&rate) => Ok(rate),
        _ => Err("expected messages a second, from 1 to 1000000000".to_owned()),
    }
}

/// Reads a part of one.
fn part(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(part) if (0.0..=1.0).contains(&part) => Ok(part),
        _ => Err("expected a part from 0 to 1, such as 0.1 for 10 %".to_owned()),
    }
}
