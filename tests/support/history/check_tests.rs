//! The checker finds nothing in a good history, and each kind of violation in a bad one.

use std::time::Duration;

use crate::history::check::{Violation, check};
use crate::history::{
    Answer, Append, Burial, Delivery, Events, Id, Letter, Outcome, Settle, Stored, WITHOUT_ID,
};

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn append(id: Id, began: u64, acked: u64, offset: u64) -> Append {
    Append {
        id,
        partition: 0,
        began: at(began),
        acked: Some(at(acked)),
        offset: Some(offset),
        not_after: None,
    }
}

fn stored(id: Id, offset: u64) -> Stored {
    Stored {
        id,
        partition: 0,
        offset,
    }
}

fn delivery(id: Id, offset: u64, began: u64, received: u64) -> Delivery {
    Delivery {
        group: "g".to_owned(),
        id,
        partition: 0,
        offset,
        began: at(began),
        received: at(received),
    }
}

fn settle(delivery: usize, answer: Answer, began: u64, outcome: Outcome) -> Settle {
    Settle {
        delivery,
        answer,
        began: at(began),
        ended: (outcome != Outcome::Unknown).then(|| at(began + 1)),
        outcome,
    }
}

/// Three messages of two producers, one of them delivered twice, all acknowledged by the group.
fn good() -> Events {
    Events {
        appends: vec![
            append((1, 0), 0, 10, 100),
            append((2, 0), 5, 12, 101),
            append((1, 1), 11, 20, 102),
        ],
        log: vec![stored((1, 0), 100), stored((2, 0), 101), stored((1, 1), 102)],
        deliveries: vec![
            delivery((1, 0), 100, 30, 31),
            delivery((2, 0), 101, 30, 32),
            delivery((1, 1), 102, 30, 33),
            delivery((2, 0), 101, 45, 46),
        ],
        settles: vec![
            settle(0, Answer::Ack, 40, Outcome::Confirmed),
            settle(1, Answer::Nack, 40, Outcome::Confirmed),
            settle(2, Answer::Ack, 40, Outcome::Confirmed),
            settle(3, Answer::Ack, 50, Outcome::Confirmed),
        ],
        ..Events::default()
    }
}

/// The group buries (2, 0) at its second delivery instead of acknowledging it.
fn buried(events: &mut Events) {
    events.settles[3].answer = Answer::GiveUp;
    events.burials.push(Burial {
        group: "g".to_owned(),
        partition: 0,
        offset: 101,
        began: at(50),
        done: Some(at(51)),
    });
    events.letters.push(Letter {
        group: "g".to_owned(),
        of: stored((2, 0), 101),
    });
}

fn found(change: impl FnOnce(&mut Events)) -> Vec<Violation> {
    let mut events = good();
    change(&mut events);
    check(&events, &["g"])
}

#[test]
fn a_good_history_has_no_violation() {
    assert_eq!(found(|_| {}), []);
}

#[test]
fn what_was_not_acknowledged_may_be_there_or_not() {
    let unknown = |events: &mut Events| {
        events.appends.push(Append {
            acked: None,
            offset: None,
            ..append((2, 1), 50, 0, 0)
        });
    };
    assert_eq!(found(unknown), []);
    let and_stored = |events: &mut Events| {
        unknown(events);
        events.log.push(stored((2, 1), 103));
        events.deliveries.push(delivery((2, 1), 103, 60, 61));
    };
    assert_eq!(found(and_stored), []);
}

#[test]
fn concurrent_messages_may_take_either_order() {
    // (1, 0) and (2, 0) overlap.
    let swapped = |events: &mut Events| {
        events.log[0].offset = 101;
        events.log[1].offset = 100;
        events.appends[0].offset = Some(101);
        events.appends[1].offset = Some(100);
        events.deliveries[0].offset = 101;
        events.deliveries[1].offset = 100;
        events.deliveries[3].offset = 100;
    };
    assert_eq!(found(swapped), []);
}

