//! Appends: order, durability, duplicates, refusals.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::support::*;
use crate::broker::channel::Channel;
use crate::broker::counters::Counters;
use crate::broker::store::{AppendError, Offset, Store};
use crate::pb;

#[tokio::test]
async fn what_is_appended_is_read_back_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 2);
    let appended = append(
        &partition(&store, 0),
        "",
        vec![message(1, "one"), message(2, "two")],
    )
    .await
    .unwrap();
    assert_eq!(appended[1].offset, Offset::new(1, 1));
    append(&partition(&store, 1), "", vec![message(1, "other")])
        .await
        .unwrap();
    append(&partition(&store, 0), "", vec![message(3, "three")])
        .await
        .unwrap();
    assert_eq!(
        bodies(&read_all(&store, &entry(0, 1)).await.unwrap()),
        ["one", "two", "three"]
    );
    close(store).await;

    let store = open(directory.path(), "a");
    assert_eq!(
        bodies(&read_all(&store, &entry(0, 1)).await.unwrap()),
        ["one", "two", "three"]
    );
    assert_eq!(bodies(&read_all(&store, &entry(1, 1)).await.unwrap()), ["other"]);
    assert!(
        store.topic("orders").is_none(),
        "nothing is appended before the operator confirms"
    );
    let chains = vec![vec![chain_entry(1, "a", None)]; 2];
    store
        .configure(&configuration("a", 2, vec![topic("orders", chains)]))
        .unwrap();
    let appended = append(&partition(&store, 0), "", vec![message(4, "four")])
        .await
        .unwrap();
    assert_eq!(appended[0].offset, Offset::new(1, 3));
}

pub(super) fn test_disk(directory: &std::path::Path) -> (Arc<Store>, TestDisk) {
    let disk = TestDisk::default();
    let store = Store::open_on(
        options(directory, "a"),
        Arc::new(Counters::default()),
        Arc::new(disk.clone()),
    )
    .unwrap();
    let chains = vec![vec![chain_entry(1, "a", None)]];
    store
        .configure(&configuration("a", 1, vec![topic("orders", chains)]))
        .unwrap();
    (store, disk)
}

#[tokio::test]
async fn an_append_is_acknowledged_only_after_its_sync() {
    let directory = tempfile::tempdir().unwrap();
    let (store, disk) = test_disk(directory.path());
    append(&partition(&store, 0), "", vec![message(1, "before")])
        .await
        .unwrap();
    disk.hold_syncs(true);
    let channel = Channel::new(10);
    let permit = channel.enter(1, 1, Instant::now()).await;
    let ticket = partition(&store, 0)
        .append(vec![message(2, "held")], "", permit)
        .unwrap();
    let mut done = Box::pin(ticket.done());
    let early = tokio::time::timeout(Duration::from_millis(100), &mut done).await;
    assert!(early.is_err(), "acknowledged before the sync");
    assert_eq!(channel.inside().0, 1, "the permit is held until the commit");
    assert_eq!(
        bodies(&read_all(&store, &entry(0, 1)).await.unwrap()),
        ["before"],
        "not read before it is durable"
    );
    disk.hold_syncs(false);
    assert_eq!(done.await.unwrap()[0].offset, Offset::new(1, 1));
    assert_eq!(channel.inside().0, 0);
}

#[tokio::test]
async fn one_sync_commits_everything_that_arrived_during_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let (store, disk) = test_disk(directory.path());
    append(&partition(&store, 0), "", vec![message(0, "first")])
        .await
        .unwrap();
    disk.hold_syncs(true);
    let channel = Channel::new(1000);
    let mut tickets = Vec::new();
    for n in 0..200 {
        let permit = channel.enter(1, 1, Instant::now()).await;
        tickets.push(
            partition(&store, 0)
                .append(vec![message(n, "x")], "", permit)
                .unwrap(),
        );
    }
    let before = store.counters.commits.get();
    disk.hold_syncs(false);
    for ticket in tickets {
        ticket.done().await.unwrap();
    }
    assert!(store.counters.commits.get() - before <= 2, "two groups at most");
}

#[tokio::test]
async fn memory_durability_does_not_wait_for_the_sync() {
    let directory = tempfile::tempdir().unwrap();
    let (store, disk) = test_disk(directory.path());
    append(&partition(&store, 0), "", vec![message(1, "one")])
        .await
        .unwrap();
    let chains = vec![vec![chain_entry(1, "a", None)]];
    let mut memory = configuration("a", 2, vec![topic("orders", chains)]);
    memory.set_durability(pb::Durability::Memory);
    store.configure(&memory).unwrap();
    disk.hold_syncs(true);
    let partition = partition(&store, 0);
    let appended = append(&partition, "", vec![message(2, "two")]);
    tokio::time::timeout(Duration::from_secs(5), appended)
        .await
        .expect("no wait for the disk")
        .unwrap();
    disk.hold_syncs(false);
}

