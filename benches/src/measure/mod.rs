//! The measurements, one a file. Each returns its part of the report, and what it found of the bars.

mod abuse;
mod backlog;
mod contenders;
mod cost;
mod cuts;
mod durable;
mod equal_rate;
mod growth;
mod handlers;
mod latency;
mod limits;
mod memory;
mod one_by_one;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::bars::Bars;
use crate::peers::Programs;
use crate::report::{self, Kept, Section};

/// What is measured, and where it goes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) programs: Programs,
    /// Fewer and shorter runs of the same tables, in about five minutes.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these; the report takes the others from their last run.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// The folder for results, and for data while it runs: the disk that is measured.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Where the report goes; unless given, benchmarks.md beside the results.
    #[arg(long)]
    report: Option<PathBuf>,
    /// The command that started all this, for the report.
    #[arg(long, default_value = "make bench")]
    command: String,
}

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The machine's own limits.
    Limits,
    /// The article's handler (P1), and the memory of its connections (P2).
    Handlers,
    /// Memory of streams (P3).
    Memory,
    /// Durable publishing as fast as it goes (P4).
    Durable,
    /// Latency of durable publishing at one rate for all (P4).
    EqualRate,
    /// From publish to delivery (P5).
    Latency,
    /// One message at a time.
    OneByOne,
    /// A stalled consumer and a flood (P6).
    Abuse,
    /// Cancelled streams (P7): a million of them.
    Cuts,
    /// Catching up, and starting again.
    Backlog,
    /// From one to many streams and partitions.
    Growth,
    /// Instructions and allocations a message.
    Cost,
}

impl Part {
    /// Seconds that it may take, of a full and of a quick run. What does not end in one and a half of them makes
    /// fewer rounds, and says so.
    fn budget(self, is_quick: bool) -> Duration {
        let (full, quick) = match self {
            Self::Limits => (30, 10),
            Self::Handlers => (260, 40),
            Self::Memory => (60, 15),
            Self::Durable => (340, 80),
            Self::EqualRate => (110, 25),
            Self::Latency => (120, 25),
            Self::OneByOne => (40, 15),
            Self::Abuse => (70, 10),
            Self::Cuts => (150, 20),
            Self::Backlog => (60, 15),
            Self::Growth => (60, 20),
            Self::Cost => (50, 35),
        };
        Duration::from_secs(if is_quick { quick } else { full })
    }

    /// Its name on the command line and of its results.
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(|| format!("{self:?}"), |value| value.get_name().to_owned())
    }
}

/// What measurements share.
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) quick: bool,
    pub(crate) command: String,
    folder: tempfile::TempDir,
    /// After that no round is begun.
    enough: Cell<Option<Instant>>,
    rounds_left_out: Cell<usize>,
}

impl Bench {
    /// Runs of each peer: five, where there is time for them.
    pub(crate) fn rounds(&self) -> impl Iterator<Item = usize> + '_ {
        let count = if self.quick { 1 } else { 5 };
        (0..count).take_while(move |round| {
            let goes_on = *round == 0 || self.enough.get().is_none_or(|enough| Instant::now() < enough);
            if !goes_on {
                self.rounds_left_out.set(count - round);
            }
            goes_on
        })
    }

    fn begin(&self, budget: Duration) {
        self.enough.set(Some(Instant::now() + budget * 3 / 2));
        self.rounds_left_out.set(0);
    }

    /// One figure in the quick mode, another one otherwise.
    pub(crate) fn either<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A new folder on the disk that is measured; gone with what is returned.
    pub(crate) fn folder(&self) -> anyhow::Result<tempfile::TempDir> {
        Ok(tempfile::tempdir_in(self.folder.path())?)
    }

    pub(crate) fn disk(&self) -> &Path {
        self.folder.path()
    }
}

/// Lets the kernel write what an earlier run left behind, so that it is not in the way of the next.
pub(crate) async fn settle() -> anyhow::Result<()> {
    let mut sync = tokio::process::Command::new("sync");
    crate::process::output(&mut sync, std::time::Duration::from_secs(60)).await?;
    Ok(())
}

