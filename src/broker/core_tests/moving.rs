//! Seal, extend, handoff, copy, drop.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::support::*;
use crate::broker::channel::Channel;
use crate::broker::group::{Answer, Member, Next, Refused, Start};
use crate::broker::store::{AppendError, Appended, EntryId, Offset, Partition, Store};
use crate::pb;

#[tokio::test]
async fn a_seal_refuses_later_appends_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    append(&partition(&store, 0), "", vec![message(1, "one")])
        .await
        .unwrap();
    let channel = Channel::new(10);
    let permit = channel.enter(1, 1, Instant::now()).await;
    let queued = partition(&store, 0)
        .append(vec![message(2, "two")], "", permit)
        .unwrap();
    assert_eq!(store.seal(&entry(0, 1)).await.unwrap(), 2);
    queued.done().await.unwrap();
    assert_eq!(store.seal(&entry(0, 1)).await.unwrap(), 2, "idempotent");
    let refused = append(&partition(&store, 0), "", vec![message(3, "late")])
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, AppendError::Unavailable(why) if why.contains("sealed here")),
        "{refused}"
    );

    let copy = snapshot(directory.path());
    let again = open(copy.path(), "a");
    let problems = place(&again, "a", 1, vec![chain_entry(1, "a", None)]);
    assert_eq!(problems, ["sealed here; waiting for the chain to be extended"]);
    assert!(
        append(&partition(&again, 0), "", vec![message(3, "late")])
            .await
            .is_err()
    );
    assert_eq!(again.seal(&entry(0, 1)).await.unwrap(), 2);
    assert!(again.held()[0].sealed);
    assert!(again.seal(&entry(0, 9)).await.is_err(), "not here");
}

#[tokio::test]
async fn appends_race_a_seal_and_none_is_lost_or_stored_behind_it() {
    for round in 0..20u64 {
        let directory = tempfile::tempdir().unwrap();
        let store = simple(directory.path(), 1);
        let partition = partition(&store, 0);
        let appending = tokio::spawn(async move {
            let mut stored = 0;
            while append(&partition, "", vec![message(stored, "x")]).await.is_ok() {
                stored += 1;
            }
            stored
        });
        tokio::time::sleep(Duration::from_millis(round)).await;
        let sealed_at = store.seal(&entry(0, 1)).await.unwrap();
        assert_eq!(appending.await.unwrap(), sealed_at);
    }
}

#[tokio::test]
async fn stale_configurations_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), "a");
    let chain = || topic("orders", vec![vec![chain_entry(5, "a", None)]]);
    let mut five = configuration("a", 5, vec![chain()]);
    five.leader_term = 3;
    store.configure(&five).unwrap();
    store.configure(&five).unwrap();
    let mut older = five.clone();
    older.generation = 4;
    assert!(
        store
            .configure(&older)
            .unwrap_err()
            .contains("generation 4 is older")
    );
    let mut deposed = five.clone();
    (deposed.leader_term, deposed.generation) = (2, 9);
    assert!(store.configure(&deposed).unwrap_err().contains("leader term 2"));
    let mut elected = five.clone();
    (elected.leader_term, elected.generation) = (4, 1);
    store.configure(&elected).unwrap();
    let mut stranger = five.clone();
    stranger.broker = "b".into();
    assert!(
        store
            .configure(&stranger)
            .unwrap_err()
            .contains("is for broker \"b\"")
    );
    append(&partition(&store, 0), "", vec![message(1, "x")])
        .await
        .unwrap();
    close(store).await;

    let store = open(directory.path(), "a");
    assert!(store.configure(&five).is_err(), "the term is kept on the disk");
    let mut stale = elected.clone();
    stale.topics = vec![topic("orders", vec![vec![chain_entry(4, "a", None)]])];
    let problems = store.configure(&stale).unwrap();
    assert!(
        problems[0].reason.contains("epoch 4 is stale: epoch 5"),
        "{problems:?}"
    );
    assert!(!partition(&store, 0).owner().0, "a stale epoch is not applied");
}

