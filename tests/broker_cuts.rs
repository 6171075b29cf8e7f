//! Calls that are cut at any step of their life, in any order, leave nothing behind in the broker.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

#[path = "support/cuts.rs"]
mod cuts;
#[path = "support/ports.rs"]
mod ports;
#[path = "support/process.rs"]
mod process;
#[path = "support/raw.rs"]
mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cuts::{AT_ONCE, Life, all_lives, live_on_one_connection, random_life};
use process::{BrokerProcess, metric};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use sluice::pb;

/// Connections at once.
const CONNECTIONS: usize = 16;

async fn broker() -> BrokerProcess {
    let retention = pb::Retention {
        bytes: 4 << 20,
        ..pb::Retention::default()
    };
    // Small ones, since the index of the open segment grows until that is full: memory would depend on when it is taken.
    BrokerProcess::start(pb::Durability::Memory, retention, &["--segment-bytes", "256Ki"]).await
}

/// What a broker at rest has, besides memory.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    connections: u64,
    streams: u64,
    publish_streams: u64,
    channel_messages: u64,
    channel_bytes: u64,
    inflight_bytes: u64,
    group_members: u64,
    outstanding_messages: u64,
    tasks: u64,
    open_files: usize,
}

impl Held {
    async fn by(broker: &BrokerProcess) -> Self {
        let page = broker.page("/metrics").await;
        let value = |name| metric(&page, name);
        Self {
            connections: value("connections"),
            streams: value("streams"),
            publish_streams: value("publish_streams"),
            channel_messages: value("channel_messages"),
            channel_bytes: value("channel_bytes"),
            inflight_bytes: value("inflight_bytes"),
            group_members: value("group_members"),
            outstanding_messages: value("outstanding_messages"),
            tasks: value("tasks"),
            open_files: broker.open_files(),
        }
    }

    /// Waits until it is as it was.
    async fn comes_back(&self, broker: &BrokerProcess) {
        let end = Instant::now() + process::PATIENCE;
        loop {
            let now = Self::by(broker).await;
            if now == *self {
                return;
            }
            assert!(Instant::now() < end, "{now:#?} is not {self:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Lives them all, some at a time.
async fn live(broker: &BrokerProcess, lives: Vec<Life>, seed: u64) {
    let address = broker.data;
    let lives = Arc::new(lives);
    let next = Arc::new(AtomicUsize::new(0));
    let workers = (0..CONNECTIONS).map(|_| {
        let (lives, next) = (Arc::clone(&lives), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let from = next.fetch_add(AT_ONCE, Ordering::Relaxed);
                let Some(rest) = lives.get(from..) else { return };
                let some = &rest[..rest.len().min(AT_ONCE)];
                let result = live_on_one_connection(address, some, seed.wrapping_add(from as u64)).await;
                result.unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
}

fn seed() -> u64 {
    match std::env::var("SLUICE_TEST_SEED") {
        Ok(text) => text.parse().expect("SLUICE_TEST_SEED is a number"),
        Err(_) => rand::random(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_cut_at_any_step_leaves_nothing_behind() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let broker = broker().await;
    let mut lives = all_lives(3);
    lives.extend((0..1000).map(|_| random_life(&mut random)));
    lives.shuffle(&mut random);
    // What is made once and kept, such as groups.
    live(
        &broker,
        (0..200).map(|_| random_life(&mut random)).collect(),
        seed,
    )
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = Held::by(&broker).await;
    assert_eq!(
        (before.connections, before.streams, before.outstanding_messages),
        (0, 0, 0)
    );
    let (count, memory) = (lives.len(), broker.resident());
    let began = Instant::now();
    live(&broker, lives, seed).await;
    let took = began.elapsed();
    before.comes_back(&broker).await;
    println!(
        "{count} cuts in {took:?} (seed {seed}): {before:?}; memory {memory} before, {} after",
        broker.resident()
    );
}

/// Bar P7. `cargo test --release --test broker_cuts -- --ignored --nocapture`; `CUTS` is another number than a million.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two minutes or more"]
async fn a_million_cuts_leave_nothing_behind() {
    let count: usize =
        std::env::var("CUTS").map_or(1_000_000, |text| text.parse().expect("CUTS is a number"));
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let broker = broker().await;
    let rounds = 20;
    let mut before = None;
    let began = Instant::now();
    // So many rounds fill what is bounded: the log within its retention and what is known of its messages, the
    // producers' windows, the groups' progress, the allocator's arenas. With `CUTS=3000000`, once, it was 20,756 KiB after
    // 450,000 cuts, 23,328 after 1,650,000, 24,456 after 2,100,000 and 25,248 after 5,100,000: it still grows a little, by what is not known.
    let warm = 34;
    for round in 1..=warm + rounds {
        let lives = (0..count / rounds).map(|_| random_life(&mut random));
        live(&broker, lives.collect(), seed).await;
        if round == warm {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let held = Held::by(&broker).await;
            println!("before: {} KiB, {held:?}", broker.resident() / 1024);
            before = Some((held, broker.resident()));
        }
        println!(
            "{:?}: round {round}, {} KiB",
            began.elapsed(),
            broker.resident() / 1024
        );
    }
    let (held, memory) = before.expect("there was a round");
    held.comes_back(&broker).await;
    let after = broker.resident();
    println!(
        "{} cuts in {:?} (seed {seed}): memory {} KiB before, {} KiB after ({:+.1} %), {:?}",
        count / rounds * rounds,
        began.elapsed(),
        memory / 1024,
        after / 1024,
        (after as f64 / memory as f64 - 1.0) * 100.0,
        Held::by(&broker).await
    );
    assert!(
        after as f64 <= memory as f64 * 1.05,
        "memory grew by more than 5 %"
    );
}
