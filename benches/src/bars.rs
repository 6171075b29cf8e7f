//! The bars, and what was measured against them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One comparison of a bar.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    what: String,
    value: f64,
    unit: String,
    /// The most that is allowed, or the least that is wanted.
    limit: f64,
    is_least: bool,
    met: bool,
}

/// One bar.
#[derive(Debug, Clone, Serialize)]
struct Bar {
    bar: &'static str,
    measured: Vec<Measured>,
    /// `None`: not everything that the bar asks for was measured in this run.
    met: Option<bool>,
    command: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// How many comparisons the whole bar is.
    #[serde(skip)]
    whole: Option<usize>,
}

/// What one measurement found of a bar: its part of [`Bars`], as it is kept between runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    measured: Vec<Measured>,
    notes: Vec<String>,
    whole: Option<usize>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Bars(BTreeMap<&'static str, Bar>);

const TEXTS: [(&str, &str); 7] = [
    (
        "P1",
        "the article's handler against grpc-go: p50 ≤ 0.5×, p99 ≤ 0.6×, RSS ≤ 0.3×, CPU ≤ 0.6×",
    ),
    (
        "P2",
        "RSS per connection with one open stream ≤ 16 KB (stretch 8.4 KB)",
    ),
    ("P3", "50,000 streams over ≤ 500 connections ≤ 300 MB RSS"),
    (
        "P4",
        "durable publish ≥ 1.5× Kafka with flush.messages=1, ≥ 30× JetStream message by message, ≥ 3× its atomic batches; \
         p99 at 20,000/s ≤ 0.3× Kafka's; RSS ≤ 0.1× Kafka's",
    ),
    (
        "P5",
        "publish→deliver p99 at half load ≤ 10 ms durable, ≤ 2 ms memory",
    ),
    (
        "P6",
        "a stalled consumer and a flooding publisher: no GOAWAY, RSS within maxInflightBytes + 64 MiB, others' p99 ≤ 2×",
    ),
    (
        "P7",
        "1,000,000 streams cut at random points: RSS and tasks back to where they were ± 5 %",
    ),
];

impl Bars {
    /// Nothing measured yet.
    pub(crate) fn new(command: &str) -> Self {
        let bar = |text| Bar {
            bar: text,
            measured: Vec::new(),
            met: None,
            command: command.to_owned(),
            notes: Vec::new(),
            whole: None,
        };
        Self(TEXTS.into_iter().map(|(name, text)| (name, bar(text))).collect())
    }

    fn enter(&mut self, name: &'static str, measured: Measured) {
        if let Some(bar) = self.0.get_mut(name) {
            bar.measured.push(measured);
        }
    }

    /// Something that must not be more than `limit`.
    pub(crate) fn at_most(&mut self, name: &'static str, what: &str, value: f64, limit: f64, unit: &str) {
        self.enter(
            name,
            Measured {
                what: what.to_owned(),
                value,
                unit: unit.to_owned(),
                limit,
                is_least: false,
                met: value <= limit,
            },
        );
    }

    /// Something that must not be less than `limit`.
    pub(crate) fn at_least(&mut self, name: &'static str, what: &str, value: f64, limit: f64, unit: &str) {
        self.enter(
            name,
            Measured {
                what: what.to_owned(),
                value,
                unit: unit.to_owned(),
                limit,
                is_least: true,
                met: value >= limit,
            },
        );
    }

    /// Says how a bar was measured.
    pub(crate) fn note(&mut self, name: &'static str, note: &str) {
        if let Some(bar) = self.0.get_mut(name) {
            bar.notes.push(note.to_owned());
        }
    }

    /// Says how many comparisons are the whole bar, which was measured as it asks for: with all of them it can be met.
    pub(crate) fn whole(&mut self, name: &'static str, comparisons: usize) {
        if let Some(bar) = self.0.get_mut(name) {
            bar.whole = Some(comparisons);
        }
    }

    /// What was found, by the name of the bar.
    pub(crate) fn found(self) -> BTreeMap<String, Found> {
        let found = self.0.into_iter().map(|(name, bar)| {
            let found = Found {
                measured: bar.measured,
                notes: bar.notes,
                whole: bar.whole,
            };
            (name.to_owned(), found)
        });
        found.collect()
    }

    /// Adds what a measurement found.
    pub(crate) fn take(&mut self, found: &BTreeMap<String, Found>) {
        for (name, bar) in &mut self.0 {
            let Some(found) = found.get(*name) else { continue };
            bar.measured.extend(found.measured.iter().cloned());
            bar.notes.extend(found.notes.iter().cloned());
            bar.whole = bar.whole.max(found.whole);
        }
    }

    fn judged(&self) -> BTreeMap<&'static str, Bar> {
        let mut bars = self.0.clone();
        for bar in bars.values_mut() {
            let misses = bar.measured.iter().any(|one| !one.met);
            // One miss is a miss, whatever else was not measured.
            let is_whole = bar.whole.is_some_and(|whole| bar.measured.len() >= whole);
            bar.met = match (misses, is_whole) {
                (true, _) => Some(false),
                (false, true) => Some(true),
                (false, false) => None,
            };
        }
        bars
    }

    /// Writes them as JSON.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, serde_json::to_string_pretty(&self.judged())? + "\n")?;
        Ok(())
    }

    /// As a table.
    pub(crate) fn table(&self) -> String {
        let mut text = "| bar | what | measured | limit | |\n|---|---|---:|---:|---|\n".to_owned();
        for (name, bar) in self.judged() {
            for one in &bar.measured {
                let (sign, verdict) = (
                    if one.is_least { "≥" } else { "≤" },
                    if one.met { "met" } else { "missed" },
                );
                let (value, limit) = (figure(one.value), figure(one.limit));
                let _ = writeln!(
                    text,
                    "| {name} | {} | {value}{} | {sign} {limit}{} | {verdict} |",
                    one.what, one.unit, one.unit
                );
            }
            let verdict = match bar.met {
                Some(true) => "**met**",
                Some(false) => "**missed**",
                None => "**not measured in full**",
            };
            let notes = if bar.notes.is_empty() {
                String::new()
            } else {
                format!(" ({})", bar.notes.join("; "))
            };
            let _ = writeln!(text, "| **{name}** | {}{notes} | | | {verdict} |", bar.bar);
        }
        text
    }
}