#[tokio::test]
async fn the_same_name_with_another_uid_is_another_topic() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    append(&partition(&store, 0), "", vec![message(1, "old")])
        .await
        .unwrap();
    let mut other = topic("orders", vec![vec![chain_entry(1, "a", None)]]);
    other.uid = "uid-2".into();
    store.configure(&configuration("a", 2, vec![other])).unwrap();
    let appended = append(&partition(&store, 0), "", vec![message(1, "new")])
        .await
        .unwrap();
    assert_eq!(appended[0].offset, Offset::new(1, 0));
    let mut member = Member::join(&store, "orders", "g", Start::Earliest).unwrap();
    assert_eq!(texts(&take(&mut member, 1).await), ["new"]);
    assert_eq!(store.held().len(), 2, "what the old one had is still held");
}

/// Broker "a" with sealed epoch 1, broker "b" with the open epoch 2, wired together.
struct Moved {
    a: Arc<Store>,
    b: Arc<Store>,
    wire: Arc<Wire>,
    _directories: [tempfile::TempDir; 2],
    b_path: std::path::PathBuf,
    sealed_at: u64,
}

fn moved_chain(sealed_at: u64) -> Vec<pb::ChainEntry> {
    vec![chain_entry(1, "a", Some(sealed_at)), chain_entry(2, "b", None)]
}

/// Three messages of producer "p" in epoch 1; group "g" has done the second and had the first.
async fn moved(cut: bool) -> Moved {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let a = open(directories[0].path(), "a");
    let b = open(directories[1].path(), "b");
    let wire = Arc::new(Wire::default());
    wire.join("a", &a);
    wire.join("b", &b);
    place(&a, "a", 1, vec![chain_entry(1, "a", None)]);
    let batch = vec![message(1, "one"), message(2, "two"), message(3, "three")];
    append(&partition(&a, 0), "p", batch).await.unwrap();
    let mut member = Member::join(&a, "orders", "g", Start::Earliest).unwrap();
    let got = take(&mut member, 2).await;
    ack(&member, &got[1..]).await;
    let sealed_at = a.seal(&entry(0, 1)).await.unwrap();
    let late = member.settle(vec![(got[0].token.clone(), Answer::Ack)]).await;
    assert_eq!(late, [Err(Refused::Stale)], "progress is frozen by the seal");
    wire.cut.store(cut, Ordering::SeqCst);
    place(&b, "b", 1, moved_chain(sealed_at));
    place(&a, "a", 2, moved_chain(sealed_at));
    let b_path = directories[1].path().to_owned();
    Moved {
        a,
        b,
        wire,
        _directories: directories,
        b_path,
        sealed_at,
    }
}

/// Waits until producer "p" may append, and appends what was stored before the move and a new one.
async fn append_after_handoff(partition: &Partition) -> Vec<Appended> {
    until("the handoff is here", async || {
        append(partition, "p", vec![message(3, "three")]).await.is_ok()
    })
    .await;
    let batch = vec![message(3, "three"), message(4, "four")];
    append(partition, "p", batch).await.unwrap()
}

#[tokio::test]
async fn a_partition_that_is_moved_on_before_the_handoff_came_is_handed_over_all_the_same() {
    let moved = moved(true).await;
    append(&partition(&moved.b, 0), "", vec![message(1, "anonymous")])
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let c = open(directory.path(), "c");
    moved.wire.join("c", &c);
    let mut chain = moved_chain(moved.sealed_at);
    chain[1].sealed_at = Some(moved.b.seal(&entry(0, 2)).await.unwrap());
    chain.push(chain_entry(3, "c", None));
    place(&c, "c", 1, chain.clone());
    place(&moved.b, "b", 2, chain.clone());

    // It is still known after a restart that the one in the middle never got it.
    let copy = snapshot(&moved.b_path);
    close(moved.b).await;
    let b = open(copy.path(), "b");
    moved.wire.join("b", &b);
    place(&b, "b", 3, chain);
    moved.wire.cut.store(false, Ordering::SeqCst);
    let partition = partition(&c, 0);
    let again = append_after_handoff(&partition).await;
    assert_eq!((again[0].offset, again[0].duplicate), (Offset::new(1, 2), true));
    assert_eq!((again[1].offset, again[1].duplicate), (Offset::new(3, 0), false));
    let mut member = Member::join(&c, "orders", "g", Start::Earliest).unwrap();
    assert_eq!(
        texts(&take(&mut member, 4).await),
        ["one", "three", "anonymous", "four"],
        "the group's progress came along"
    );
}

