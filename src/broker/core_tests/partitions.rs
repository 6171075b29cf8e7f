//! Thousands of partitions on one broker.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::support::*;
use crate::broker::channel::Channel;
use crate::broker::store::{Offset, Store, StoreOptions};

fn open_with(directory: &Path, disk: &TestDisk, partitions: usize) -> Arc<Store> {
    let options = StoreOptions {
        segment_bytes: 4 << 20,
        ..options(directory, "a")
    };
    let store = Store::open_on(options, Arc::default(), Arc::new(disk.clone())).unwrap();
    let chains = vec![vec![chain_entry(1, "a", None)]; partitions];
    let problems = store.configure(&configuration("a", 1, vec![topic("orders", chains)]));
    assert_eq!(problems.unwrap(), vec![]);
    store
}

/// With so many topics that there is time to look before the last is in place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_told_of_a_configuration_finds_all_its_topics() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), "a");
    let mut configurations = store.configuration();
    let looking = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            configurations.changed().await.unwrap();
            store.topic("orders-1999").map(|topic| topic.partitions.len())
        }
    });
    let topics =
        (0..2000).map(|number| topic(&format!("orders-{number}"), vec![vec![chain_entry(1, "b", None)]]));
    let configuration = configuration("a", 1, topics.collect());
    let configuring = Arc::clone(&store);
    let problems = tokio::task::spawn_blocking(move || configuring.configure(&configuration));
    assert_eq!(problems.await.unwrap().unwrap(), vec![]);
    assert_eq!(looking.await.unwrap(), Some(1));
    close(store).await;
}

/// Files of a directory that this process has open.
fn open_files(directory: &Path) -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|item| std::fs::read_link(item.ok()?.path()).ok())
        .filter(|path| path.starts_with(directory))
        .count()
}

/// Each partition gets a message in each round; what is waiting during a sync is committed by the next one.
async fn rounds(partitions: usize, rounds: u64) {
    let directory = tempfile::tempdir().unwrap();
    let disk = TestDisk::default();
    let store = open_with(directory.path(), &disk, partitions);
    let all = store.topic("orders").unwrap().partitions;
    let channel = Channel::new(partitions as u32);
    let began = Instant::now();
    append(&all[0], "", vec![message(0, "first")]).await.unwrap();
    let before = disk.syncs.load(Ordering::SeqCst);
    for round in 0..rounds {
        disk.hold_syncs(true);
        let mut tickets = Vec::new();
        for partition in &all {
            let permit = channel.enter(1, 1, Instant::now()).await;
            let body = format!("{round}");
            tickets.push(partition.append(vec![message(round, &body)], "", permit).unwrap());
        }
        disk.hold_syncs(false);
        for ticket in tickets {
            ticket.done().await.unwrap();
        }
    }
    let syncs = disk.syncs.load(Ordering::SeqCst) - before;
    let (files, segments) = (open_files(directory.path()), segment_count(directory.path()));
    println!(
        "{partitions} partitions, {rounds} rounds: {syncs} fdatasyncs, {files} open files ({segments} segments), {} ms",
        began.elapsed().as_millis()
    );
    // At most two groups a round, one more for each 2 MiB of zeros ahead, and a mark where it was idle meanwhile.
    let zeroed = segments as u64 * 3;
    assert!(syncs <= rounds * 4 + zeroed, "{syncs} fdatasyncs");
    assert!(files <= segments + 1, "{files} open files, {segments} segments");
    drop(all);
    close(store).await;
    let store = open_with(directory.path(), &disk, partitions);
    let all = store.topic("orders").unwrap().partitions;
    for index in [1, partitions / 2, partitions - 1] {
        let found = read_all(&store, &entry(index as u32, 1)).await.unwrap();
        assert_eq!(found.len() as u64, rounds);
        let next = append(&all[index], "", vec![message(0, "next")]).await.unwrap();
        assert_eq!(next[0].offset, Offset::new(1, rounds));
    }
    drop(all);
    close(store).await;
}

fn segment_count(directory: &Path) -> usize {
    std::fs::read_dir(directory)
        .unwrap()
        .filter(|item| {
            item.as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|e| e == "log")
        })
        .count()
}

#[tokio::test]
async fn a_thousand_partitions_cost_no_more_files_and_syncs_than_one() {
    rounds(1000, 5).await;
}

#[tokio::test]
async fn ten_thousand_partitions_cost_no_more_files_and_syncs_than_one() {
    rounds(10_000, 3).await;
}
