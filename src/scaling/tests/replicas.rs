//! The slow loop in closed loop.

use std::time::Duration;

use super::model::Model;
use crate::scaling::simulation::Publishers;
use crate::scaling::*;

/// Deterministic noise of ±10 %.
fn noise(seed: u64, at: f64) -> f64 {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (at as u64).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^= x >> 31;
    x = x.wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 29;
    0.9 + 0.2 * ((x % 10_000) as f64 / 10_000.0)
}

#[test]
fn a_five_fold_step_is_answered_by_one_jump_to_the_right_number() {
    for publishers in [Publishers::GiveUp, Publishers::Queue] {
        for offset in [0.0, 0.3, 0.7] {
            let mut model = Model::new(2);
            model.model.publishers = publishers;
            model.run(90, 1_400.0);
            assert_eq!(model.actions, [], "{publishers:?}");
            let step = model.second;
            for _ in 0..400 {
                model.tick(|at| {
                    if at < step as f64 + offset {
                        1_400.0
                    } else {
                        7_000.0
                    }
                });
            }
            let (second, from, to, reason) = model.actions[0];
            assert!(second - step <= 4, "decided after {} s", second - step);
            assert_eq!((from, reason), (2, Reason::Saturated));
            assert!((9..=11).contains(&to), "{publishers:?}: {:?}", model.actions);
            assert_eq!(
                model.actions.len(),
                1,
                "{publishers:?} {offset}: {:?}",
                model.actions
            );
            assert_eq!(model.backlog(), 0.0);
        }
    }
}

#[test]
fn publishers_that_tell_what_they_hold_get_the_right_number_whatever_the_step_and_the_channel() {
    for (load, right) in [(3_900.0, 6), (4_900.0, 7), (7_000.0, 10), (9_800.0, 14)] {
        for capacity in [64, 128, 4_096, 65_536] {
            let mut model = Model::new(3);
            model.model.publishers = Publishers::Queue;
            model.channel_capacity = capacity;
            model.run(90, 1_400.0);
            model.run(200, load);
            let (_, from, to, reason) = model.actions[0];
            assert_eq!(
                (from, reason, model.actions.len()),
                (3, Reason::Saturated, 1),
                "{load} {capacity}: {:?}",
                model.actions
            );
            assert!(
                u32::abs_diff(to, right) <= 1,
                "{load} {capacity}: {:?}",
                model.actions
            );
        }
    }
}

#[test]
fn publishers_that_wait_with_what_they_tell_are_still_scaled_for() {
    // As much told as sent, and blocked all the time: whoever waits for room before he hands over more looks so.
    let mut model = Model::new(2);
    model.model.publishers = Publishers::Queue;
    model.run(90, 1_400.0);
    let mut told = [0, 1].map(|broker| model.brokers[broker].counters.accepted_messages);
    for _ in 0..5 {
        model.tick(|_| 7_000.0);
        for (broker, told) in model.brokers.iter_mut().take(2).zip(&mut told) {
            broker.counters.offered_messages = (*told).max(broker.counters.accepted_messages);
        }
    }
    assert_eq!(model.actions.len(), 1, "{:?}", model.actions);
    assert!(model.desired >= 5, "{:?}", model.actions);
}

#[test]
fn an_unknown_demand_adds_nothing_while_brokers_are_on_their_way() {
    let mut model = Model::new(8);
    model.model.publishers = Publishers::QueueSilently;
    model.run(120, 5_000.0);
    let from = model.second as f64;
    for _ in 0..200 {
        model.tick(|at| 5_000.0 + 20.0 * (at - from).min(170.0));
    }
    assert!(model.desired <= 16, "{:?}", model.actions);
}

#[test]
fn no_broker_is_removed_while_the_demand_rises() {
    let mut model = Model::new(12);
    model.policy.autoscaling.behavior.scale_down.stabilization_window = Duration::from_secs(60);
    model.policy.autoscaling.min_replicas = 12;
    model.run(300, 2_000.0);
    let from = model.second as f64;
    let tick = |model: &mut Model| model.tick(|at| 2_000.0 + 20.0 * (at - from)).reason;
    for _ in 0..65 {
        tick(&mut model);
    }
    model.policy.autoscaling.min_replicas = 1;
    for _ in 0..30 {
        assert_eq!(tick(&mut model), Reason::Unsettled);
    }
    assert_eq!(model.actions, []);
}

#[test]
fn steps_with_noise_take_few_actions_and_no_reversal() {
    for seed in 0..5 {
        let mut model = Model::new(2);
        for _ in 0..90 {
            model.tick(|at| 1_400.0 * noise(seed, at));
        }
        for _ in 0..600 {
            model.tick(|at| 7_000.0 * noise(seed, at));
        }
        assert!(model.actions.len() <= 2, "seed {seed}: {:?}", model.actions);
        assert!(
            (10..=11).contains(&model.desired),
            "seed {seed}: {:?}",
            model.actions
        );
    }
}

