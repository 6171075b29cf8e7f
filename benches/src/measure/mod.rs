//! The measurements, one a file. Each returns its part of the report, and what it found of the bars.

mod abuse;
mod backlog;
mod cost;
mod durable;
mod equal_rate;
mod growth;
mod handlers;
mod latency;
mod limits;
mod memory;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};

use crate::bars::Bars;
use crate::peers::Programs;
use crate::report::{self, Section};

/// What is measured, and where it goes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) programs: Programs,
    /// Fewer and shorter runs of the same tables, in about five minutes.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these.
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
    /// The article's handler (P1).
    Handlers,
    /// Memory of connections and streams (P2, P3).
    Memory,
    /// Durable publishing as fast as it goes (P4).
    Durable,
    /// Latency of durable publishing at one rate for all (P4).
    EqualRate,
    /// From publish to delivery (P5).
    Latency,
    /// A stalled consumer and a flood (P6), cancelled streams (P7).
    Abuse,
    /// Catching up, and starting again.
    Backlog,
    /// From one to many streams and partitions.
    Growth,
    /// Instructions and allocations a message.
    Cost,
}

/// What measurements share.
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) quick: bool,
    pub(crate) command: String,
    folder: tempfile::TempDir,
}

impl Bench {
    /// Runs of each peer.
    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 1 } else { 5 }
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
    std::fs::create_dir_all(&out)?;
    let bench = Bench {
        programs: arguments.programs.clone(),
        quick: arguments.quick,
        command: arguments.command.clone(),
        folder: tempfile::Builder::new().prefix("data-").tempdir_in(&out)?,
    };
    let mut bars = Bars::new(&arguments.command);
    let mut sections = Vec::new();
    let mut failures = Vec::new();
    for &part in Part::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(&part) {
            continue;
        }
        let start = Instant::now();
        eprintln!("== {part:?}");
        match measure(part, &bench, &mut bars).await {
            Ok(section) => {
                println!("{}", section.text);
                section.write(&out)?;
                sections.push(section);
            }
            Err(error) => {
                eprintln!("{part:?} failed: {error:#}");
                let text = format!(
                    "### {part:?}\n\nNot measured: {}\n",
                    error.to_string().replace('\n', " ")
                );
                sections.push(Section::new("failed", text));
                failures.push(part);
            }
        }
        eprintln!("   {:.0} s", start.elapsed().as_secs_f64());
    }
    println!("{}", bars.table());
    bars.write(&out.join("bars.json"))?;
    let path = arguments.report.unwrap_or_else(|| out.join("benchmarks.md"));
    report::write(&path, &bench, &bars, &sections).await?;
    eprintln!("written: {}, {}", path.display(), out.join("bars.json").display());
    anyhow::ensure!(failures.is_empty(), "not measured: {failures:?}");
    Ok(())
}

async fn measure(part: Part, bench: &Bench, bars: &mut Bars) -> anyhow::Result<Section> {
    match part {
        Part::Limits => limits::measure(bench).await,
        Part::Handlers => handlers::measure(bench, bars).await,
        Part::Memory => memory::measure(bench, bars).await,
        Part::Durable => durable::measure(bench, bars).await,
        Part::EqualRate => equal_rate::measure(bench, bars).await,
        Part::Latency => latency::measure(bench, bars).await,
        Part::Abuse => abuse::measure(bench, bars).await,
        Part::Backlog => backlog::measure(bench).await,
        Part::Growth => growth::measure(bench).await,
        Part::Cost => cost::measure(bench).await,
    }
}
