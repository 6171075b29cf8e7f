//! Many concurrent publishers and consumers on a network that breaks, and a broker that is killed meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::Rng as _;

use crate::harness::{Load, MANY, PARTITIONS};
use crate::process::Process;
use crate::proxy::{Proxy, Weather};
use crate::seeded;

/// `SLUICE_HISTORY_SECONDS=N` goes on for so long; 8 s otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_with_broken_connections_and_kills_are_linearizable() {
    let (seed, mut random) = seeded("histories");
    let seconds = std::env::var("SLUICE_HISTORY_SECONDS").map_or(8, |seconds| {
        seconds.parse().expect("SLUICE_HISTORY_SECONDS is a number")
    });
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::new(&[], directory.path(), PARTITIONS, &["--segment-bytes", "64Ki"]);
    let proxy = Proxy::start(process.data).await;
    process.start_ready().await;
    let load = Load::start(proxy.address, seed, &MANY);
    let began = Instant::now();
    let mut faults: BTreeMap<&str, u32> = BTreeMap::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        let mut wait = |most: u64| Duration::from_millis(random.random_range(0..most));
        let (before, long) = (wait(200), wait(300));
        tokio::time::sleep(before).await;
        let fault = match random.random_range(0..10) {
            0..3 => {
                proxy.cut(|| random.random_bool(0.3));
                "some cut"
            }
            3 => {
                proxy.cut(|| true);
                "all cut"
            }
            4..6 => {
                // What was asked is done, and nobody hears of it.
                proxy.weather(Weather::Deaf);
                tokio::time::sleep(long).await;
                proxy.cut(|| true);
                "answers lost"
            }
            6 => {
                proxy.weather(Weather::Still);
                tokio::time::sleep(long).await;
                // Old requests arrive after their repetition on another connection.
                if random.random() {
                    proxy.cut(|| random.random_bool(0.5));
                }
                "still"
            }
            7 => {
                proxy.weather(Weather::Slow(long / 10));
                tokio::time::sleep(long).await;
                "slow"
            }
            _ => {
                process.kill();
                process.start();
                "killed"
            }
        };
        proxy.weather(Weather::Fair);
        *faults.entry(fault).or_default() += 1;
    }
    let connections = proxy.opened.load(Ordering::Relaxed);
    load.finish(&mut process).await;
    println!("{faults:?}, {connections} connections");
}
