//! Consumer groups: who gets what.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::support::*;
use crate::broker::group::{Answer, Budget, Member, Next, Refused, Start};

#[tokio::test]
async fn messages_come_in_order_and_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 5).await;
    let mut member = join(&store);
    assert!(member.has_waiting());
    let first = take(&mut member, 3).await;
    assert_eq!(texts(&first), ["m0", "m1", "m2"]);
    assert_eq!(first[0].count, 1);
    let rest = take(&mut member, 2).await;
    assert_eq!(texts(&rest), ["m3", "m4"]);
    assert!(!member.has_waiting());
    assert!(nothing_comes(&mut member).await);
    append(&partition(&store, 0), "", vec![message(9, "later")])
        .await
        .unwrap();
    assert_eq!(texts(&take(&mut member, 1).await), ["later"]);
}

#[tokio::test]
async fn groups_are_independent() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 3).await;
    let mut one = join(&store);
    let mut other = Member::join(&store, "orders", "h", Start::Earliest).unwrap();
    assert_eq!(take(&mut one, 3).await.len(), 3);
    assert_eq!(take(&mut other, 3).await.len(), 3);
}

#[tokio::test]
async fn a_budget_is_kept_and_lets_one_large_message_through() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 10).await;
    let mut member = join(&store);
    assert_eq!(
        deliveries(
            &mut member,
            Budget {
                messages: 2,
                bytes: 1000
            }
        )
        .await
        .len(),
        2
    );
    assert_eq!(
        deliveries(
            &mut member,
            Budget {
                messages: 100,
                bytes: 5
            }
        )
        .await
        .len(),
        2
    );
    assert_eq!(
        deliveries(
            &mut member,
            Budget {
                messages: 100,
                bytes: 1
            }
        )
        .await
        .len(),
        1
    );
    let none = deliveries(
        &mut member,
        Budget {
            messages: 0,
            bytes: 100,
        },
    );
    assert!(
        tokio::time::timeout(Duration::from_millis(50), none)
            .await
            .is_err()
    );
    assert_eq!(texts(&take(&mut member, 5).await), ["m5", "m6", "m7", "m8", "m9"]);
}

#[tokio::test]
async fn members_that_wait_share_what_comes() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    let (mut one, mut other) = (join(&store), join(&store));
    let partition = partition(&store, 0);
    let (a, b, ()) = tokio::join!(deliveries(&mut one, ALL), deliveries(&mut other, ALL), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let batch = (0..100).map(|n| message(n, "x")).collect();
        append(&partition, "", batch).await.unwrap();
    });
    assert_eq!((a.len(), b.len()), (50, 50), "neither takes it all");
}

#[tokio::test]
async fn a_cancelled_next_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    let mut member = join(&store);
    let mut got = Vec::new();
    for n in 0..200 {
        // The wait is cut at the moment at which messages come.
        let cut = tokio::time::timeout(Duration::from_micros(n * 5), deliveries(&mut member, ALL));
        let partition = partition(&store, 0);
        let (cut, _) = tokio::join!(cut, append(&partition, "", vec![message(n, &format!("{n}"))]));
        got.extend(cut.into_iter().flatten());
    }
    while got.len() < 200 {
        let left = 200 - got.len();
        got.extend(take(&mut member, left).await);
    }
    let expected: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(texts(&got), expected);
}

#[tokio::test]
async fn a_topic_that_goes_away_ends_its_members() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 0).await;
    let mut member = join(&store);
    let (next, ()) = tokio::join!(member.next(ALL), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        store.configure(&configuration("a", 2, Vec::new())).unwrap();
    });
    assert!(matches!(next, Next::Gone));
}

#[tokio::test]
async fn damaged_messages_are_said_and_passed_over() {
    use std::os::unix::fs::FileExt as _;
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    for body in ["one", "to be damaged", "three"] {
        append(&partition(&store, 0), "", vec![message(1, body)])
            .await
            .unwrap();
    }
    let path = directory.path().join("000001.log");
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(13)
        .position(|window| window == b"to be damaged")
        .unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(b"T", at as u64)
        .unwrap();
    let mut member = join(&store);
    let mut said = Vec::new();
    let mut got = Vec::new();
    while got.len() < 2 {
        match member.next(ALL).await {
            Next::Deliveries(delivered) => got.extend(delivered),
            Next::Unavailable(partition, reason) => said.push((partition, reason)),
            Next::Gone => panic!(),
        }
    }
    assert_eq!(texts(&got), ["one", "three"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].1.contains("data lost"));
    ack(&member, &got).await;
    assert_eq!(store.unconsumed().0, 1, "what is lost is not done");
}

#[tokio::test]
async fn an_answer_behind_a_seal_that_could_not_be_written_is_not_stale() {
    let directory = tempfile::tempdir().unwrap();
    let (store, disk) = super::appends::test_disk(directory.path());
    append(&partition(&store, 0), "", vec![message(1, "one")])
        .await
        .unwrap();
    let mut member = join(&store);
    let token = take(&mut member, 1).await.remove(0).token;
    disk.hold_syncs(true);
    let before = disk.syncing.load(Ordering::SeqCst);
    let partition_0 = partition(&store, 0);
    let mut busy = Box::pin(append(&partition_0, "", vec![message(2, "two")]));
    assert!(futures::poll!(&mut busy).is_pending());
    until("the writer has it", async || {
        disk.syncing.load(Ordering::SeqCst) > before
    })
    .await;
    // These two are written together.
    let id = entry(0, 1);
    let mut seal = Box::pin(store.seal(&id));
    assert!(futures::poll!(&mut seal).is_pending());
    let settled = member.settle(vec![(token, Answer::Ack)]);
    disk.full.store(true, Ordering::SeqCst);
    disk.hold_syncs(false);
    busy.await.unwrap();
    assert!(seal.await.is_err());
    let settled = settled.await;
    assert!(matches!(&settled[..], [Err(Refused::Log(_))]), "{settled:?}");
    disk.full.store(false, Ordering::SeqCst);
    append(&partition_0, "", vec![message(3, "three")]).await.unwrap();
}
