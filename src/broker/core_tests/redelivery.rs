//! Consumer groups over time: deliveries that come again, progress that survives, members that come and go.

use std::time::Duration;

use bytes::Bytes;

use super::support::*;
use crate::broker::group::{Answer, Budget, Refused};

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
async fn what_was_never_begun_with_is_given_back_uncounted() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 2).await;
    let mut member = join(&store);
    for _ in 0..5 {
        let got = take(&mut member, 2).await;
        assert_eq!((got[0].count, got[1].count), (1, 1));
        let back = got
            .iter()
            .map(|one| (one.token.clone(), Answer::GiveBack(Duration::ZERO)));
        assert_eq!(member.settle(back.collect()).await, [Ok(()), Ok(())]);
    }
    let got = take(&mut member, 2).await;
    let nack = vec![(got[0].token.clone(), Answer::Nack(Duration::ZERO))];
    assert_eq!(member.settle(nack).await, [Ok(())]);
    let again = take(&mut member, 1).await;
    assert_eq!(again[0].count, 2);
    let back = vec![(again[0].token.clone(), Answer::GiveBack(Duration::ZERO))];
    assert_eq!(member.settle(back).await, [Ok(())]);
    assert_eq!(take(&mut member, 1).await[0].count, 2, "as often as before");
}

#[tokio::test]
async fn delays_and_deadlines_beyond_reason_are_cut_and_end_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 3).await;
    let mut member = join(&store);
    let got = take(&mut member, 3).await;
    let answers = vec![
        (got[0].token.clone(), Answer::Extend(Duration::MAX)),
        (got[1].token.clone(), Answer::Nack(Duration::MAX)),
        (got[2].token.clone(), Answer::GiveBack(Duration::MAX)),
    ];
    assert_eq!(member.settle(answers).await, [Ok(()), Ok(()), Ok(())]);
    ack(&member, &got[..1]).await;
    assert!(nothing_comes(&mut member).await);
}

#[tokio::test]
async fn a_thousand_members_that_come_and_go_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 20).await;
    let mut stayer = join(&store);
    for n in 0..1000 {
        let mut member = join(&store);
        if n % 10 == 0 {
            assert_eq!(take(&mut member, 2).await.len(), 2);
        }
    }
    let census = crate::broker::group::census(&store);
    assert_eq!((census.members, census.outstanding), (1, 0));
    let got = take(&mut stayer, 20).await;
    ack(&stayer, &got).await;
    assert_eq!(store.unconsumed().0, 0);
    drop(stayer);
    let census = crate::broker::group::census(&store);
    assert_eq!((census.members, census.outstanding), (0, 0));
}

#[tokio::test]
async fn a_stalled_member_costs_its_own_messages_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 5000).await;
    let mut stalled = join(&store);
    let budget = Budget { messages: 100, ..ALL };
    let held = deliveries(&mut stalled, budget).await;
    assert_eq!(held.len(), 100);
    stalled.rest();
    let mut other = join(&store);
    let mut done = 0;
    while done < 4900 {
        let got = take(&mut other, 100.min(4900 - done)).await;
        ack(&other, &got).await;
        done += got.len();
    }
    assert_eq!(store.unconsumed().0, 100);
    // It was asked to give its messages back, and may still answer for them.
    ack(&stalled, &held).await;
    assert_eq!(store.unconsumed().0, 0);
}

#[tokio::test]
async fn counts_of_what_is_out_of_order_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 300).await;
    let mut member = join(&store);
    let got = take(&mut member, 300).await;
    // Every third is done, every third failed, every third is out when the broker is killed.
    let answers = got.iter().enumerate().filter_map(|(n, one)| match n % 3 {
        0 => Some((one.token.clone(), Answer::Ack)),
        1 => Some((one.token.clone(), Answer::Nack(Duration::from_secs(60)))),
        _ => None,
    });
    let answers: Vec<_> = answers.collect();
    assert!(member.settle(answers).await.iter().all(Result::is_ok));
    let copy = snapshot(directory.path());
    drop(member);
    close(store).await;
    let store = simple(copy.path(), 1);
    assert_eq!(store.unconsumed().0, 200);
    let mut member = join(&store);
    let again = take(&mut member, 200).await;
    for one in &again {
        let n = one.message.sequence;
        assert_eq!(u64::from(one.count), if n % 3 == 1 { 2 } else { 1 }, "{n}");
    }
    ack(&member, &again).await;
    assert_eq!(store.unconsumed().0, 0);
}
