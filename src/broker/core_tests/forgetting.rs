//! Groups that nobody uses any more.

use std::time::Duration;

use super::support::*;
use crate::broker::group::{JoinError, Member, Start};
use crate::broker::store::Store;
use crate::broker::store::forgetting::MOST_GROUPS;

const NO_TIME: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(3600);

fn groups(store: &Store) -> Vec<String> {
    let served = partition(store, 0).served().unwrap();
    let state = served.state();
    state.groups.keys().cloned().collect()
}

/// Whatever was handed to the journal before is on the disk.
async fn flush(store: &Store) {
    append(&partition(store, 0), "", vec![message(1, "behind it")])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_group_without_members_is_forgotten_also_by_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 3).await;
    let mut stays = join(&store);
    let mut goes = Member::join(&store, "orders", "goes", Start::Earliest).unwrap();
    for member in [&mut stays, &mut goes] {
        let taken = take(member, 3).await;
        ack(member, &taken).await;
    }
    flush(&store).await;
    assert_eq!(groups(&store), ["g", "goes"]);
    store.forget_groups(NO_TIME);
    assert_eq!(groups(&store), ["g", "goes"], "both have members");

    drop(goes);
    store.forget_groups(LONG);
    store.forget_groups(LONG);
    assert_eq!(groups(&store), ["g", "goes"], "not yet");
    store.forget_groups(NO_TIME);
    assert_eq!(groups(&store), ["g"]);
    flush(&store).await;
    drop(stays);
    close(store).await;

    let store = simple(directory.path(), 1);
    assert_eq!(groups(&store), ["g"], "the disk has forgotten it as well");
    let mut back = Member::join(&store, "orders", "goes", Start::Earliest).unwrap();
    assert_eq!(texts(&take(&mut back, 1).await), ["m0"], "it starts anew");
    let mut other = join(&store);
    assert_eq!(
        texts(&take(&mut other, 2).await),
        ["behind it", "behind it"],
        "the other one goes on"
    );
}

#[tokio::test]
async fn one_that_comes_back_in_time_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 3).await;
    let mut member = join(&store);
    let taken = take(&mut member, 2).await;
    ack(&member, &taken).await;
    drop(member);
    store.forget_groups(LONG);
    let mut member = join(&store);
    assert_eq!(texts(&take(&mut member, 1).await), ["m2"]);
    store.forget_groups(NO_TIME);
    flush(&store).await;
    assert_eq!(groups(&store), ["g"]);
}

#[tokio::test]
async fn a_client_that_invents_names_meets_a_bound_and_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 1).await;
    for n in 0..MOST_GROUPS {
        drop(Member::join(&store, "orders", &format!("invented-{n}"), Start::Latest).unwrap());
    }
    let refused = Member::join(&store, "orders", "one-more", Start::Latest).unwrap_err();
    assert_eq!(refused, JoinError::TooMany("orders".to_owned()));
    let text = refused.to_string();
    assert!(text.contains(&MOST_GROUPS.to_string()), "{text}");
    drop(Member::join(&store, "orders", "invented-7", Start::Latest).unwrap());
    flush(&store).await;
    close(store).await;

    let store = simple(directory.path(), 1);
    assert_eq!(groups(&store).len(), MOST_GROUPS);
    Member::join(&store, "orders", "one-more", Start::Latest).unwrap_err();
    drop(Member::join(&store, "orders", "invented-7", Start::Latest).unwrap());
    flush(&store).await;
    store.forget_groups(NO_TIME);
    assert_eq!(groups(&store), [""; 0]);
    Member::join(&store, "orders", "one-more", Start::Latest).unwrap();
}