#[test]
fn an_acknowledged_message_that_is_not_there_is_lost() {
    let lost = |events: &mut Events| {
        events.log.remove(2);
        events.deliveries.truncate(2);
        events.deliveries.push(delivery((2, 0), 101, 45, 46));
        events.settles.remove(2);
        events.settles[2].delivery = 2;
    };
    let violations = found(lost);
    assert!(violations.contains(&Violation::Lost((1, 1))), "{violations:?}");
}

#[test]
fn a_message_that_nobody_published_is_invented() {
    let invented = found(|events| events.log.push(stored((7, 7), 103)));
    assert_eq!(invented, [Violation::Invented((7, 7))]);
    let invented = found(|events| events.deliveries.push(delivery((7, 7), 103, 60, 61)));
    assert_eq!(invented, [Violation::Invented((7, 7))]);
    let elsewhere = found(|events| {
        events.log.push(Stored {
            partition: 3,
            ..stored((1, 1), 7)
        });
    });
    assert!(elsewhere.contains(&Violation::Invented((1, 1))), "{elsewhere:?}");
}

#[test]
fn a_message_that_is_stored_twice_is_a_violation_only_with_a_producer_id() {
    let twice = found(|events| events.log.push(stored((1, 1), 103)));
    assert_eq!(twice, [Violation::StoredTwice((1, 1), 102, 103)]);
    let without_id = found(|events| {
        let id = (WITHOUT_ID, 0);
        events.log.extend([stored(id, 103), stored(id, 104)]);
        events.appends.push(append(id, 50, 51, 104));
        events.deliveries.push(delivery(id, 103, 60, 61));
        events
            .settles
            .push(settle(4, Answer::Ack, 62, Outcome::Confirmed));
    });
    assert_eq!(without_id, []);
}

#[test]
fn an_acknowledgement_with_another_offset_is_found() {
    let wrong = found(|events| events.appends[2].offset = Some(105));
    assert_eq!(wrong, [Violation::WrongOffset((1, 1), 105, 102)]);
    let wrong = found(|events| {
        events.appends[2].offset = None;
        events.appends[2].not_after = Some(101);
    });
    assert_eq!(wrong, [Violation::WrongOffset((1, 1), 101, 102)]);
}

#[test]
fn an_offset_that_is_given_to_two_messages_is_found() {
    let reused = found(|events| {
        events.appends.push(append((2, 1), 9, 60, 102));
        events.log.push(stored((2, 1), 102));
        events.deliveries.push(delivery((2, 1), 102, 60, 61));
        events.settles.push(settle(4, Answer::Ack, 62, Outcome::Unknown));
    });
    assert!(reused.contains(&Violation::OffsetReused(0, 102)), "{reused:?}");
}

#[test]
fn an_append_that_began_after_anothers_acknowledgement_has_a_larger_offset() {
    // (1, 1) begins at 11, and (1, 0) was acknowledged at 10.
    let swapped = |events: &mut Events| {
        events.appends[2].id = (3, 0);
        events.log[2].id = (3, 0);
        events.deliveries[2].id = (3, 0);
        events.log[0].offset = 102;
        events.log[2].offset = 100;
        events.appends[0].offset = Some(102);
        events.appends[2].offset = Some(100);
        events.deliveries[0].offset = 102;
        events.deliveries[2].offset = 100;
    };
    let violations = found(swapped);
    assert_eq!(violations, [Violation::RealTimeOrder((1, 0), (3, 0))]);
}

#[test]
fn one_producers_messages_stay_in_their_order_though_they_overlap() {
    let violations = found(|events| {
        events.appends[2].began = at(1);
        events.log[0].offset = 102;
        events.log[2].offset = 100;
        events.appends[0].offset = Some(102);
        events.appends[2].offset = Some(100);
        events.deliveries[0].offset = 102;
        events.deliveries[2].offset = 100;
    });
    assert_eq!(violations, [Violation::ProducerOrder((1, 0), (1, 1))]);
}

#[test]
fn a_delivery_comes_after_its_message_was_published_and_from_where_it_is() {
    let early = found(|events| events.deliveries[2].received = at(9));
    assert!(early.contains(&Violation::DeliveredTooEarly((1, 1))), "{early:?}");
    let elsewhere = found(|events| events.deliveries[2].offset = 109);
    assert!(
        elsewhere.contains(&Violation::DeliveredUncommitted((1, 1))),
        "{elsewhere:?}"
    );
}