#[tokio::test]
async fn the_new_owner_takes_appends_at_once_and_those_of_producers_after_the_handoff() {
    let moved = moved(true).await;
    let partition = partition(&moved.b, 0);
    let appended = append(&partition, "", vec![message(1, "anonymous")])
        .await
        .unwrap();
    assert_eq!(appended[0].offset, Offset::new(2, 0));
    let waiting = append(&partition, "p", vec![message(3, "three")])
        .await
        .unwrap_err();
    assert!(
        matches!(&waiting, AppendError::Unavailable(why) if why.contains("former owner")),
        "{waiting}"
    );
    until("the reason is there", async || {
        let refused = append(&partition, "p", vec![message(3, "three")])
            .await
            .unwrap_err();
        refused.to_string().contains("cut off")
    })
    .await;
    let mut member = Member::join(&moved.b, "orders", "g", Start::Earliest).unwrap();
    assert!(matches!(member.next(ALL).await, Next::Unavailable(0, why) if why.contains("handoff")));
    moved.wire.cut.store(false, Ordering::SeqCst);
    let again = append_after_handoff(&partition).await;
    assert_eq!(
        (again[0].offset, again[0].duplicate),
        (Offset::new(1, 2), true),
        "stored before the move"
    );
    assert_eq!((again[1].offset, again[1].duplicate), (Offset::new(2, 1), false));
    assert_eq!(
        texts(&take(&mut member, 4).await),
        ["one", "three", "anonymous", "four"]
    );
}

#[tokio::test]
async fn the_handoff_carries_groups_and_counts_and_survives_a_restart() {
    let moved = moved(false).await;
    until("the handoff is here", async || {
        append(&partition(&moved.b, 0), "p", vec![message(4, "four")])
            .await
            .is_ok()
    })
    .await;
    let copy = snapshot(&moved.b_path);
    moved.wire.cut.store(true, Ordering::SeqCst);
    let b = open(copy.path(), "b");
    assert_eq!(
        place(&b, "b", 1, moved_chain(3)),
        Vec::<String>::new(),
        "no second handoff is needed"
    );
    let again = append(&partition(&b, 0), "p", vec![message(2, "two")])
        .await
        .unwrap();
    assert!(again[0].duplicate);
    moved.wire.cut.store(false, Ordering::SeqCst);
    moved.wire.join("b", &b);
    let mut member = Member::join(&b, "orders", "g", Start::Latest).unwrap();
    let got = take(&mut member, 3).await;
    assert_eq!(texts(&got), ["one", "three", "four"]);
    assert_eq!(got.iter().map(|one| one.count).collect::<Vec<_>>(), [2, 1, 1]);
    assert!(
        moved.wire.reads.load(Ordering::SeqCst) > 0,
        "older offsets came from the other broker"
    );
}

#[tokio::test]
async fn offsets_of_a_broker_that_is_away_are_unavailable_and_come_later() {
    let moved = moved(false).await;
    until("the handoff is here", async || {
        append(&partition(&moved.b, 0), "p", vec![message(4, "four")])
            .await
            .is_ok()
    })
    .await;
    moved.wire.cut.store(true, Ordering::SeqCst);
    let mut member = Member::join(&moved.b, "orders", "g", Start::Earliest).unwrap();
    assert!(matches!(member.next(ALL).await, Next::Unavailable(0, why) if why.contains("cut off")));
    let silent = tokio::time::timeout(Duration::from_millis(700), member.next(ALL)).await;
    assert!(silent.is_err(), "it is said once: {silent:?}");
    moved.wire.cut.store(false, Ordering::SeqCst);
    assert_eq!(texts(&take(&mut member, 3).await), ["one", "three", "four"]);
}

