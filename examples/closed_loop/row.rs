//! The figures of a scenario, measured and predicted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::OBJECTIVE;
use crate::observe::Moment;
use crate::scenario::Scenario;
use crate::watch::Look;

/// A new broker carries its share from this part of an even one on.
const SHARE: f64 = 0.8;

/// What both sides are compared by; seconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) actions: f64,
    pub(crate) reversals: f64,
    pub(crate) decision: Option<f64>,
    pub(crate) most: f64,
    pub(crate) over_objective: f64,
    pub(crate) replica_seconds: f64,
}

/// S2, in seconds; what was not seen is absent.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// From the load's rise to the StatefulSet's new number: an upper bound for "pressure seen to patched".
    pub(crate) rise_to_patched: Option<f64>,
    pub(crate) patched_to_ready: Option<f64>,
    pub(crate) ready_to_share: Option<f64>,
    /// Negative: under the objective before the share was even.
    pub(crate) ready_to_objective: Option<f64>,
}

/// A scenario that has been run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) rate_per_broker: f64,
    pub(crate) start_seconds: f64,
    pub(crate) load_average: String,
    pub(crate) measured: Figures,
    pub(crate) predicted: Figures,
    pub(crate) answer: Answer,
    /// Acknowledged, lost, duplicated, reordered messages; lost is absent where nobody consumed all of it.
    pub(crate) messages: [Option<u64>; 4],
    pub(crate) decisions: Vec<String>,
}

/// What was seen of one run.
pub(crate) struct Seen<'a> {
    /// When the load's clock was at zero.
    pub(crate) zero: Instant,
    pub(crate) looks: &'a [Look],
    pub(crate) moments: &'a [Moment],
    pub(crate) scenario: &'a Scenario,
}

impl Seen<'_> {
    fn at(&self, look: &Look) -> f64 {
        look.at.saturating_duration_since(self.zero).as_secs_f64()
    }

    fn during(&self) -> impl Iterator<Item = &Look> {
        let end = self.zero + Duration::from_secs(self.scenario.seconds());
        self.looks
            .iter()
            .filter(move |look| look.at >= self.zero && look.at <= end)
    }

    /// The same figures that `sluice simulate` gives.
    pub(crate) fn figures(&self) -> Figures {
        let rise = self.scenario.changes_at().as_secs_f64();
        let mut figures = Figures::default();
        let mut last: Option<(&Look, Option<bool>)> = None;
        for look in self.during() {
            figures.most = figures.most.max(f64::from(look.desired));
            if let Some((before, direction)) = last {
                let seconds = look.at.duration_since(before.at).as_secs_f64();
                figures.replica_seconds += f64::from(before.replicas.max(before.ready)) * seconds;
                let mut up = direction;
                if look.desired != before.desired {
                    up = Some(look.desired > before.desired);
                    figures.actions += 1.0;
                    figures.reversals += f64::from(u8::from(direction.is_some() && direction != up));
                    if self.at(look) >= rise && figures.decision.is_none() {
                        figures.decision = Some(self.at(look) - rise);
                    }
                }
                last = Some((look, up));
            } else {
                last = Some((look, None));
            }
        }
        let slow = |moment: &&Moment| moment.p99.is_some_and(|p99| p99 > OBJECTIVE) || is_stalled(moment);
        figures.over_objective = self.moments.iter().filter(slow).count() as f64;
        figures
    }

    /// How fast the brokers answered the first rise of the load.
    pub(crate) fn answer(&self) -> Answer {
        let rise = self.scenario.changes_at().as_secs_f64();
        // Brokers that were there before the load rose are no answer to it.
        let before = self.during().take_while(|look| self.at(look) < rise).last();
        let first = before.map_or(0, |look| look.replicas);
        let patched = self
            .during()
            .find(|look| self.at(look) >= rise && look.replicas > first);
        let Some(patched) = patched else {
            return Answer::default();
        };
        let patched_at = self.at(patched);
        let ready = self
            .during()
            .find(|look| look.at >= patched.at && look.ready >= patched.replicas);
        let ready_at = ready.map(|look| self.at(look));
        let after = |at: f64| {
            self.moments
                .iter()
                .filter(move |moment| moment.at.as_secs_f64() >= at)
        };
        let brokers = patched.replicas as usize;
        let share = ready_at
            .and_then(|at| after(at).find(|moment| is_shared(moment, brokers)))
            .map(|moment| moment.at.as_secs_f64());
        // The first second from which on no second is over the objective, while the load is large.
        let end = rise + self.large_seconds();
        let last_slow = after(rise)
            .filter(|moment| moment.at.as_secs_f64() <= end)
            .rfind(|moment| moment.p99.is_some_and(|p99| p99 > OBJECTIVE) || is_stalled(moment))
            .map(|moment| moment.at.as_secs_f64());
        let under = after(last_slow.unwrap_or(rise) + 0.5)
            .map(|moment| moment.at.as_secs_f64())
            .find(|at| *at <= end);
        let from_ready = |at: Option<f64>| at.zip(ready_at).map(|(at, ready)| at - ready);
        Answer {
            rise_to_patched: Some(patched_at - rise),
            patched_to_ready: ready_at.map(|at| at - patched_at),
            ready_to_share: from_ready(share),
            ready_to_objective: from_ready(under),
        }
    }

    /// From the first scale-up to all its brokers Ready, in seconds, whenever that was.
    pub(crate) fn start_seconds(&self) -> Option<f64> {
        let first = self.looks.first()?.desired;
        let decided = self.looks.iter().find(|look| look.desired > first)?;
        let ready = self
            .looks
            .iter()
            .find(|look| look.at >= decided.at && look.ready >= decided.desired)?;
        Some(ready.at.duration_since(decided.at).as_secs_f64())
    }

    fn large_seconds(&self) -> f64 {
        let first = self.scenario.steps.first().map_or(0, |(rate, _)| *rate);
        let large = self.scenario.steps.iter().filter(|(rate, _)| *rate > first);
        large.map(|(_, seconds)| *seconds).sum::<u64>() as f64
    }
}