#[test]
fn what_was_acknowledged_never_comes_again() {
    let again = found(|events| events.deliveries.push(delivery((1, 0), 100, 60, 61)));
    assert_eq!(again, [Violation::DeliveredAgain("g".to_owned(), (1, 0))]);
    // Sent before the acknowledgement was confirmed, and only slow.
    let slow = found(|events| events.deliveries.push(delivery((1, 0), 100, 30, 61)));
    assert_eq!(slow, []);
}

#[test]
fn a_stale_answer_that_is_taken_is_found() {
    let stale = Violation::StaleAccepted("g".to_owned(), (2, 0));
    // The first delivery of (2, 0), after it was delivered anew.
    let late = |outcome| {
        found(|events| {
            events.settles[1].outcome = Outcome::Unknown;
            events.settles.push(settle(1, Answer::Ack, 60, outcome));
        })
    };
    assert_eq!(late(Outcome::Stale), []);
    assert_eq!(late(Outcome::Confirmed), std::slice::from_ref(&stale));
    // The same token a second time.
    let twice = found(|events| {
        events
            .settles
            .push(settle(3, Answer::Ack, 60, Outcome::Confirmed));
    });
    assert_eq!(twice, [stale]);
}

#[test]
fn a_group_gets_everything_that_was_acknowledged() {
    let missing = found(|events| events.settles.truncate(3));
    assert_eq!(missing, [Violation::Undelivered("g".to_owned(), (2, 0))]);
}

#[test]
fn a_message_that_is_buried_is_finished() {
    assert_eq!(found(buried), []);
}

#[test]
fn a_letter_that_is_missing_or_there_twice_or_of_no_message_is_found() {
    let missing = found(|events| {
        buried(events);
        events.letters.clear();
    });
    let no_letter = Violation::NoLetter("g".to_owned(), 0, 101);
    assert!(missing.contains(&no_letter), "{missing:?}");
    let twice = found(|events| {
        buried(events);
        events.letters.push(events.letters[0].clone());
    });
    assert_eq!(twice, [Violation::BuriedTwice("g".to_owned(), (2, 0))]);
    let invented = found(|events| {
        buried(events);
        events.letters[0].of.offset = 109;
        events.burials[0].offset = 109;
        events.settles[3].answer = Answer::Ack;
    });
    assert_eq!(invented, [Violation::Invented((2, 0))]);
}

#[test]
fn a_message_that_was_acknowledged_is_not_buried_and_one_that_is_buried_does_not_come_again() {
    let acknowledged = found(|events| {
        buried(events);
        events.settles[3].answer = Answer::Ack;
        events.burials[0].began = at(60);
    });
    assert_eq!(acknowledged, [Violation::BuriedDone("g".to_owned(), (2, 0))]);
    let again = found(|events| {
        buried(events);
        events.settles[3].outcome = Outcome::Unknown;
        events.deliveries.push(delivery((2, 0), 101, 60, 61));
    });
    assert_eq!(again, [Violation::DeliveredAgain("g".to_owned(), (2, 0))]);
}

#[test]
fn what_retention_took_away_was_there_and_must_have_been_finished() {
    let removed = |events: &mut Events| {
        events.log.remove(0);
        events.removed.push((0, 100..101));
    };
    assert_eq!(found(removed), []);
    let unfinished = found(|events| {
        removed(events);
        events.settles.remove(0);
    });
    assert_eq!(unfinished, [Violation::Undelivered("g".to_owned(), (1, 0))]);
    let by_size = found(|events| {
        removed(events);
        events.settles.remove(0);
        events.removes_unfinished = true;
    });
    assert_eq!(by_size, []);
    let elsewhere = found(|events| {
        removed(events);
        events.removed[0].0 = 1;
    });
    assert!(elsewhere.contains(&Violation::Lost((1, 0))), "{elsewhere:?}");
}
