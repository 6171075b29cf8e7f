//! What the demo ends with: messages, and how long everything took.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;
use sluice::api::MessageBroker;

use crate::OBJECTIVE;
use crate::observe::Moment;

/// A new broker carries its share from this part of an even one on.
const SHARE: f64 = 0.8;

/// As written to `target/demo/summary.json`. Seconds count from the step to five times the load.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) acknowledged: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) seconds_to_decision: Option<f64>,
    pub(crate) seconds_to_ready: Option<f64>,
    pub(crate) seconds_to_share: Option<f64>,
    pub(crate) seconds_to_objective: Option<f64>,
    pub(crate) objective_milliseconds: u64,
    pub(crate) most_brokers: u32,
    pub(crate) brokers_at_the_end: u32,
    pub(crate) scale_ups: usize,
    pub(crate) scale_downs: usize,
    pub(crate) decisions: Vec<String>,
}

impl Summary {
    /// Draws the sum of what was seen; `step` is when the load grew from `small` to five times that.
    pub(crate) fn new(
        moments: &[Moment],
        load: &Value,
        broker: &MessageBroker,
        step: Duration,
        small: u64,
    ) -> Self {
        let after = || moments.iter().filter(move |moment| moment.at >= step);
        let most = moments.iter().map(|moment| moment.desired).max().unwrap_or(0);
        let seconds = |moment: &Moment| moment.at.saturating_sub(step).as_secs_f64();
        let grown = after().find(|moment| moment.desired > 1);
        let first_target = grown.map_or(u32::MAX, |moment| moment.desired);
        let ready = after().find(|moment| moment.ready >= first_target);
        let ready_at = ready.map_or(Duration::MAX, |moment| moment.at);
        let share = after()
            .filter(|moment| moment.at >= ready_at)
            .find(|moment| is_shared(moment));
        // The last second over the objective while the load was large, and the one after it.
        let large = || after().filter(|moment| moment.offered > 2 * small);
        let slow = |moment: &&Moment| moment.p99.is_some_and(|p99| p99 > OBJECTIVE);
        let last_slow = large().rfind(slow).map(|moment| moment.at);
        let fast = large().find(|moment| last_slow.is_none_or(|slow| moment.at > slow));
        let count = |name: &str| load[name].as_u64().unwrap_or(0);
        let decisions = broker
            .status
            .as_ref()
            .and_then(|status| status.autoscaling.as_ref());
        let decisions = decisions
            .map(|autoscaling| autoscaling.decisions.clone())
            .unwrap_or_default();
        Self {
            acknowledged: count("acknowledged"),
            delivered: count("delivered"),
            lost: count("lost"),
            duplicated: count("duplicated"),
            reordered: count("reordered"),
            seconds_to_decision: grown.map(seconds),
            seconds_to_ready: ready.map(seconds),
            seconds_to_share: share.map(seconds),
            seconds_to_objective: fast.map(seconds),
            objective_milliseconds: OBJECTIVE.as_millis() as u64,
            most_brokers: most,
            brokers_at_the_end: moments.last().map_or(0, |moment| moment.ready),
            scale_ups: decisions
                .iter()
                .filter(|decision| decision.to > decision.from)
                .count(),
            scale_downs: decisions
                .iter()
                .filter(|decision| decision.to < decision.from)
                .count(),
            decisions: decisions.into_iter().map(|decision| decision.message).collect(),
        }
    }

    /// Writes `target/demo/summary.json`.
    pub(crate) fn write(&self) -> Result<()> {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let folder = target.join("demo");
        let path = folder.join("summary.json");
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&path, format!("{:#}\n", serde_json::json!(self))))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Whether every broker acknowledges at least [`SHARE`] of an even share.
fn is_shared(moment: &Moment) -> bool {
    let brokers = moment.shares.len();
    let even = moment.shares.values().sum::<u64>() as f64 / brokers.max(1) as f64;
    brokers > 1 && moment.shares.values().all(|&share| share as f64 >= SHARE * even)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds =
            |value: Option<f64>| value.map_or_else(|| "not seen".to_owned(), |value| format!("{value:.0} s"));
        let objective = format!("to p99 under {} ms again", self.objective_milliseconds);
        let rows = [
            ("messages acknowledged", self.acknowledged.to_string()),
            ("messages delivered", self.delivered.to_string()),
            ("lost", self.lost.to_string()),
            ("duplicated", self.duplicated.to_string()),
            ("out of order", self.reordered.to_string()),
            ("from the step to the decision", seconds(self.seconds_to_decision)),
            ("to the new brokers Ready", seconds(self.seconds_to_ready)),
            ("to their carrying their share", seconds(self.seconds_to_share)),
            (&objective, seconds(self.seconds_to_objective)),
            ("most brokers", self.most_brokers.to_string()),
            ("brokers at the end", self.brokers_at_the_end.to_string()),
            (
                "scale-ups / scale-downs",
                format!("{} / {}", self.scale_ups, self.scale_downs),
            ),
        ];
        for (name, value) in rows {
            writeln!(f, "  {name:<34}{value:>12}")?;
        }
        writeln!(f, "\nwhy, in the operator's words:")?;
        for decision in &self.decisions {
            writeln!(f, "  - {decision}")?;
        }
        Ok(())
    }
}
