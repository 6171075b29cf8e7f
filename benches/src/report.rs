//! The report: a Markdown file, plots beside it, and every figure as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::bars::{Bars, Found, figure};
use crate::measure::Bench;
use crate::stats::Spread;
use crate::{proc, process};

mod plot;

pub(crate) use plot::Plot;

/// One measurement's part.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) text: String,
    figures: serde_json::Value,
    plots: Vec<Plot>,
}

impl Section {
    pub(crate) fn new(text: String) -> Self {
        Self {
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
}

/// One measurement's part, as it is kept for reports of later runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Seconds since 1970 at its end.
    at: u64,
    pub(crate) seconds: f64,
    pub(crate) text: String,
    pub(crate) bars: BTreeMap<String, Found>,
    figures: serde_json::Value,
    plots: Vec<Drawn>,
}

/// A plot, drawn.
#[derive(Debug, Serialize, Deserialize)]
struct Drawn {
    name: String,
    title: String,
    svg: String,
}

impl Kept {
    /// What was measured just now.
    pub(crate) fn of(section: Section, bars: Bars, took: Duration, rounds_left_out: usize) -> Self {
        let mut text = section.text;
        if rounds_left_out > 0 {
            let _ = writeln!(
                text,
                "\nFor want of time, {rounds_left_out} rounds of five were left out."
            );
        }
        let draw = |plot: Plot| Drawn {
            svg: plot.svg(),
            name: plot.name,
            title: plot.title,
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            at: now.map_or(0, |now| now.as_secs()),
            seconds: took.as_secs_f64(),
            text,
            bars: bars.found(),
            figures: section.figures,
            plots: section.plots.into_iter().map(draw).collect(),
        }
    }

    /// Stands for what was not measured.
    pub(crate) fn failed(text: &str) -> Self {
        Self {
            at: 0,
            seconds: 0.0,
            text: text.to_owned(),
            bars: BTreeMap::new(),
            figures: serde_json::Value::Null,
            plots: Vec::new(),
        }
    }

    /// That of an earlier run, if there is one; not of another version of this program, which kept it differently.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Option<Self>> {
        if !file.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(file)?;
        let kept = serde_json::from_str(&text);
        if let Err(error) = &kept {
            eprintln!("{} is passed over: {error}", file.display());
        }
        Ok(kept.ok())
    }

    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        std::fs::write(file, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(())
    }

    /// When it was measured, as one reads it, in UTC.
    fn when(&self) -> String {
        let (days, time) = (self.at / 86_400, self.at % 86_400);
        let (year, month, day) = civil(days as i64);
        format!(
            "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
            time / 3600,
            time / 60 % 60
        )
    }
}

/// Year, month and day of a number of days since 1970-01-01.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
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
pub(crate) async fn write(path: &Path, bench: &Bench, bars: &Bars, sections: &[Kept]) -> anyhow::Result<()> {
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
        if section.at > 0 {
            let _ = writeln!(
                text,
                "<sub>Measured {}, in {:.0} s.</sub>\n",
                section.when(),
                section.seconds
            );
        }
        for plot in &section.plots {
            std::fs::write(plots.join(format!("{}.svg", plot.name)), &plot.svg)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_781), (2026, 11, 24));
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("limits.json");
        assert!(Kept::read(&file).unwrap().is_none());
        let mut bars = Bars::new("make bench");
        bars.at_most("P2", "per connection", 10.0, 16.0, " KB");
        let section = Section::new("### Limits\n".to_owned()).figures(&[1, 2]).unwrap();
        let kept = Kept::of(section, bars, Duration::from_secs(3), 2);
        kept.write(&file).unwrap();
        let read = Kept::read(&file).unwrap().unwrap();
        assert!(
            read.text.contains("2 rounds of five were left out"),
            "{}",
            read.text
        );
        assert_eq!(
            serde_json::to_value(&read).unwrap(),
            serde_json::to_value(&kept).unwrap()
        );
        std::fs::write(&file, "[]").unwrap();
        assert!(Kept::read(&file).unwrap().is_none(), "another version's");
    }
}