#[tokio::test]
async fn a_copied_entry_is_served_here_and_then_dropped_there() {
    let moved = moved(false).await;
    let request = copy_request(&entry(0, 1), moved.sealed_at, "a");
    until("the copy is whole", async || {
        moved.b.copy(&request).await.unwrap().done
    })
    .await;
    let copied = moved.b.copy(&request).await.unwrap();
    assert_eq!((copied.copied_positions, copied.problem.as_str()), (3, ""));
    let mut wrong = request.clone();
    wrong.sealed_at = 9;
    assert!(moved.b.copy(&wrong).await.unwrap_err().contains("contradicts"));

    let refused = moved.a.drop_entry(&entry(0, 1)).await.unwrap_err();
    assert!(refused.contains("places it here"), "{refused}");
    let chain = vec![chain_entry(1, "b", Some(3)), chain_entry(2, "b", None)];
    place(&moved.b, "b", 2, chain.clone());
    place(&moved.a, "a", 3, chain.clone());
    moved.a.drop_entry(&entry(0, 1)).await.unwrap();
    moved.a.drop_entry(&entry(0, 1)).await.unwrap();
    assert_eq!(moved.a.held(), vec![]);
    moved.wire.cut.store(true, Ordering::SeqCst);
    let mut member = Member::join(&moved.b, "orders", "other", Start::Earliest).unwrap();
    assert_eq!(texts(&take(&mut member, 3).await), ["one", "two", "three"]);
    assert_eq!(
        moved.b.handoff(&entry(0, 1)).await.unwrap().producers[0].sequences,
        [1, 2, 3]
    );
    let copy = snapshot(&moved.b_path);
    let b = open(copy.path(), "b");
    assert_eq!(
        bodies(&read_all(&b, &entry(0, 1)).await.unwrap()),
        ["one", "two", "three"]
    );
}

#[tokio::test]
async fn an_entry_of_which_retention_left_nothing_is_copied_and_copied_on() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let wire = Arc::new(Wire::default());
    let a = simple(directories[0].path(), 1);
    wire.join("a", &a);
    append(&partition(&a, 0), "p", vec![message(1, "one"), message(2, "two")])
        .await
        .unwrap();
    let id = entry(0, 1);
    let sealed_at = a.seal(&id).await.unwrap();
    let mut queue = topic(
        "orders",
        vec![vec![
            chain_entry(1, "a", Some(sealed_at)),
            chain_entry(2, "a", None),
        ]],
    );
    queue.retention = Some(pb::Retention {
        work_queue: true,
        ..pb::Retention::default()
    });
    a.configure(&configuration("a", 2, vec![queue])).unwrap();
    let mut member = Member::join(&a, "orders", "g", Start::Earliest).unwrap();
    let all = take(&mut member, 2).await;
    ack(&member, &all).await;
    until("nothing is left of it", async || {
        a.trim_all();
        let entry = a.registry.get(&id).unwrap();
        entry.state().start == sealed_at
    })
    .await;
    let request = |from| copy_request(&id, sealed_at, from);
    let b = open(directories[1].path(), "b");
    wire.join("b", &b);
    until("the copy is whole", async || {
        b.copy(&request("a")).await.unwrap().done
    })
    .await;
    let copy = snapshot(directories[1].path());
    let reopened = open(copy.path(), "b");
    for b in [b, reopened] {
        wire.join("b", &b);
        let elsewhere = tempfile::tempdir().unwrap();
        let c = open(elsewhere.path(), "c");
        until("the copy's copy is whole", async || {
            wire.join("c", &c);
            c.copy(&request("b")).await.unwrap().done
        })
        .await;
        assert_eq!(c.damage().messages, 0);
        close(c).await;
    }
}

