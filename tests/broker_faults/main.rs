//! Faults against the real executable: killed in loops, cut off, out of disk. What clients were told is recorded, and
//! a checker holds the broker to it.
//!
//! `SLUICE_SEED=N` repeats the choices of a run (not the machine's timing); each test prints its seed.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that cannot go on ends, and nothing is public"
)]

#[path = "../support/history/mod.rs"]
mod history;
#[path = "../support/history/check_tests.rs"]
mod history_tests;

mod consumer;
mod crash;
mod disk_full;
mod harness;
mod histories;
mod process;
mod producer;
mod proxy;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// The choices of a test; says how to make them again.
fn seeded(test: &str) -> (u64, StdRng) {
    let seed = std::env::var("SLUICE_SEED")
        .ok()
        .map_or_else(rand::random, |seed| {
            seed.parse().expect("SLUICE_SEED is a number")
        });
    println!("{test}: SLUICE_SEED={seed}");
    (seed, StdRng::seed_from_u64(seed))
}