#[tokio::test]
async fn a_full_disk_refuses_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let (store, disk) = test_disk(directory.path());
    append(&partition(&store, 0), "p", vec![message(1, "one")])
        .await
        .unwrap();
    disk.full.store(true, Ordering::SeqCst);
    let refused = append(&partition(&store, 0), "p", vec![message(2, &"long".repeat(100))])
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, AppendError::NotStored(why) if why.contains("full")),
        "{refused}"
    );
    disk.full.store(false, Ordering::SeqCst);
    let healed = append(&partition(&store, 0), "p", vec![message(2, "two")])
        .await
        .unwrap();
    assert_eq!(
        (healed[0].offset, healed[0].duplicate),
        (Offset::new(1, 1), false)
    );
    let copy = snapshot(directory.path());
    let again = open(copy.path(), "a");
    assert_eq!(
        bodies(&read_all(&again, &entry(0, 1)).await.unwrap()),
        ["one", "two"]
    );
}

#[tokio::test]
async fn a_repeated_sequence_is_stored_once_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    append(
        &partition(&store, 0),
        "p",
        vec![message(1, "one"), message(2, "two")],
    )
    .await
    .unwrap();
    let mixed = append(
        &partition(&store, 0),
        "p",
        vec![message(2, "two"), message(3, "three")],
    )
    .await
    .unwrap();
    assert_eq!((mixed[0].offset, mixed[0].duplicate), (Offset::new(1, 1), true));
    assert_eq!((mixed[1].offset, mixed[1].duplicate), (Offset::new(1, 2), false));
    let other = append(&partition(&store, 0), "q", vec![message(2, "of q")])
        .await
        .unwrap();
    assert!(!other[0].duplicate, "producers do not mix");
    close(store).await;
    let store = simple(directory.path(), 1);
    let again = append(
        &partition(&store, 0),
        "p",
        vec![message(3, "three"), message(4, "four")],
    )
    .await
    .unwrap();
    assert_eq!((again[0].offset, again[0].duplicate), (Offset::new(1, 2), true));
    assert_eq!((again[1].offset, again[1].duplicate), (Offset::new(1, 4), false));
}

#[tokio::test]
async fn the_copy_of_a_sequence_in_flight_is_a_duplicate_and_waits_for_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let (store, disk) = test_disk(directory.path());
    append(&partition(&store, 0), "p", vec![message(1, "one")])
        .await
        .unwrap();
    disk.hold_syncs(true);
    let channel = Channel::new(10);
    let mut tickets = Vec::new();
    for _ in 0..2 {
        let permit = channel.enter(1, 1, Instant::now()).await;
        tickets.push(
            partition(&store, 0)
                .append(vec![message(2, "two")], "p", permit)
                .unwrap(),
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let second = tickets.pop().unwrap();
    let mut second = Box::pin(second.done());
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut second)
            .await
            .is_err()
    );
    disk.hold_syncs(false);
    let first = tickets.pop().unwrap().done().await.unwrap();
    let second = second.await.unwrap();
    assert!(!first[0].duplicate && second[0].duplicate);
    assert_eq!(first[0].offset, second[0].offset);
}

#[tokio::test]
async fn a_sequence_older_than_what_is_remembered_is_refused_with_its_batch() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    for start in (1..2000).step_by(100) {
        let batch = (start..start + 100).map(|n| message(n, "x")).collect();
        append(&partition(&store, 0), "p", batch).await.unwrap();
    }
    let before = store.held()[0].positions;
    let refused = append(
        &partition(&store, 0),
        "p",
        vec![message(3000, "new"), message(5, "old")],
    )
    .await;
    assert!(
        matches!(&refused, Err(AppendError::Refused(why)) if why.contains("sequence 5 of producer \"p\" is older")),
        "{refused:?}"
    );
    assert_eq!(
        store.held()[0].positions,
        before,
        "nothing of the batch was stored"
    );
    let stored = append(&partition(&store, 0), "p", vec![message(3000, "new")])
        .await
        .unwrap();
    assert!(!stored[0].duplicate);
}

#[tokio::test]
async fn what_another_broker_owns_is_refused_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), "a");
    let chains = vec![vec![chain_entry(3, "b", None)]];
    store
        .configure(&configuration("a", 1, vec![topic("orders", chains)]))
        .unwrap();
    let refused = append(&partition(&store, 0), "", vec![message(1, "x")])
        .await
        .unwrap_err();
    assert_eq!(
        refused,
        AppendError::Moved {
            partition: 0,
            owner: "b".into(),
            epoch: 3
        }
    );
}

#[tokio::test]
async fn nothing_is_taken_after_the_close_and_what_was_let_in_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    let channel = Channel::new(100);
    let mut tickets = Vec::new();
    for n in 0..50 {
        let permit = channel.enter(1, 1, Instant::now()).await;
        tickets.push(
            partition(&store, 0)
                .append(vec![message(n, "x")], "", permit)
                .unwrap(),
        );
    }
    store.close().await;
    for ticket in tickets {
        ticket.done().await.unwrap();
    }
    assert!(
        append(&partition(&store, 0), "", vec![message(1, "late")])
            .await
            .is_err()
    );
    drop(store);
    assert_eq!(
        read_all(&open(directory.path(), "a"), &entry(0, 1))
            .await
            .unwrap()
            .len(),
        50
    );
}
