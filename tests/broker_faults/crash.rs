//! Kill −9 in loops under load, at random moments and at those where it hurts most.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::harness::{FEW, Load, PARTITIONS};
use crate::process::Process;
use crate::seeded;

/// Kills before the log is read back and a new directory is begun.
const CAMPAIGN: u32 = 20;

/// When a broker is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// Some time after it became ready.
    Working,
    /// Before it became ready, perhaps.
    Recovering,
    /// Just when it began a new segment.
    Rolling,
    /// Some time after SIGTERM, if it still runs then.
    Stopping,
}

/// The highest number of a segment.
fn newest_segment(directory: &Path) -> u32 {
    let names = std::fs::read_dir(directory).into_iter().flatten();
    let number = |item: std::io::Result<std::fs::DirEntry>| {
        let name = item.ok()?.file_name().into_string().ok()?;
        name.strip_suffix(".log")?.parse().ok()
    };
    names.filter_map(number).max().unwrap_or(0)
}

/// Waits until a new segment is there; gives up after a while, since the load may be waiting for its turn.
async fn next_segment(directory: &Path) {
    let before = newest_segment(directory);
    let began = Instant::now();
    while newest_segment(directory) == before && began.elapsed() < Duration::from_secs(3) {
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}

async fn kill(process: &mut Process, directory: &Path, moment: Moment, random: &mut StdRng) {
    let mut wait = |most: u64| Duration::from_micros(random.random_range(0..most * 1000));
    match moment {
        Moment::Working => {
            process.ready().await;
            tokio::time::sleep(wait(1500)).await;
            process.kill();
        }
        Moment::Recovering => {
            tokio::time::sleep(wait(200)).await;
            process.kill();
        }
        Moment::Rolling => {
            process.ready().await;
            next_segment(directory).await;
            tokio::time::sleep(wait(3)).await;
            process.kill();
        }
        Moment::Stopping => {
            process.ready().await;
            tokio::time::sleep(wait(500)).await;
            process.terminate();
            match process.ended(wait(800)).await {
                Some(status) => assert!(status.success(), "{status}: {}", process.said()),
                None => process.kill(),
            }
        }
    }
}

/// `SLUICE_CRASH_ROUNDS=N` kills so many times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_at_any_moment_keeps_its_word() {
    let (seed, mut random) = seeded("crash");
    let rounds = std::env::var("SLUICE_CRASH_ROUNDS").map_or(10, |rounds| {
        rounds.parse().expect("SLUICE_CRASH_ROUNDS is a number")
    });
    let mut kills: BTreeMap<Moment, u32> = BTreeMap::new();
    let mut round = 0;
    while round < rounds {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Process::new(&[], directory.path(), PARTITIONS, &["--segment-bytes", "16Ki"]);
        process.start();
        let load = Load::start(process.data, seed.wrapping_add(u64::from(round)), &FEW);
        for _ in 0..CAMPAIGN.min(rounds - round) {
            let moments = [
                Moment::Working,
                Moment::Recovering,
                Moment::Rolling,
                Moment::Stopping,
            ];
            let moment = moments[random.random_range(0..moments.len())];
            kill(&mut process, directory.path(), moment, &mut random).await;
            *kills.entry(moment).or_default() += 1;
            round += 1;
            process.start();
        }
        load.finish(&mut process).await;
        println!(
            "{round} of {rounds} rounds: {kills:?}, {} segments",
            newest_segment(directory.path())
        );
    }
}
