//! The group's state machine against a naive one, and what it costs.

use std::time::Duration;

use proptest::prelude::*;

use super::naive::{DEADLINE, Run, Step};
use super::*;

fn step() -> impl Strategy<Value = Step> {
    let n = any::<u8>;
    prop_oneof![
        3 => prop::collection::vec(0u64..4, 1..6).prop_map(Step::Append),
        6 => (1u64..6).prop_map(Step::Reserve),
        8 => (n(), 0u64..3, 50u8..=100).prop_map(|(n, m, p)| Step::Deliver(n, m, p)),
        1 => (n(), 1u64..3).prop_map(|(n, m)| Step::Damage(n, m)),
        6 => n().prop_map(Step::Ack),
        2 => (n(), any::<bool>()).prop_map(|(n, delay)| Step::Nack(n, delay)),
        2 => (n(), any::<bool>()).prop_map(|(n, delay)| Step::GiveBack(n, delay)),
        1 => (n(), 1u8..90).prop_map(|(n, s)| Step::Extend(n, s)),
        1 => n().prop_map(Step::GiveUp),
        1 => (0u64..3).prop_map(Step::Quit),
        1 => (0u64..3, n()).prop_map(|(m, n)| Step::Revoke(m, n)),
        1 => any::<bool>().prop_map(Step::Fail),
        2 => (1u8..40).prop_map(Step::Wait),
        2 => Just(Step::Bury),
        1 => (0u8..4).prop_map(Step::Trim),
        1 => Just(Step::Roll),
        1 => Just(Step::Restart),
        1 => Just(Step::Reorder),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn it_does_what_a_naive_group_does(
        is_ordered in any::<bool>(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut run = Run::new(is_ordered);
        for step in &steps {
            run.step(step);
        }
        run.drain();
    }
}

fn state(is_ordered: bool) -> GroupState {
    let progress = Progress {
        floor: 100,
        ..Progress::default()
    };
    GroupState::new(progress, is_ordered)
}

/// Takes everything there is and delivers it to member 1; offsets that are delivered. `key` by offset.
fn deliver_all(state: &mut GroupState, spans: &[Span], key: impl Fn(u64) -> Option<u64>) -> Vec<u64> {
    let deadline = Instant::now() + DEADLINE;
    let mut delivered = Vec::new();
    while let Some(mut reserved) = state.reserve(512, spans) {
        while !reserved.offsets.is_empty() {
            let offset = reserved.offsets.start;
            let wanted = reserved.wants(offset);
            reserved.advance(offset + 1);
            if wanted
                && matches!(
                    state.deliver(offset, key(offset), 1, deadline, 0),
                    Placed::Delivered(..)
                )
            {
                delivered.push(offset);
            }
        }
        state.release(&reserved);
    }
    delivered
}

#[test]
fn out_of_order_acknowledgements_keep_the_floor_at_the_oldest_open_message() {
    let spans = [Span { start: 100, end: 110 }];
    let mut state = state(false);
    assert_eq!(deliver_all(&mut state, &spans, |_| None).len(), 10);
    state.finish_range(103..105, &spans);
    state.finish_range(100..101, &spans);
    assert_eq!(state.floor(), 101);
    state.finish_range(101..103, &spans);
    assert_eq!(state.floor(), 105);
}

#[test]
fn what_another_reservation_found_damaged_is_not_taken_again_and_holds_up_no_key() {
    let spans = [Span { start: 100, end: 105 }];
    let mut state = state(true);
    let key = |offset| (offset % 2 == 0 && offset > 100).then_some(7);
    assert_eq!(deliver_all(&mut state, &spans, key), [100, 101, 102, 103]);
    let mut again = |offsets: [u64; 2]| {
        for offset in offsets {
            state.fail(offset, 0, None);
        }
        state.reserve(2, &spans).expect("they come again")
    };
    let (even, mut odd) = (again([100, 102]), again([101, 103]));
    state.skip(&mut odd, 103);
    state.release(&even);
    assert_eq!(state.available(&spans), 2);
    assert_eq!(deliver_all(&mut state, &spans, key), [100, 104]);
}

#[test]
fn a_dead_letter_that_becomes_durable_while_it_is_read_once_more_is_not_delivered_again() {
    let spans = [Span { start: 100, end: 102 }];
    let mut state = state(false);
    assert_eq!(deliver_all(&mut state, &spans, |_| None), [100, 101]);
    assert!(state.give_up(101).is_some());
    // Every member leaves, and the next one wants the messages in order.
    state.drop_member(1, 0);
    state.set_ordered(true);
    let reserved = state.reserve(2, &spans).expect("both are looked at again");
    state.finish_range(101..102, &spans);
    let deadline = Instant::now() + DEADLINE;
    assert!(reserved.wants(101));
    assert_eq!(state.deliver(101, None, 1, deadline, 0), Placed::Kept);
    assert!(matches!(
        state.deliver(100, None, 1, deadline, 0),
        Placed::Delivered(_, 2)
    ));
}

#[test]
fn a_dead_letter_that_becomes_durable_behind_another_message_of_its_key_holds_up_no_later_one() {
    let spans = [Span { start: 100, end: 103 }];
    let mut state = state(false);
    assert_eq!(deliver_all(&mut state, &spans, |_| None), [100, 101, 102]);
    assert!(state.give_up(101).is_some());
    state.drop_member(1, 0);
    state.set_ordered(true);
    let same = |_| Some(7);
    assert_eq!(deliver_all(&mut state, &spans, same), [100]);
    state.finish_range(101..102, &spans);
    state.finish_range(100..101, &spans);
    assert_eq!(deliver_all(&mut state, &spans, same), [102]);
}

#[test]
fn a_stuck_key_stalls_only_itself_while_all_others_pass() {
    const ALL: u64 = 500_000;
    let mut state = state(true);
    let mut end = 100;
    let mut done = 0;
    // Key 0 has every tenth message, and its first one is never acked.
    let key = |offset: u64| Some(offset % 10 * (offset / 10 % 100 + 1));
    while end < 100 + ALL {
        end += 10_000;
        let spans = [Span { start: 100, end }];
        loop {
            let delivered = deliver_all(&mut state, &spans, key);
            let others: Vec<u64> = delivered.into_iter().filter(|offset| offset % 10 != 0).collect();
            if others.is_empty() {
                break;
            }
            done += others.len() as u64;
            for offset in others {
                state.finish_range(offset..offset + 1, &spans);
            }
        }
    }
    assert_eq!(done, ALL / 10 * 9, "all that is not of the stuck key");
    assert_eq!(state.floor(), 100);
    assert_eq!(state.keys.behind() as u64, ALL / 10 - 1);
    assert_eq!(state.outstanding.len(), 1);
    // It goes on in its order.
    let spans = [Span { start: 100, end }];
    for offset in (100..1000).step_by(10) {
        assert!(state.outstanding.contains_key(&offset));
        state.finish_range(offset..offset + 1, &spans);
        assert_eq!(deliver_all(&mut state, &spans, key), [offset + 10]);
    }
}

#[test]
fn what_is_open_is_bounded_and_goes_on_when_some_is_done() {
    let most = MOST_OPEN as u64;
    let spans = [Span {
        start: 100,
        end: 100 + 2 * most,
    }];
    let mut state = state(true);
    let delivered = deliver_all(&mut state, &spans, |_| Some(1));
    assert_eq!(delivered, [100]);
    assert!(state.is_full() && state.available(&spans) == 0);
    assert!((state.keys.behind() as u64) < most + 512);
    for offset in 100..1000 {
        state.finish_range(offset..offset + 1, &spans);
        assert_eq!(deliver_all(&mut state, &spans, |_| Some(1)), [offset + 1]);
    }
}

#[test]
fn a_million_acknowledgements_out_of_order_cost_what_is_open_and_no_more() {
    const ALL: u64 = 1_000_000;
    let spans = [Span {
        start: 100,
        end: 100 + ALL,
    }];
    let mut state = state(false);
    let mut journal = Progress::default();
    let mut next = 100;
    let mut most_ranges = 0;
    while next < 100 + ALL {
        // As many as are let out; the first one of each hundred stays for the end.
        for offset in deliver_all(&mut state, &spans, |_| None) {
            next = next.max(offset + 1);
            if offset % 100 != 0 {
                state.finish_range(offset..offset + 1, &spans);
            }
        }
        if let Some(delta) = state.take_untold(journal.floor) {
            journal.apply(&delta);
        }
        most_ranges = most_ranges.max(journal.done.len());
    }
    assert_eq!(state.outstanding.len() as u64, ALL / 100);
    assert!(most_ranges as u64 <= ALL / 100);
    let mut bytes = Vec::new();
    crate::broker::partition::codec::put_progress(&mut bytes, "g", &journal);
    println!("{most_ranges} ranges, {} bytes in a checkpoint", bytes.len());
    assert!(bytes.len() < 8 * most_ranges, "{} bytes", bytes.len());
    for offset in (100..100 + ALL).step_by(100) {
        state.finish_range(offset..offset + 1, &spans);
    }
    if let Some(delta) = state.take_untold(journal.floor) {
        journal.apply(&delta);
    }
    assert_eq!((journal.floor, journal.done.len()), (100 + ALL, 0));
    assert!(state.deadlines.len() <= 2 * MOST_OPEN);
}

/// All in one lane.
fn one_key(_: u64) -> Option<u64> {
    Some(7)
}

#[test]
fn a_key_whose_head_is_gone_when_the_epoch_before_is_finished_goes_on() {
    let mut spans = [Span { start: 100, end: 101 }, Span { start: 200, end: 203 }];
    let mut state = state(true);
    let key = |offset| (offset >= 200).then_some(7);
    assert_eq!(deliver_all(&mut state, &spans, key), [100, 200]);
    // What the group has of the second span is gone before it is done with the first one.
    spans[1].start = 201;
    state.finish_range(100..101, &spans);
    assert!(state.take_cut() && !state.take_cut());
    assert_eq!(deliver_all(&mut state, &spans, key), [201]);
    state.finish_range(201..202, &spans);
    assert_eq!(deliver_all(&mut state, &spans, key), [202]);
}

#[test]
fn what_is_older_than_what_is_gone_is_still_there() {
    let spans = [Span { start: 100, end: 102 }, Span { start: 202, end: 204 }];
    let mut state = state(true);
    assert_eq!(deliver_all(&mut state, &spans, one_key), [100]);
    state.lose(200..202, &spans);
    assert!(state.find(100, 1).is_some());
    state.finish_range(100..101, &spans);
    for offset in [101, 202, 203] {
        assert_eq!(deliver_all(&mut state, &spans, one_key), [offset]);
        state.finish_range(offset..offset + 1, &spans);
    }
    assert_eq!(state.floor, 204);
}

#[test]
fn deadlines_that_are_moved_again_and_again_are_kept_once() {
    let spans = [Span { start: 100, end: 101 }];
    let mut state = state(false);
    deliver_all(&mut state, &spans, |_| None);
    let now = Instant::now();
    for n in 0..1000 {
        state.extend(100, now + Duration::from_secs(3600 + n));
    }
    assert!(state.deadlines.len() <= 2);
    state.finish_range(100..101, &spans);
    assert!(state.deadlines.len() <= 1);
}

/// `cargo test --lib memory_of_a_million -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, which other tests in the same process would disturb"]
fn memory_of_a_million_acknowledgements_out_of_order() {
    // One of five is not acked, so that each four acks are a range of their own; as many as may be open, and not more.
    const ALL: u64 = 1_250_000;
    let spans = [Span {
        start: 100,
        end: 100 + ALL,
    }];
    let before = crate::broker::cpu::resident_bytes();
    let mut state = state(false);
    let mut journal = Progress::default();
    let (mut next, mut acked) = (100, 0);
    while next < 100 + ALL {
        for offset in deliver_all(&mut state, &spans, |_| None) {
            next = next.max(offset + 1);
            if offset % 5 != 0 {
                state.finish_range(offset..offset + 1, &spans);
                acked += 1;
            }
        }
        if let Some(delta) = state.take_untold(journal.floor) {
            journal.apply(&delta);
        }
    }
    assert_eq!((acked, state.outstanding.len() as u64), (1_000_000, ALL / 5));
    let held = crate::broker::cpu::resident_bytes().saturating_sub(before);
    let mut bytes = Vec::new();
    crate::broker::partition::codec::put_progress(&mut bytes, "g", &journal);
    println!(
        "{acked} acked out of order around {} that are not, {} ranges: {} KiB of memory (the group and what the journal keeps of \
         it), {} bytes in a checkpoint",
        state.outstanding.len(),
        journal.done.len(),
        held / 1024,
        bytes.len()
    );
}
