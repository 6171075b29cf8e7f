//! The report: a Markdown file, plots beside it, and every figure as JSON.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use tokio::process::Command;

use crate::bars::{Bars, figure};
use crate::measure::Bench;
use crate::stats::Spread;
use crate::{proc, process};

mod plot;

pub(crate) use plot::Plot;

/// One measurement's part.
#[derive(Debug)]
pub(crate) struct Section {
    name: &'static str,
    pub(crate) text: String,
    figures: serde_json::Value,
    plots: Vec<Plot>,
}

impl Section {
    pub(crate) fn new(name: &'static str, text: String) -> Self {
        Self {
            name,
            text,
            figures: serde_json::Value::Null,
            plots: Vec::new(),
        }
    }

    /// Every figure behind the tables.
    pub(crate) fn figures(mut self, figures: &impl Serialize) -> anyhow::Result<Self> {
        self.figures = serde_json::to_value(figures)?;
        Ok(self)
    }

    pub(crate) fn plot(mut self, plot: Plot) -> Self {
        self.plots.push(plot);
        self
    }

    /// Writes the figures.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.figures)? + "\n";
        std::fs::write(folder.join(format!("{}.json", self.name)), text)?;
        Ok(())
    }
}

/// A Markdown table.
pub(crate) struct Table(String);

impl Table {
    /// The first column is text, the others are figures.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let mut text = format!("| {} |\n|---|", columns.join(" | "));
        text.push_str(&"---:|".repeat(columns.len() - 1));
        text.push('\n');
        Self(text)
    }

    pub(crate) fn row(&mut self, cells: &[String]) {
        let _ = writeln!(self.0, "| {} |", cells.join(" | "));
    }

    pub(crate) fn text(self) -> String {
        self.0
    }
}

/// The median, and the range where there was more than one run.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> String {
    match Spread::of(values) {
        None => "-".to_owned(),
        Some(one) if one.runs == 1 => figure(one.median),
        Some(many) => format!(
            "{} ({}…{})",
            figure(many.median),
            figure(many.least),
            figure(many.most)
        ),
    }
}

/// Writes the report and its plots.
pub(crate) async fn write(
    path: &Path,
    bench: &Bench,
    bars: &Bars,
    sections: &[Section],
) -> anyhow::Result<()> {
    let folder = path.parent().context("the report needs a folder")?;
    let plots = folder.join("plots");
    std::fs::create_dir_all(&plots)?;
    let mut text = "# Benchmarks\n\n".to_owned();
    let mode = if bench.quick {
        "One short run of everything: good for comparing a change, not for quoting."
    } else {
        "Median of five runs, peers in turn, and in brackets the range."
    };
    let _ = writeln!(text, "Written by `{}`. {mode}\n", bench.command);
    let _ = writeln!(text, "## Machine and versions\n\n{}", machine(bench).await?);
    let _ = writeln!(text, "## Bars\n\n{}", bars.table());
    let _ = writeln!(text, "{}", include_str!("report/settings.md"));
    text.push_str("## Measurements\n\n");
    for section in sections {
        text.push_str(&section.text);
        text.push('\n');
        for plot in &section.plots {
            std::fs::write(plots.join(format!("{}.svg", plot.name)), plot.svg())?;
            let _ = writeln!(text, "![{}](plots/{}.svg)\n", plot.title, plot.name);
        }
    }
    std::fs::write(path, text)?;
    Ok(())
}

async fn machine(bench: &Bench) -> anyhow::Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("");
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory = memory
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1));
    let memory: f64 = memory.unwrap_or("0").parse()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?;
    let open_files = proc::most_open_files()?;
    let mut text = format!(
        "- {cores} cores ({}), {} GB of memory, Linux {}, {open_files} open files a process\n",
        model.trim_start_matches([' ', '\t', ':']),
        figure(memory / (1 << 20) as f64),
        kernel.trim()
    );
    let programs = &bench.programs;
    let mut versions = [
        ("Sluice", Command::new(&programs.sluice), "--version"),
        ("NATS server", Command::new(&programs.nats_server), "--version"),
        ("NATS command line", Command::new(&programs.nats), "--version"),
        ("Java", Command::new(&programs.java), "--version"),
    ];
    for (name, command, argument) in &mut versions {
        let said = process::output(command.arg(argument), std::time::Duration::from_secs(20)).await?;
        let _ = writeln!(text, "- {name}: {}", said.lines().next().unwrap_or("").trim());
    }
    let jars = std::fs::read_dir(&programs.kafka)?.filter_map(Result::ok);
    let kafka = jars.map(|jar| jar.file_name().to_string_lossy().into_owned());
    let kafka: Vec<String> = kafka.filter(|name| name.starts_with("kafka_")).collect();
    let _ = writeln!(text, "- Kafka: {}", kafka.join(", "));
    let go = include_str!("../peers/grpc-go/go.mod");
    let grpc = go
        .lines()
        .find_map(|line| line.trim().strip_prefix("google.golang.org/grpc "));
    let _ = writeln!(text, "- grpc-go: {}", grpc.unwrap_or(""));
    Ok(text)
}
