//! The table that is printed.

use std::fmt::Write as _;

use super::work::PolicyResult;
use crate::scaling::simulation::Scenario;

/// One line for each policy.
pub(super) fn table(scenario: &Scenario, seeds: u32, results: &[PolicyResult]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}: {} s, {} seed{}, {:.0}/s a broker, {:.0} s to start one, objective {:.1} s",
        scenario.load.name(),
        scenario.load.seconds(),
        seeds,
        if seeds == 1 { "" } else { "s" },
        scenario.broker.rate,
        scenario.start_seconds,
        scenario.objective,
    );
    let _ = writeln!(
        text,
        "{:<7} {:>7} {:>9} {:>7} {:>5} {:>7} {:>10} {:>6} {:>6} {:>6} {:>8}",
        "policy",
        "actions",
        "reversals",
        "first s",
        "most",
        "s over",
        "replica-s",
        "ideal",
        "under",
        "over",
        "dropped"
    );
    for result in results {
        let figures = &result.figures;
        let first = figures
            .first_decision_seconds
            .map_or("-".to_owned(), |first| format!("{first:.1}"));
        let _ = writeln!(
            text,
            "{:<7} {:>7.1} {:>9.1} {:>7} {:>5.1} {:>7.1} {:>10.0} {:>5.0}% {:>6.3} {:>6.3} {:>8.0}",
            result.kind.name(),
            figures.actions,
            figures.reversals,
            first,
            figures.max_replicas,
            figures.seconds_over_objective,
            figures.replica_seconds,
            figures.replica_seconds / figures.ideal_replica_seconds.max(1.0) * 100.0,
            figures.under_accuracy,
            figures.over_accuracy,
            figures.dropped,
        );
    }
    text
}