/// Measures, prints and writes.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let out = std::path::absolute(&arguments.out)?;
    let results = if arguments.quick {
        out.join("quick")
    } else {
        out.clone()
    };
    std::fs::create_dir_all(&results)?;
    let bench = Bench {
        programs: arguments.programs.clone(),
        quick: arguments.quick,
        command: arguments.command.clone(),
        folder: tempfile::Builder::new().prefix("data-").tempdir_in(&out)?,
        enough: Cell::new(None),
        rounds_left_out: Cell::new(0),
    };
    let is_wanted = |part: Part| arguments.only.is_empty() || arguments.only.contains(&part);
    let parts = Part::value_variants();
    let budget: Duration = parts
        .iter()
        .filter(|part| is_wanted(**part))
        .map(|part| part.budget(bench.quick))
        .sum();
    eprintln!("this may take {} minutes", budget.as_secs().div_ceil(60));
    let (start, mut kept, mut failures) = (Instant::now(), Vec::new(), Vec::new());
    for &part in parts {
        let file = results.join(format!("{}.json", part.name()));
        if !is_wanted(part) {
            kept.push(Kept::read(&file)?.unwrap_or_else(|| not_measured(part)));
            continue;
        }
        let budget = part.budget(bench.quick);
        eprintln!("== {}, {} s", part.name(), budget.as_secs());
        match measure_and_keep(part, &bench, budget).await {
            Ok(one) => {
                println!("{}", one.text);
                one.write(&file)?;
                eprintln!("   {:.0} s of {}", one.seconds, budget.as_secs());
                kept.push(one);
            }
            Err(error) => {
                eprintln!("{} failed: {error:#}", part.name());
                let why = error.to_string().replace('\n', " ");
                kept.push(Kept::failed(&format!(
                    "### {}\n\nNot measured: {why}\n",
                    part.name()
                )));
                failures.push(part);
            }
        }
    }
    let mut bars = Bars::new(&arguments.command);
    for one in &kept {
        bars.take(&one.bars);
    }
    println!("{}", bars.table());
    bars.write(&out.join("bars.json"))?;
    let path = arguments.report.unwrap_or_else(|| out.join("benchmarks.md"));
    report::write(&path, &bench, &bars, &kept).await?;
    eprintln!(
        "written after {} of {} s: {}, {}",
        start.elapsed().as_secs(),
        budget.as_secs(),
        path.display(),
        out.join("bars.json").display()
    );
    anyhow::ensure!(failures.is_empty(), "not measured: {failures:?}");
    Ok(())
}

fn not_measured(part: Part) -> Kept {
    let name = part.name();
    Kept::failed(&format!(
        "### {name}\n\nNot measured yet: `dev/bench.sh --only {name}` does, and adds it to this report.\n"
    ))
}

async fn measure_and_keep(part: Part, bench: &Bench, budget: Duration) -> anyhow::Result<Kept> {
    bench.begin(budget);
    let start = Instant::now();
    let mut bars = Bars::new(&bench.command);
    let section = measure(part, bench, &mut bars).await?;
    let left_out = bench.rounds_left_out.get();
    Ok(Kept::of(section, bars, start.elapsed(), left_out))
}

async fn measure(part: Part, bench: &Bench, bars: &mut Bars) -> anyhow::Result<Section> {
    match part {
        Part::Limits => limits::measure(bench).await,
        Part::Handlers => handlers::measure(bench, bars).await,
        Part::Memory => memory::measure(bench, bars).await,
        Part::Durable => durable::measure(bench, bars).await,
        Part::EqualRate => equal_rate::measure(bench, bars).await,
        Part::Latency => latency::measure(bench, bars).await,
        Part::OneByOne => one_by_one::measure(bench).await,
        Part::Abuse => abuse::measure(bench, bars).await,
        Part::Cuts => cuts::measure(bench, bars).await,
        Part::Backlog => backlog::measure(bench).await,
        Part::Growth => growth::measure(bench).await,
        Part::Cost => cost::measure(bench).await,
    }
}
