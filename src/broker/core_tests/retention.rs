//! What may go, and what must stay.

use std::path::Path;
use std::time::Duration;

use super::support::*;
use crate::broker::group::{Member, Start};
use crate::broker::store::Store;
use crate::pb;

fn retained(retention: pb::Retention) -> pb::TopicConfiguration {
    let mut topic = topic("orders", vec![vec![chain_entry(1, "a", None)]]);
    topic.retention = Some(retention);
    topic
}

fn segments(directory: &Path) -> usize {
    let names = std::fs::read_dir(directory)
        .unwrap()
        .map(|item| item.unwrap().path());
    names
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .count()
}

#[tokio::test]
async fn the_bound_in_bytes_deletes_old_segments_and_keeps_what_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), "a");
    let retention = pb::Retention {
        bytes: 100 << 10,
        ..pb::Retention::default()
    };
    let configuration = configuration("a", 1, vec![retained(retention)]);
    store.configure(&configuration).unwrap();
    let body = "x".repeat(5000);
    append(&partition(&store, 0), "early", vec![message(7, "first")])
        .await
        .unwrap();
    for n in 0..200 {
        append(&partition(&store, 0), "p", vec![message(n, &body)])
            .await
            .unwrap();
    }
    let before = segments(directory.path());
    store.retain();
    until("it is trimmed", async || store.held()[0].bytes <= 100 << 10).await;
    store.retain();
    let held = store.held().remove(0);
    assert_eq!(held.positions, 201);
    assert!(
        segments(directory.path()) < before / 2,
        "{before} segments before"
    );
    assert!(
        store
            .read_batches(&entry(0, 1), 0, 1)
            .await
            .unwrap()
            .start_position
            == held.start
    );

    let copy = snapshot(directory.path());
    let again = open(copy.path(), "a");
    again.configure(&configuration).unwrap();
    assert_eq!(
        (again.held()[0].start, again.held()[0].positions),
        (held.start, 201)
    );
    let known = append(&partition(&again, 0), "early", vec![message(7, "first")])
        .await
        .unwrap();
    assert!(
        known[0].duplicate,
        "the producer is known although its segment is gone"
    );
    let mut member = Member::join(&again, "orders", "g", Start::Earliest).unwrap();
    let first = take(&mut member, 1).await;
    assert_eq!(first[0].message.offset.position(), held.start);
}

#[tokio::test]
async fn the_bound_in_time_deletes_what_is_older() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), "a");
    let age = prost_types::Duration {
        seconds: 0,
        nanos: 200_000_000,
    };
    let retention = pb::Retention {
        age: Some(age),
        ..pb::Retention::default()
    };
    store
        .configure(&configuration("a", 1, vec![retained(retention)]))
        .unwrap();
    append(&partition(&store, 0), "", vec![message(1, "old")])
        .await
        .unwrap();
    store.retain();
    assert_eq!(store.held()[0].start, 0);
    tokio::time::sleep(Duration::from_millis(250)).await;
    append(&partition(&store, 0), "", vec![message(2, "young")])
        .await
        .unwrap();
    store.retain();
    until("it is trimmed", async || store.held()[0].start == 1).await;
}

#[tokio::test]
async fn a_work_queue_keeps_what_any_group_has_not_done() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), "a");
    let retention = pb::Retention {
        work_queue: true,
        ..pb::Retention::default()
    };
    store
        .configure(&configuration("a", 1, vec![retained(retention)]))
        .unwrap();
    for n in 0..4 {
        append(&partition(&store, 0), "", vec![message(n, "x")])
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    store.retain();
    assert_eq!(store.held()[0].start, 0, "no group has done anything");
    let mut fast = Member::join(&store, "orders", "fast", Start::Earliest).unwrap();
    let mut slow = Member::join(&store, "orders", "slow", Start::Earliest).unwrap();
    let got = take(&mut fast, 4).await;
    ack(&fast, &got).await;
    let got = take(&mut slow, 2).await;
    ack(&slow, &got).await;
    store.retain();
    until("it is trimmed", async || store.held()[0].start == 2).await;
    assert_eq!(take(&mut slow, 2).await.len(), 2);
}

/// Appends messages that are too large to be kept together with the next one.
async fn append_large(store: &Store, count: u64) {
    let body = "x".repeat(40 << 10);
    for n in 0..count {
        append(&partition(store, 0), "", vec![message(n, &body)])
            .await
            .unwrap();
    }
}

/// Bounds the topic to so many bytes, and waits until something of it is gone.
async fn trim_to(store: &Store, bytes: u64) {
    let retention = pb::Retention {
        bytes,
        ..pb::Retention::default()
    };
    store
        .configure(&configuration("a", 2, vec![retained(retention)]))
        .unwrap();
    store.retain();
    until("it is trimmed", async || store.held()[0].start > 0).await;
}

#[tokio::test]
async fn a_group_behind_the_retention_goes_on_at_its_start() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    let mut member = Member::join(&store, "orders", "g", Start::Earliest).unwrap();
    append_large(&store, 20).await;
    take(&mut member, 1).await;
    trim_to(&store, 200 << 10).await;
    let start = store.held()[0].start;
    let rest = take(&mut member, 20 - start as usize).await;
    assert_eq!(rest[0].message.offset.position(), start);
    ack(&member, &rest).await;
    assert_eq!(store.unconsumed().0, 0);
}

#[tokio::test]
async fn the_newest_messages_stay_however_small_the_bound() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    let mut member = Member::join(&store, "orders", "g", Start::Earliest).unwrap();
    append_large(&store, 3).await;
    trim_to(&store, 1000).await;
    assert_eq!(store.held()[0].start, 2);
    assert_eq!(take(&mut member, 1).await[0].message.offset.position(), 2);
}
