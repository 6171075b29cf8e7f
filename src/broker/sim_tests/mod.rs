//! A deterministic simulation of two brokers' cores, their clients and the operator that moves partitions between them:
//! stores, groups and journals on disks whose power is cut, in one thread, with every choice (who runs next, what fails
//! and when, what a disk keeps, what is moved) drawn from a seed. What the clients saw is checked as in
//! `tests/broker_faults`.
//!
//! `SLUICE_SEEDS=N` runs so many seeds; `SLUICE_SEED=N` runs that one and prints what happened.

mod chaos;
mod consumer;
mod faults;
mod letters;
mod moves;
mod producer;
mod retention;
mod scheduler;
mod world;

#[path = "../../../tests/support/history/mod.rs"]
mod history;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use self::faults::Faults;
use self::history::check::{Violation, check, check_keys};
use self::history::{Events, Outcome};
use self::scheduler::Scheduler;
use self::world::{BROKERS, World};
use crate::broker::clock;

/// The groups that must get everything.
const GROUPS: [&str; 3] = ["shared", BY_KEY, "single"];
/// The group that gets the messages of a key in their order.
const BY_KEY: &str = "by-key";
/// The topic's partitions.
const PARTITIONS: usize = 2;
/// What lies in one place: those, and the dead-letter topic's partition.
const PLACES: usize = PARTITIONS + 1;

/// What a seed led to.
struct Run {
    events: Events,
    violations: Vec<Violation>,
    faults: Faults,
    steps: u64,
}

fn run(seed: u64) -> Run {
    // Sizes on the disk depend on it, and on these what is full when.
    let _stopped = clock::stopped::stop(1_700_000_000_000);
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::start(random.random());
    let mut scheduler = Scheduler::new(random.random());
    for broker in 0..BROKERS.len() {
        scheduler.spawn(world::write_journal(Rc::clone(&world), broker));
        scheduler.spawn(world::compact(Rc::clone(&world), broker));
        scheduler.spawn(moves::hand_over(Rc::clone(&world), broker));
        scheduler.spawn(letters::bury(Rc::clone(&world), broker));
        for member in 0..5 {
            let group = GROUPS[member % GROUPS.len()];
            scheduler.spawn(consumer::consume(Rc::clone(&world), broker, group));
        }
    }
    scheduler.spawn(chaos::conduct(Rc::clone(&world)));
    scheduler.spawn(moves::operate(Rc::clone(&world)));
    for number in 0..random.random_range(2..6) {
        scheduler.spawn(producer::publish(Rc::clone(&world), number));
    }
    let steps = scheduler.run(|| world.is_over(), || world.situation());
    let events = world.history.events();
    let mut violations = check(&events, &GROUPS);
    violations.extend(check_keys(&events, BY_KEY, producer::key));
    Run {
        violations,
        events,
        faults: world.faults(),
        steps,
    }
}

/// All that the clients saw, in a number.
fn digest(events: &Events) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{events:?}").hash(&mut hasher);
    hasher.finish()
}

fn describe(run: &Run) -> String {
    let outcomes = |outcome| run.events.settles.iter().filter(|s| s.outcome == outcome).count();
    format!(
        "{} messages published, {} in the log, {} deliveries, {} answers confirmed, {} stale, {} unknown; {:?}; {} steps",
        run.events.appends.len(),
        run.events.log.len(),
        run.events.deliveries.len(),
        outcomes(Outcome::Confirmed),
        outcomes(Outcome::Stale),
        outcomes(Outcome::Unknown),
        run.faults,
        run.steps,
    )
}

#[test]
fn whatever_fails_the_clients_are_told_the_truth() {
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        Some(
            value
                .parse::<u64>()
                .unwrap_or_else(|_| panic!("{name} is a number")),
        )
    };
    if let Some(seed) = number("SLUICE_SEED") {
        let run = run(seed);
        println!("{}", describe(&run));
        assert!(
            run.violations.is_empty(),
            "SLUICE_SEED={seed}: {:?}",
            run.violations
        );
        return;
    }
    let seeds = number("SLUICE_SEEDS").unwrap_or(60);
    let first = rand::random::<u32>();
    let mut faults = Faults::default();
    let (mut messages, mut deliveries) = (0, 0);
    for seed in (u64::from(first)..).take(seeds as usize) {
        // A panic in the run is to name the seed as well.
        let run = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
            eprintln!("the simulation ended: SLUICE_SEED={seed} replays it");
            std::panic::resume_unwind(panic)
        });
        assert!(
            run.violations.is_empty(),
            "SLUICE_SEED={seed} replays {} violations, the first: {:?}",
            run.violations.len(),
            &run.violations[..run.violations.len().min(5)],
        );
        faults.add(run.faults);
        messages += run.events.appends.len();
        deliveries += run.events.deliveries.len();
    }
    println!("{seeds} seeds from {first}: {messages} messages, {deliveries} deliveries, {faults:?}");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 1..6 {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.steps, second.steps, "seed {seed}");
        assert_eq!(digest(&first.events), digest(&second.events), "seed {seed}");
    }
}
