//! Where a group starts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::support::*;
use crate::broker::group::{Member, Next, Start};
use crate::broker::store::{Offset, Store};

#[tokio::test]
async fn a_group_starts_where_it_is_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 3).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let now = SystemTime::now();
    append(&partition(&store, 0), "", vec![message(9, "after")])
        .await
        .unwrap();
    let starts = [
        ("earliest", Start::Earliest, "m0"),
        ("offset", Start::Offset(Offset::new(1, 2)), "m2"),
        ("time", Start::Time(now), "after"),
        ("long ago", Start::Time(SystemTime::UNIX_EPOCH), "m0"),
    ];
    for (group, start, expected) in starts {
        let mut member = Member::join(&store, "orders", group, start).unwrap();
        assert_eq!(texts(&take(&mut member, 1).await), [expected], "{group}");
    }
    let mut latest = Member::join(&store, "orders", "latest", Start::Latest).unwrap();
    assert!(nothing_comes(&mut latest).await);
    append(&partition(&store, 0), "", vec![message(10, "new")])
        .await
        .unwrap();
    assert_eq!(texts(&take(&mut latest, 1).await), ["new"]);
}

/// Epoch 1 with "old" and, after a while, "new" is sealed at "a"; epoch 2 with "newest" is open at "b". And a time
/// between "old" and "new".
async fn moved(directories: &[tempfile::TempDir; 2]) -> (Arc<Store>, Arc<Store>, Arc<Wire>, SystemTime) {
    let a = open(directories[0].path(), "a");
    let b = open(directories[1].path(), "b");
    let wire = Arc::new(Wire::default());
    wire.join("a", &a);
    wire.join("b", &b);
    place(&a, "a", 1, vec![chain_entry(1, "a", None)]);
    let put = async |store: &Store, body: &str| {
        append(&partition(store, 0), "", vec![message(1, body)])
            .await
            .unwrap();
        // Times are kept in whole milliseconds.
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    put(&a, "old").await;
    let between = SystemTime::now();
    put(&a, "new").await;
    let sealed_at = a.seal(&entry(0, 1)).await.unwrap();
    let chain = vec![chain_entry(1, "a", Some(sealed_at)), chain_entry(2, "b", None)];
    place(&b, "b", 1, chain.clone());
    place(&a, "a", 2, chain);
    put(&b, "newest").await;
    until("the new owner serves", async || {
        partition(&b, 0).served().is_some()
    })
    .await;
    (a, b, wire, between)
}

#[tokio::test]
async fn a_time_in_an_entry_on_another_broker_is_found_there() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (_a, b, wire, between) = moved(&directories).await;
    let first = async |group: &str, start: Start| {
        let mut member = Member::join(&b, "orders", group, start).unwrap();
        texts(&take(&mut member, 1).await).remove(0)
    };
    assert_eq!(first("between", Start::Time(between)).await, "new");
    assert_eq!(
        first("long ago", Start::Time(SystemTime::UNIX_EPOCH)).await,
        "old"
    );
    assert_eq!(first("offset", Start::Offset(Offset::new(1, 1))).await, "new");
    assert_eq!(first("gap", Start::Offset(Offset::new(1, 70))).await, "newest");
    // A later one is found without asking.
    let reads = wire.reads.load(Ordering::SeqCst);
    let mut late = Member::join(&b, "orders", "late", Start::Latest).unwrap();
    append(&partition(&b, 0), "", vec![message(9, "next")])
        .await
        .unwrap();
    assert_eq!(texts(&take(&mut late, 1).await), ["next"]);
    assert_eq!(wire.reads.load(Ordering::SeqCst), reads);
}

#[tokio::test]
async fn a_start_that_cannot_be_asked_for_is_said_and_found_later() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (_a, b, wire, between) = moved(&directories).await;
    wire.cut.store(true, Ordering::SeqCst);
    let mut member = Member::join(&b, "orders", "g", Start::Time(between)).unwrap();
    let reason = loop {
        match member.next(ALL).await {
            Next::Unavailable(0, reason) if reason.contains("cut off") => break reason,
            Next::Unavailable(..) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(reason.contains("where the group starts"), "{reason}");
    wire.cut.store(false, Ordering::SeqCst);
    assert_eq!(texts(&take(&mut member, 2).await), ["new", "newest"]);
}

#[tokio::test]
async fn a_start_before_what_is_kept_is_the_oldest_and_one_after_the_end_is_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    let before = SystemTime::now() - Duration::from_secs(60);
    let body = "x".repeat(20_000);
    for n in 0..20 {
        let text = format!("{n}{body}");
        append(&partition(&store, 0), "", vec![message(n, &text)])
            .await
            .unwrap();
    }
    let mut small = topic("orders", vec![vec![chain_entry(1, "a", None)]]);
    small.retention = Some(crate::pb::Retention {
        bytes: 100_000,
        ..crate::pb::Retention::default()
    });
    store.configure(&configuration("a", 2, vec![small])).unwrap();
    until("the oldest are gone", async || {
        store.retain();
        store.held()[0].start > 0
    })
    .await;
    let start = store.held()[0].start;
    let first = async |group: &str, start: Start| {
        let mut member = Member::join(&store, "orders", group, start).unwrap();
        take(&mut member, 1).await[0].message.offset.position()
    };
    assert_eq!(first("time", Start::Time(before)).await, start);
    assert_eq!(first("offset", Start::Offset(Offset::new(1, 0))).await, start);
    assert_eq!(first("earliest", Start::Earliest).await, start);
    let far = Start::Offset(Offset::new(77, 77));
    let future = Start::Time(SystemTime::now() + Duration::from_secs(3600));
    let mut behind = Member::join(&store, "orders", "behind", far).unwrap();
    let mut later = Member::join(&store, "orders", "later", future).unwrap();
    assert!(nothing_comes(&mut behind).await && nothing_comes(&mut later).await);
    append(&partition(&store, 0), "", vec![message(20, "next")])
        .await
        .unwrap();
    assert_eq!(texts(&take(&mut behind, 1).await), ["next"]);
    assert_eq!(texts(&take(&mut later, 1).await), ["next"]);
}
