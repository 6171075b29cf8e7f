//! What keeps the loops from a wrong action.

use std::time::Duration;

use super::model::Model;
use crate::scaling::simulation::Publishers;
use crate::scaling::*;

#[test]
fn while_some_reports_are_missing_no_broker_is_removed() {
    let mut model = Model::new(5);
    model.run(100, 1_400.0);
    model.brokers[3].mute = true;
    model.run(600, 1_400.0);
    assert_eq!(model.actions, []);
    assert_eq!(model.last.as_ref().unwrap().reason, Reason::MetricsMissing);
    model.brokers[3].mute = false;
    model.run(600, 1_400.0);
    assert_eq!(model.desired, 2, "{:?}", model.actions);
}

#[test]
fn while_some_reports_are_missing_brokers_are_still_added() {
    let mut model = Model::new(3);
    model.run(100, 1_400.0);
    model.brokers[2].mute = true;
    model.run(30, 1_400.0);
    model.run(10, 9_000.0);
    assert!(model.desired > 3, "{:?}", model.last);
}

#[test]
fn when_all_reports_are_missing_it_holds_and_then_falls_back() {
    for (replicas, expected) in [(2, 3), (5, 5)] {
        let mut model = Model::new(replicas);
        model.run(400, f64::from(replicas) * 600.0);
        let quiet = model.second;
        model.brokers.iter_mut().for_each(|broker| broker.mute = true);
        model.run(44, 100.0);
        assert_eq!(model.actions, []);
        assert_eq!(model.last.as_ref().unwrap().reason, Reason::MetricsMissing);
        model.run(1, 100.0);
        assert_eq!(model.last.as_ref().unwrap().reason, Reason::Fallback);
        assert_eq!(model.desired, expected);
        assert!(model.actions.iter().all(|action| action.0 == quiet + 45));
    }
}

#[test]
fn how_often_it_is_called_does_not_bring_the_fallback_closer() {
    let mut model = Model::new(2);
    model.run(60, 1_000.0);
    model.brokers.iter_mut().for_each(|broker| broker.mute = true);
    model.run(20, 1_000.0);
    let mut state = model.state.clone();
    for _ in 0..100 {
        let decision = decide(&model.policy, &model.observed(), &mut state, model.now());
        assert_eq!(decision.reason, Reason::MetricsMissing);
    }
    assert_eq!(state, model.state);
}

#[test]
fn a_cluster_that_has_not_started_does_not_fall_back() {
    let mut model = Model::new(0);
    model.spec_replicas = 1;
    model.desired = 1;
    model.start_seconds = 300.0;
    model.run(290, 0.0);
    assert_eq!(model.actions, []);
    assert_eq!(model.last.as_ref().unwrap().reason, Reason::NoBrokers);
}

#[test]
fn rollouts_hold_everything() {
    let mut model = Model::new(2);
    model.run(400, 1_400.0);
    model.rolling_out = true;
    model.run(30, 7_000.0);
    assert_eq!(model.actions, []);
    assert_eq!(model.last.as_ref().unwrap().reason, Reason::Rollout);
    model.rolling_out = false;
    model.run(1, 7_000.0);
    assert!(model.desired > 2);
}

#[test]
fn a_drain_holds_until_it_is_over() {
    let mut model = Model::new(3);
    while model.actions.is_empty() {
        model.tick(|_| 300.0);
    }
    let decided = model.second;
    while model.brokers.len() > 2 {
        model.tick(|_| 1_900.0);
        assert_eq!(model.last.as_ref().unwrap().reason, Reason::Draining);
        assert_eq!(model.desired, 2);
    }
    assert!(model.second >= decided + 10);
    model.run(3, 5_000.0);
    assert!(model.desired > 2, "{}", model.last.unwrap());
}

#[test]
fn after_a_restart_of_the_operator_nothing_is_removed_before_the_window_is_full() {
    let mut model = Model::new(5);
    model.run(350, 3_000.0);
    model.restart_operator();
    let restarted = model.second;
    model.run(299, 100.0);
    assert_eq!(model.actions, []);
    assert_eq!(model.last.as_ref().unwrap().reason, Reason::OperatorRestarted);
    model.run(60, 100.0);
    assert!(model.actions[0].0 >= restarted + 300, "{:?}", model.actions);
}

#[test]
fn a_restart_of_the_operator_in_a_jump_does_not_jump_again() {
    for publishers in [Publishers::GiveUp, Publishers::Queue] {
        let mut model = Model::new(2);
        model.model.publishers = publishers;
        model.run(90, 1_400.0);
        while model.actions.is_empty() {
            model.tick(|_| 7_000.0);
        }
        model.run(5, 7_000.0);
        model.restart_operator();
        model.run(200, 7_000.0);
        assert_eq!(model.actions.len(), 1, "{publishers:?}: {:?}", model.actions);
    }
}

#[test]
fn restarts_duplicates_and_gaps_cause_no_action() {
    let mut model = Model::new(3);
    for second in 0..600_u64 {
        if second % 97 == 50 {
            model.brokers[(second % 3) as usize].restart();
        }
        for (ordinal, broker) in model.brokers.iter_mut().enumerate() {
            broker.mute = (second / 7 + ordinal as u64).is_multiple_of(5);
        }
        model.tick(|_| 1_900.0);
    }
    assert_eq!(model.actions, []);
}

