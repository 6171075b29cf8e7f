//! Counters that fall while a broker runs on: misread once, or begun again.

use proptest::prelude::*;
use std::time::Duration;

use super::model::Model;
use crate::scaling::*;

/// Three brokers of 1000/s at a load that takes all three.
fn three_brokers() -> Model {
    let mut model = Model::new(3);
    model.policy.autoscaling.behavior.scale_down.stabilization_window = Duration::from_secs(30);
    model
}

const LOAD: f64 = 1_900.0;

fn counters(observed: &mut Observed, ordinal: usize) -> &mut BrokerCounters {
    &mut observed.brokers[ordinal].report.as_mut().unwrap().counters
}

#[test]
fn a_counter_that_reads_low_once_and_right_again_removes_no_broker() {
    let mut model = three_brokers();
    for second in 0..600 {
        model.tick_seen(
            |_| LOAD,
            |observed| {
                if second % 40 == 20 {
                    counters(observed, second / 40 % 3).acked_messages /= 2;
                }
            },
        );
        let capacity = model.last.as_ref().unwrap().inputs.capacity_per_broker;
        assert!(capacity <= Some(1_020), "{second}: {capacity:?}");
    }
    assert_eq!(model.actions, []);
}

#[test]
fn a_broker_whose_counters_begin_again_is_heard_again() {
    let mut model = three_brokers();
    model.run(60, LOAD);
    for broker in &mut model.brokers {
        let (boot_id, uptime_nanos) = (broker.counters.boot_id, broker.counters.uptime_nanos);
        broker.counters = BrokerCounters {
            boot_id,
            uptime_nanos,
            ..BrokerCounters::default()
        };
    }
    model.run(5, LOAD);
    let step = model.second;
    model.run(10, 4_000.0);
    assert_eq!(model.actions.len(), 1, "{:?}", model.actions);
    assert!(model.actions[0].0 <= step + 4, "{:?}", model.actions);
    assert_eq!(model.last.unwrap().inputs.brokers_reporting, 3);
}

/// One counter of the report, by number.
fn counter(counters: &mut BrokerCounters, number: usize) -> &mut u64 {
    match number {
        0 => &mut counters.accepted_messages,
        1 => &mut counters.acked_messages,
        2 => &mut counters.acked_bytes,
        3 => &mut counters.commits,
        4 => &mut counters.commit_nanos,
        5 => &mut counters.append_nanos,
        6 => &mut counters.cpu_nanos,
        7 => &mut counters.publisher_active_nanos,
        8 => &mut counters.offered_messages,
        _ => &mut counters.untold_messages,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// For one to three reports in a row, each low by another amount.
    #[test]
    fn counters_that_fall_and_come_back_never_make_an_interval_look_larger_than_it_was(
        misread in prop::collection::vec(
            (5..40_u64, 0..3_usize, 0..10_usize, prop::collection::vec(0.0..0.8_f64, 1..4)),
            1..12,
        ),
    ) {
        let mut model = three_brokers();
        for second in 0..300_u64 {
            model.tick_seen(|_| LOAD, |observed| {
                let mut at = 20;
                for (after, ordinal, number, parts) in &misread {
                    at += after;
                    let part = second.checked_sub(at).and_then(|since| parts.get(since as usize));
                    if let Some(part) = part {
                        let value = counter(counters(observed, *ordinal), *number);
                        *value = (*value as f64 * part) as u64;
                    }
                }
            });
            for history in model.state.histories.all() {
                let Some(sample) = history.latest(0) else { continue };
                let (interval, seconds) = (&sample.interval, sample.interval.seconds());
                let most = LOAD / 3.0 * seconds + 1.0;
                prop_assert!(interval.acked as f64 <= most, "{second}: {interval:?}");
                prop_assert!(interval.accepted as f64 <= most, "{second}: {interval:?}");
                prop_assert!(interval.offered as f64 <= most, "{second}: {interval:?}");
                prop_assert!(interval.cores() <= 0.2, "{second}: {interval:?}");
                prop_assert!(interval.active_streams() <= 8.01, "{second}: {interval:?}");
            }
        }
        prop_assert_eq!(&model.actions, &[]);
    }
}
