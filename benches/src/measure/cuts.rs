//! Streams that are cut at any point (P7).

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::process::Command;

use super::Bench;
use crate::bars::Bars;
use crate::process;
use crate::report::Section;

#[derive(Debug, Serialize)]
struct Cuts {
    count: u64,
    before: f64,
    after: f64,
}

pub(super) async fn measure(bench: &Bench, bars: &mut Bars) -> anyhow::Result<Section> {
    let cuts = cuts(bench).await?;
    let growth = (cuts.after / cuts.before - 1.0) * 100.0;
    // The test itself compares tasks, streams, permits and open files, and fails if any is left behind.
    bars.at_most("P7", "growth of RSS, all else back exactly", growth, 5.0, " %");
    bars.note("P7", &format!("{} streams", cuts.count));
    if cuts.count >= 1_000_000 {
        bars.whole("P7", 1);
    }
    let text = format!(
        "### Streams cut at random points (P7)\n\n{} streams: RSS {:.1} MB before, {:.1} MB after ({growth:+.1} %); tasks, \
         streams, permits and open files as before.\n",
        cuts.count,
        cuts.before / 1e6,
        cuts.after / 1e6,
    );
    Section::new(text).figures(&cuts)
}

/// Runs the test that cuts streams, which compares everything itself, and reads what it printed.
async fn cuts(bench: &Bench) -> anyhow::Result<Cuts> {
    let count = bench.either(20_000, 1_000_000);
    let mut command = Command::new(&bench.programs.cuts);
    command
        .args([
            "--ignored",
            "--exact",
            "a_million_cuts_leave_nothing_behind",
            "--nocapture",
        ])
        .env("CUTS", count.to_string());
    let text = process::output(&mut command, Duration::from_secs(1200)).await?;
    // `1000000 cuts in ...: memory 1234 KiB before, 1240 KiB after (+0.5 %), ...`
    let line = text
        .lines()
        .find(|line| line.contains(" cuts in "))
        .with_context(|| format!("the test printed something else than expected:\n{text}"))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let before = |word: &str| -> anyhow::Result<f64> {
        let at = words.iter().position(|one| one.trim_end_matches(',') == word);
        let number = at.and_then(|at| words.get(at.checked_sub(2)?));
        Ok(number
            .with_context(|| format!("no figure before {word}: {line}"))?
            .parse::<f64>()?
            * 1024.0)
    };
    Ok(Cuts {
        count: words.first().context("the line is empty")?.parse()?,
        before: before("before")?,
        after: before("after")?,
    })
}
