//! Many simulations on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::scaling::simulation::{Act, Figures, Moment, PolicyKind, Scenario, mean, simulate};

/// What came of one policy.
pub(super) struct PolicyResult {
    pub(super) kind: PolicyKind,
    /// Means over the seeds.
    pub(super) figures: Figures,
    /// The changes with each seed.
    pub(super) acts: Vec<Vec<Act>>,
    /// Every second of the first seed.
    pub(super) timeline: Vec<Moment>,
}

/// Runs each policy with each seed; the order of the results does not depend on the cores.
pub(super) fn run_all(scenario: &Scenario, policies: &[PolicyKind], seeds: u32) -> Vec<PolicyResult> {
    let seeds = seeds as usize;
    let jobs = policies.len() * seeds;
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(jobs));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(jobs) {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    let Some(kind) = policies.get(job / seeds) else {
                        return;
                    };
                    let seed = job % seeds;
                    let outcome = simulate(scenario, *kind, seed as u64, seed == 0);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((job, outcome));
                }
            });
        }
    });
    let mut outcomes = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|(job, _)| *job);
    let mut outcomes = outcomes.into_iter().map(|(_, outcome)| outcome);
    let result = |kind: &PolicyKind| {
        let mut result = PolicyResult {
            kind: *kind,
            figures: Figures::default(),
            acts: Vec::new(),
            timeline: Vec::new(),
        };
        let mut figures = Vec::new();
        for outcome in outcomes.by_ref().take(seeds) {
            figures.push(outcome.figures);
            result.acts.push(outcome.acts);
            if result.timeline.is_empty() {
                result.timeline = outcome.timeline;
            }
        }
        result.figures = mean(&figures);
        result
    };
    policies.iter().map(result).collect()
}
