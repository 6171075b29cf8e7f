//! Consumer groups: sharing, redelivery, progress.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::support::*;
use crate::broker::group::{Answer, Budget, Member, Next, Refused, Start};
use crate::broker::store::{Offset, Store};
use crate::pb;

async fn filled(directory: &Path, messages: u64) -> Arc<Store> {
    let store = simple(directory, 1);
    let batch = (0..messages).map(|n| message(n, &format!("m{n}"))).collect();
    append(&partition(&store, 0), "", batch).await.unwrap();
    store
}

fn join(store: &Arc<Store>) -> Member {
    Member::join(store, "orders", "g", Start::Earliest).unwrap()
}

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
async fn progress_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 6).await;
    let mut member = join(&store);
    let got = take(&mut member, 6).await;
    ack(&member, &got[..2]).await;
    ack(&member, &got[3..4]).await;
    assert_eq!(
        member
            .settle(vec![(got[4].token.clone(), Answer::Nack(Duration::ZERO))])
            .await,
        [Ok(())]
    );
    assert_eq!(store.unconsumed().0, 3);
    drop(member);
    // As a kill leaves it.
    let copy = snapshot(directory.path());
    let store = simple(copy.path(), 1);
    let mut member = join(&store);
    let again = take(&mut member, 3).await;
    assert_eq!(texts(&again), ["m2", "m4", "m5"]);
    assert!(again[1].count >= 2, "deliveries are counted over a restart");
    assert!(nothing_comes(&mut member).await);
    let stale = member.settle(vec![(got[2].token.clone(), Answer::Ack)]).await;
    assert_eq!(stale, [Err(Refused::Stale)], "a token of another boot");
}

#[tokio::test]
async fn a_message_not_settled_in_time_is_delivered_again_and_the_old_token_is_stale() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 2).await;
    let mut short = topic("orders", vec![vec![chain_entry(1, "a", None)]]);
    short.ack_deadline = Some(prost_types::Duration {
        seconds: 0,
        nanos: 300_000_000,
    });
    store.configure(&configuration("a", 2, vec![short])).unwrap();
    let mut member = join(&store);
    let first = take(&mut member, 2).await;
    let extended = member
        .settle(vec![(
            first[1].token.clone(),
            Answer::Extend(Duration::from_secs(60)),
        )])
        .await;
    assert_eq!(extended, [Ok(())]);
    let again = take(&mut member, 1).await;
    assert_eq!((texts(&again), again[0].count), (vec!["m0".to_owned()], 2));
    let results = member
        .settle(vec![
            (first[0].token.clone(), Answer::Ack),
            (Bytes::from_static(b"rubbish"), Answer::Ack),
            (again[0].token.clone(), Answer::Ack),
            (again[0].token.clone(), Answer::Ack),
            (first[1].token.clone(), Answer::Ack),
        ])
        .await;
    let expected = [
        Err(Refused::Stale),
        Err(Refused::Malformed),
        Ok(()),
        Err(Refused::Stale),
        Ok(()),
    ];
    assert_eq!(results, expected);
    assert!(nothing_comes(&mut member).await);
}

#[tokio::test]
async fn a_nack_delays_the_next_delivery() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 1).await;
    let mut member = join(&store);
    let first = take(&mut member, 1).await;
    let began = std::time::Instant::now();
    let nack = Answer::Nack(Duration::from_millis(400));
    assert_eq!(
        member.settle(vec![(first[0].token.clone(), nack)]).await,
        [Ok(())]
    );
    let again = take(&mut member, 1).await;
    assert_eq!(again[0].count, 2);
    assert!(began.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn what_a_member_had_goes_to_the_others_when_it_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 4).await;
    let mut leaver = join(&store);
    let theirs = take(&mut leaver, 4).await;
    ack(&leaver, &theirs[..1]).await;
    let mut stayer = join(&store);
    let (again, ()) = tokio::join!(take(&mut stayer, 3), async { drop(leaver) });
    assert_eq!(texts(&again), ["m1", "m2", "m3"]);
    assert!(again.iter().all(|one| one.count == 2));
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

fn with_dead_letters(max: u32, target: &str) -> Vec<pb::TopicConfiguration> {
    let mut orders = topic("orders", vec![vec![chain_entry(1, "a", None)]]);
    orders.max_deliveries = max;
    orders.dead_letter_topic = target.to_owned();
    vec![orders, topic("dead", vec![vec![chain_entry(1, "a", None)]])]
}

#[tokio::test]
async fn a_message_delivered_too_often_goes_to_the_dead_letters() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 2).await;
    store
        .configure(&configuration("a", 2, with_dead_letters(2, "dead")))
        .unwrap();
    let mut member = join(&store);
    let mut dead = Member::join(&store, "dead", "g", Start::Earliest).unwrap();
    let first = take(&mut member, 2).await;
    ack(&member, &first[1..]).await;
    member
        .settle(vec![(first[0].token.clone(), Answer::Nack(Duration::ZERO))])
        .await;
    let second = take(&mut member, 1).await;
    assert_eq!(second[0].count, 2);
    member
        .settle(vec![(second[0].token.clone(), Answer::Nack(Duration::ZERO))])
        .await;
    let letter = take(&mut dead, 1).await;
    assert_eq!(texts(&letter), ["m0"]);
    let header = |name: &str| {
        let found = letter[0]
            .message
            .headers
            .iter()
            .find(|(header, _)| header == name);
        found
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .unwrap_or_default()
    };
    assert_eq!(header("sluice-dead-letter-topic"), "orders");
    assert_eq!(header("sluice-dead-letter-partition"), "0");
    assert_eq!(
        header("sluice-dead-letter-offset"),
        Offset::new(1, 0).0.to_string()
    );
    assert!(header("sluice-dead-letter-reason").contains("delivered"));
    until("the original is done", async || {
        store.counters.dead_lettered_messages.get() == 1
    })
    .await;
    assert!(nothing_comes(&mut member).await);
}

#[tokio::test]
async fn a_message_given_up_is_done_when_its_dead_letter_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 1).await;
    store
        .configure(&configuration("a", 2, with_dead_letters(5, "dead")))
        .unwrap();
    let mut member = join(&store);
    let first = take(&mut member, 1).await;
    assert_eq!(
        member
            .settle(vec![(first[0].token.clone(), Answer::GiveUp)])
            .await,
        [Ok(())]
    );
    let mut dead = Member::join(&store, "dead", "g", Start::Earliest).unwrap();
    assert_eq!(texts(&take(&mut dead, 1).await), ["m0"]);
    assert!(nothing_comes(&mut member).await);
}

#[tokio::test]
async fn without_dead_letters_a_message_is_done_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 1).await;
    store
        .configure(&configuration("a", 2, with_dead_letters(1, "")))
        .unwrap();
    let mut member = join(&store);
    let first = take(&mut member, 1).await;
    member
        .settle(vec![(first[0].token.clone(), Answer::Nack(Duration::ZERO))])
        .await;
    until("it is counted", async || {
        store.counters.given_up_messages.get() == 1
    })
    .await;
    until("it is done", async || store.unconsumed().0 == 0).await;
    assert!(nothing_comes(&mut member).await);
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