/// A figure with about three digits.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => grouped(value.round() as i64),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0 { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_only_when_all_of_it_was_measured() {
        let mut bars = Bars::new("make bench");
        bars.at_most("P2", "per connection", 10.0, 16.0, " KB");
        bars.at_most("P1", "p50", 0.7, 0.5, "×");
        assert_eq!(bars.judged()["P2"].met, None);
        assert_eq!(bars.judged()["P1"].met, Some(false), "a miss is a miss");
        bars.whole("P2", 1);
        assert_eq!(bars.judged()["P2"].met, Some(true));
        bars.whole("P3", 1);
        assert_eq!(bars.judged()["P3"].met, None, "nothing was measured");
    }

    #[test]
    fn a_bar_of_two_measurements_is_whole_with_both() {
        let (mut one, mut other) = (Bars::new("make bench"), Bars::new("make bench"));
        one.at_least("P4", "rate", 2.0, 1.5, "×");
        other.at_most("P4", "p99", 0.2, 0.3, "×");
        other.whole("P4", 2);
        let kept = serde_json::to_string(&one.found()).unwrap();
        let mut all = Bars::new("make bench");
        all.take(&other.found());
        assert_eq!(all.judged()["P4"].met, None);
        all.take(&serde_json::from_str(&kept).unwrap());
        assert_eq!(all.judged()["P4"].met, Some(true));
        assert_eq!(all.judged()["P4"].measured.len(), 2);
    }

    #[test]
    fn figures_keep_about_three_digits() {
        let shown: Vec<_> = [1_234_567.0, 123.4, 12.34, 1.234, 0.012_34, 0.0]
            .map(figure)
            .into();
        assert_eq!(shown, ["1,234,567", "123", "12.3", "1.23", "0.0123", "0.00"]);
    }
}