#[test]
fn consumers_that_are_short_are_named_and_get_no_brokers() {
    let mut model = Model::new(2);
    model.event.consumed = 0.5;
    model.run(100, 1_000.0);
    assert_eq!(model.actions, []);
    let decision = model.last.clone().unwrap();
    assert_eq!(decision.reason, Reason::ConsumerBound);
}

#[test]
fn a_broker_that_never_starts_may_be_taken_away_again() {
    let mut model = Model::new(2);
    model.run(350, 1_400.0);
    model.start_seconds = 1e9;
    model.run(30, 7_000.0);
    assert!(model.desired > 2);
    model.forget_backlog();
    model.run(2_000, 700.0);
    assert_eq!(model.desired, 1, "{:?}", model.actions);
}

#[test]
fn a_hung_disk_takes_no_broker_away() {
    let mut model = Model::new(3);
    model.policy.autoscaling.behavior.scale_down.stabilization_window = Duration::from_secs(1);
    model.run(100, 1_900.0);
    model.model.rate = 0.0;
    model.run(300, 1_900.0);
    assert!(model.desired >= 3, "{:?}", model.actions);
}

#[test]
fn bounds_that_move_are_followed() {
    let mut model = Model::new(3);
    model.run(400, 1_900.0);
    model.policy.autoscaling.min_replicas = 5;
    model.run(1, 1_900.0);
    assert_eq!(model.desired, 5);
    model.policy.autoscaling.min_replicas = 1;
    model.policy.autoscaling.max_replicas = 2;
    model.run(120, 1_900.0);
    assert_eq!(model.desired, 2, "{:?}", model.actions);
    assert!(
        model.actions[1..]
            .iter()
            .all(|(_, from, to, reason)| from - to == 1 && *reason == Reason::OutOfBounds)
    );
}

#[test]
fn a_hot_broker_is_named_and_gets_no_others() {
    for publishers in [Publishers::GiveUp, Publishers::Queue] {
        let mut model = Model::new(4);
        model.model.publishers = publishers;
        model.event.hot = 0.6;
        model.run(90, 1_200.0);
        model.run(200, 2_200.0);
        assert_eq!(model.actions, [], "{publishers:?}");
        let decision = model.last.clone().unwrap();
        assert_eq!(
            decision.reason,
            Reason::HotPartition,
            "{publishers:?}: {decision}"
        );
        assert_eq!(decision.broker.as_deref(), Some("orders-0"));
        let partition = decision.partition.unwrap();
        assert_eq!((partition.topic.as_str(), partition.partition), ("orders", 0));
        // All that it accepts is of that one partition.
        assert!((950..=1_100).contains(&partition.per_second), "{partition:?}");
    }
}

#[test]
fn a_hot_broker_holds_nothing_up_once_the_others_are_busy_too() {
    let mut model = Model::new(4);
    model.event.hot = 0.5;
    model.run(90, 1_000.0);
    model.run(30, 8_000.0);
    assert!(model.desired >= 8, "{:?} {:?}", model.actions, model.last);
}

#[test]
fn a_step_that_gained_nothing_is_the_last_one_for_ten_minutes() {
    let mut model = Model::new(2);
    model.policy.autoscaling.catch_up = Duration::from_secs(20);
    model.run(90, 1_400.0);
    // All brokers share one disk: together they do no more, however many there are.
    let shared = |model: &mut Model, seconds: u64| {
        for _ in 0..seconds {
            model.model.rate = 2_000.0 / f64::from(model.ready().max(1));
            model.tick(|_| 4_000.0);
        }
    };
    shared(&mut model, 70);
    assert_eq!(model.actions.len(), 1, "{:?}", model.actions);
    let decision = model.last.clone().unwrap();
    assert_eq!(decision.reason, Reason::IneffectiveScaling, "{decision}");
    shared(&mut model, 400);
    assert_eq!(model.actions.len(), 1, "{:?}", model.actions);
    shared(&mut model, 300);
    assert!(model.actions.len() >= 2, "it is tried again: {:?}", model.last);
}

#[test]
fn an_overload_gives_up_the_drain_that_is_in_its_way() {
    for publishers in [Publishers::GiveUp, Publishers::Queue] {
        let mut model = Model::new(3);
        model.model.publishers = publishers;
        model.drain_seconds = 1e6;
        while model.actions.is_empty() {
            model.tick(|_| 300.0);
        }
        model.run(2, 300.0);
        assert!(model.is_draining());
        let overload = model.second;
        model.run(5, 9_000.0);
        let (second, from, to, reason) = model.actions[1];
        assert!(second <= overload + 4, "{publishers:?}: {:?}", model.actions);
        assert_eq!((from, reason), (2, Reason::Saturated), "{publishers:?}");
        assert!(to >= 10, "{publishers:?}: {:?}", model.actions);
        assert!(
            !model.is_draining() && model.brokers.len() as u32 == to,
            "{publishers:?}"
        );
        model.run(60, 9_000.0);
        assert_eq!(model.last.as_ref().unwrap().from, model.desired);
        assert!(
            (12..=14).contains(&model.desired),
            "{publishers:?}: {:?}",
            model.actions
        );
    }
}