/// Messages were due and none was acknowledged: then there is no latency, and nothing good about it.
fn is_stalled(moment: &Moment) -> bool {
    moment.offered > 0 && moment.acked == 0
}

fn is_shared(moment: &Moment, brokers: usize) -> bool {
    let even = moment.shares.values().sum::<u64>() as f64 / brokers.max(1) as f64;
    moment.shares.len() >= brokers && moment.shares.values().all(|&share| share as f64 >= SHARE * even)
}

/// What `sluice simulate` says of the same load, with a broker as it was measured.
pub(crate) fn predict(
    folder: &Path,
    scenario: &Scenario,
    spec: &str,
    rate: f64,
    start: f64,
) -> Result<Figures> {
    let folder = folder.join(scenario.name);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("trace.csv"), scenario.trace())?;
    std::fs::write(folder.join("broker.yaml"), spec)?;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let output = std::process::Command::new(std::env::current_exe()?)
        .args([
            "simulate",
            "--trace",
            &path("trace.csv"),
            "--spec",
            &path("broker.yaml"),
        ])
        .args([
            "--rate-per-broker",
            &format!("{rate:.0}"),
            "--cpu-by",
            "requests",
            "--start-time",
            &format!("{:.0}ms", start.max(0.1) * 1e3),
        ])
        .args([
            "--objective",
            &format!("{}ms", OBJECTIVE.as_millis()),
            "--drain-time",
            "5s",
            "--noise",
            "0.02",
        ])
        .args(["--policy", "sluice", "--seeds", "10", "--out", &path("simulated")])
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "sluice simulate: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::fs::read_to_string(folder.join("simulated/summary.json"))?;
    let summary: Value = serde_json::from_str(&text)?;
    let figures = &summary["policies"]["sluice"];
    let number = |name: &str| figures[name].as_f64();
    let needed = |name: &str| number(name).with_context(|| format!("summary.json has no {name}"));
    Ok(Figures {
        actions: needed("actions")?,
        reversals: needed("reversals")?,
        decision: number("first_decision_seconds"),
        most: needed("max_replicas")?,
        over_objective: needed("seconds_over_objective")?,
        replica_seconds: needed("replica_seconds")?,
    })
}

/// Where the rows are kept.
pub(crate) fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    target.join("closed-loop")
}