#[test]
fn a_flat_load_with_noise_causes_no_reversal() {
    for seed in 0..4 {
        for rate in [1_900.0, 2_000.0, 2_100.0, 2_400.0, 2_750.0] {
            let mut model = Model::new(3);
            for _ in 0..900 {
                model.tick(|at| rate * noise(seed, at));
            }
            let reversals = model
                .actions
                .windows(2)
                .filter(|pair| (pair[0].2 > pair[0].1) != (pair[1].2 > pair[1].1));
            assert_eq!(reversals.count(), 0, "{rate}, seed {seed}: {:?}", model.actions);
        }
    }
}

#[test]
fn a_slow_ramp_is_followed_without_blocking_anybody_for_long() {
    let mut model = Model::new(2);
    let mut behind = 0;
    for _ in 0..700 {
        model.tick(|at| 1_000.0 + (at * 15.0).min(9_000.0));
        behind += u32::from(model.backlog() > 1_000.0 * f64::from(model.desired));
    }
    assert!(behind <= 5, "{behind} s behind: {:?}", model.actions);
    assert!((13..=15).contains(&model.desired), "{:?}", model.actions);
}

#[test]
fn load_that_falls_takes_brokers_away_one_at_a_time() {
    let mut model = Model::new(10);
    model.run(400, 7_000.0);
    assert_eq!(model.actions, []);
    let fallen = model.second;
    model.run(1_200, 1_400.0);
    assert_eq!(model.desired, 2, "{:?}", model.actions);
    assert_eq!(model.actions.len(), 8);
    assert!(
        model
            .actions
            .iter()
            .all(|(_, from, to, reason)| from - to == 1 && *reason == Reason::DemandLow)
    );
    assert!(model.actions[0].0 >= fallen + 300, "{:?}", model.actions);
}

#[test]
fn an_idle_cluster_goes_down_to_the_least() {
    let mut model = Model::new(4);
    model.policy.autoscaling.min_replicas = 2;
    model.run(900, 0.0);
    assert_eq!(model.desired, 2);
    let decision = model.last.unwrap();
    assert_eq!(
        (decision.reason, decision.limited_by),
        (Reason::WithinTolerance, Some(LimitedBy::MinReplicas))
    );
    assert_eq!(decision.inputs.capacity_per_broker, None);
}

#[test]
fn a_jump_that_policies_cut_short_goes_on_when_its_brokers_serve() {
    let mut model = Model::new(1);
    model.policy.autoscaling.behavior.scale_up.policies.remove(0);
    model.run(90, 700.0);
    model.run(300, 7_000.0);
    let numbers: Vec<_> = model.actions.iter().map(|action| action.2).collect();
    assert_eq!(numbers[..2], [5, 9], "{:?}", model.actions);
    assert!((9..=11).contains(&model.desired), "{:?}", model.actions);
}

#[test]
fn blocked_publishers_at_idle_brokers_cause_nothing() {
    let mut model = Model::new(2);
    model.run(60, 200.0);
    for _ in 0..60 {
        for broker in &mut model.brokers {
            broker.counters.publisher_blocked_nanos += 8_000_000_000;
            broker.counters.publisher_active_nanos += 8_000_000_000;
        }
        model.tick(|_| 200.0);
    }
    assert_eq!(model.actions, []);
}

#[test]
fn the_number_of_brokers_does_not_depend_on_the_capacity_of_the_channel() {
    let actions = [64, 128, 4_096, 65_536].map(|capacity| {
        let mut model = Model::new(2);
        model.channel_capacity = capacity;
        model.run(90, 1_400.0);
        model.run(120, 7_000.0);
        // What is queued is debt, and is all that may differ: by less than one broker here.
        (model.actions[0].0, model.actions[0].2)
    });
    assert!(
        actions.iter().all(|action| action.0 == actions[0].0),
        "{actions:?}"
    );
    assert!(
        actions.iter().all(|action| action.1.abs_diff(actions[0].1) == 0),
        "{actions:?}"
    );
}

#[test]
fn a_change_of_spec_replicas_is_a_new_starting_point() {
    let mut model = Model::new(3);
    model.run(400, 2_000.0);
    model.spec_replicas = 6;
    model.run(60, 2_000.0);
    assert_eq!(model.actions, [(401, 3, 6, Reason::StartingPoint)]);
    assert_eq!(model.desired, 6);
    model.run(500, 2_000.0);
    assert_eq!(model.desired, 3, "{:?}", model.actions);
}

#[test]
fn other_modes_say_what_they_would_do_and_do_not() {
    for (mode, wanted) in [
        (Mode::Off, None),
        (Mode::Recommend, Some(10)),
        (Mode::ScaleUpOnly, Some(10)),
    ] {
        let mut model = Model::new(2);
        model.policy.autoscaling.mode = mode;
        model.run(90, 1_400.0);
        model.run(10, 7_000.0);
        let decision = model.last.clone().unwrap();
        match mode {
            Mode::ScaleUpOnly => assert_eq!(model.desired, 10),
            _ => assert_eq!((model.desired, model.actions.len()), (2, 0)),
        }
        if mode == Mode::Off {
            assert_eq!((decision.reason, decision.recommended_replicas), (Reason::Off, 2));
        } else {
            assert_eq!(Some(decision.proposed_replicas), wanted, "{decision}");
        }
        model.run(900, 0.0);
        assert_eq!(model.desired, if mode == Mode::ScaleUpOnly { 10 } else { 2 });
    }
}