#[tokio::test]
async fn a_copy_that_nobody_wants_any_more_is_dropped_without_being_sealed() {
    let moved = moved(false).await;
    moved.wire.cut.store(true, Ordering::SeqCst);
    let request = copy_request(&entry(0, 1), moved.sealed_at, "a");
    assert!(!moved.b.copy(&request).await.unwrap().done);
    let here = |epoch| {
        moved
            .b
            .held()
            .into_iter()
            .find(|held| held.entry == entry(0, epoch))
    };
    assert!(here(1).unwrap().sealed, "nothing is appended to it");
    assert!(!here(2).unwrap().sealed);
    moved.b.drop_entry(&entry(0, 1)).await.unwrap();
    assert_eq!(here(1), None);
    moved.wire.cut.store(false, Ordering::SeqCst);
    assert!(here(2).is_some());
}

#[tokio::test]
async fn a_copy_goes_on_after_the_source_was_away_and_after_a_restart() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let wire = Arc::new(Wire::default());
    let a = simple(directories[0].path(), 1);
    wire.join("a", &a);
    let large = "x".repeat(100 << 10);
    for n in 0..60 {
        append(&partition(&a, 0), "", vec![message(n, &large)])
            .await
            .unwrap();
    }
    let sealed_at = a.seal(&entry(0, 1)).await.unwrap();
    let request = copy_request(&entry(0, 1), sealed_at, "a");
    let b = open(directories[1].path(), "b");
    wire.join("b", &b);
    until("some is copied", async || {
        b.copy(&request).await.unwrap().copied_positions > 0
    })
    .await;
    wire.cut.store(true, Ordering::SeqCst);
    until("the problem is said, or it is whole", async || {
        let copy = b.copy(&request).await.unwrap();
        copy.done || copy.problem.contains("cut off")
    })
    .await;
    let copy = snapshot(directories[1].path());
    wire.cut.store(false, Ordering::SeqCst);
    let b = open(copy.path(), "b");
    wire.join("b", &b);
    until("it is whole", async || b.copy(&request).await.unwrap().done).await;
    let copied = read_all(&b, &entry(0, 1)).await.unwrap();
    assert_eq!(copied.len(), 60);
    assert!(
        copied
            .iter()
            .enumerate()
            .all(|(n, message)| message.sequence == n as u64)
    );
}

#[tokio::test]
async fn an_open_entry_is_neither_dropped_nor_handed_over() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    assert!(
        store
            .handoff(&entry(0, 1))
            .await
            .unwrap_err()
            .contains("not sealed")
    );
    store.configure(&configuration("a", 2, Vec::new())).unwrap();
    assert!(store.drop_entry(&entry(0, 1)).await.unwrap_err().contains("open"));
    store.seal(&entry(0, 1)).await.unwrap();
    store.drop_entry(&entry(0, 1)).await.unwrap();
    close(store).await;
    let store = open(directory.path(), "a");
    assert_eq!(store.held(), vec![]);
    let unknown: Result<u64, String> = store
        .seal(&EntryId {
            epoch: 7,
            ..entry(0, 1)
        })
        .await;
    assert!(unknown.is_err());
}

#[tokio::test]
async fn a_partition_extended_on_the_same_broker_goes_on_without_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    append(
        &partition(&store, 0),
        "p",
        vec![message(1, "one"), message(2, "two")],
    )
    .await
    .unwrap();
    let mut member = Member::join(&store, "orders", "g", Start::Earliest).unwrap();
    let got = take(&mut member, 2).await;
    ack(&member, &got[..1]).await;
    assert_eq!(store.seal(&entry(0, 1)).await.unwrap(), 2);
    place(
        &store,
        "a",
        2,
        vec![chain_entry(1, "a", Some(2)), chain_entry(2, "a", None)],
    );
    let partition = partition(&store, 0);
    until("the handoff is here", async || {
        append(&partition, "p", vec![message(3, "three")]).await.is_ok()
    })
    .await;
    let got = take(&mut member, 2).await;
    assert_eq!(texts(&got), ["two", "three"]);
    assert_eq!(got[0].count, 2);
    ack(&member, &got).await;
    assert_eq!(store.unconsumed().0, 0);
}