#[test]
fn a_small_broker_under_publishers_that_queue_goes_up_once_and_comes_back() {
    let mut model = Model::new(1);
    model.model.publishers = Publishers::Queue;
    model.model.rate = 2_400.0;
    model.policy.autoscaling.max_replicas = 10;
    model.run(60, 1_200.0);
    model.run(300, 6_000.0);
    assert_eq!(model.actions.len(), 1, "{:?}", model.actions);
    // 6000 / 0.7 / 2400.
    assert_eq!(model.actions[0], (62, 1, 4, Reason::Saturated));
    model.run(700, 1_200.0);
    assert_eq!(model.desired, 1, "{:?}", model.actions);
    assert_eq!(model.actions.len(), 4, "{:?}", model.actions);
}

#[test]
fn what_a_broker_uses_at_rest_neither_misleads_a_jump_nor_keeps_brokers() {
    for publishers in [Publishers::GiveUp, Publishers::Queue] {
        let mut model = Model::new(1);
        model.model.publishers = publishers;
        model.model.rate = 2_400.0;
        model.model.idle_cores = 0.03;
        model.policy.autoscaling.max_replicas = 10;
        model.run(60, 300.0);
        model.run(300, 6_000.0);
        assert!((4..=5).contains(&model.desired), "{:?}", model.actions);
        assert_eq!(model.actions.len(), 1, "{:?}", model.actions);
        model.run(800, 300.0);
        assert_eq!(model.desired, 1, "{:?}", model.actions);
    }
}

/// A load in messages a second at a second.
type Load = fn(f64) -> f64;

/// Name, load, most reversals, most seconds with more than a second of work piled up.
const LOADS: [(&str, Load, usize, u32); 4] = [
    ("step", |at| if at < 120.0 { 1_400.0 } else { 7_000.0 }, 0, 60),
    ("ramp", |at| (1_000.0 + at * 15.0).min(10_000.0), 0, 5),
    (
        "spike",
        |at| {
            if (300.0..320.0).contains(&at) {
                7_000.0
            } else {
                1_400.0
            }
        },
        1,
        30,
    ),
    ("sawtooth", |at| 1_000.0 + (at % 300.0) * 20.0, 1, 15),
];

#[test]
fn common_loads_are_followed_with_few_reversals_and_little_piled_up() {
    for publishers in [Publishers::GiveUp, Publishers::Queue] {
        for (name, load, most_reversals, most_behind) in LOADS {
            let mut model = Model::new(2);
            model.model.publishers = publishers;
            let mut behind = 0;
            for _ in 0..900 {
                model.tick(|at| load(at) * noise(3, at));
                behind += u32::from(
                    model.backlog() > model.model.rate * f64::from(model.observed().ready_brokers()),
                );
            }
            let ups = model
                .actions
                .iter()
                .map(|action| action.2 > action.1)
                .collect::<Vec<_>>();
            let reversals = ups.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(
                reversals <= most_reversals,
                "{publishers:?} {name}: {:?}",
                model.actions
            );
            assert!(
                behind <= most_behind,
                "{publishers:?} {name}: {behind} s, {:?}",
                model.actions
            );
        }
    }
}

#[test]
fn a_decision_is_one_sentence_with_the_numbers() {
    let mut model = Model::new(1);
    model.policy.autoscaling.max_replicas = 4;
    model.run(90, 600.0);
    insta::assert_snapshot!(model.last.as_ref().unwrap(), @"demand 600/s against 1000/s a broker fits: stays at 1 broker");
    while model.actions.is_empty() {
        model.tick(|_| 3_000.0);
    }
    insta::assert_snapshot!(model.last.as_ref().unwrap(), @"publishers were blocked 67 % of the time; demand 3000/s against 1000/s a broker: 1 -> 4 brokers, not 5, because of maxReplicas");
    model.run(3, 3_000.0);
    insta::assert_snapshot!(model.last.as_ref().unwrap(), @"waiting for new brokers, 1 of 4 ready: stays at 4 brokers");
    model.run(200, 1_400.0);
    insta::assert_snapshot!(model.last.as_ref().unwrap(), @"not measured for long enough yet; demand 1400/s against 1000/s a broker: stays at 4 brokers");
    model.run(250, 1_400.0);
    model.restart_operator();
    model.run(100, 1_400.0);
    insta::assert_snapshot!(model.last.as_ref().unwrap(), @"demand 1400/s against 1000/s a broker fits: stays at 2 brokers");
    model.policy.autoscaling.mode = Mode::Recommend;
    model.spec_replicas = model.desired;
    model.run(400, 2_500.0);
    insta::assert_snapshot!(model.last.as_ref().unwrap(), @"publishers were blocked 20 % of the time; demand 2500/s against 1000/s a broker: 2 -> 4 brokers if the mode allowed it");
}
