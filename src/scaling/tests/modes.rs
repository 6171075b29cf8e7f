//! Every change between the modes, and of the bounds, while brokers run.

use super::model::Model;
use crate::scaling::*;

const MODES: [Mode; 4] = [Mode::Off, Mode::Recommend, Mode::ScaleUpOnly, Mode::Auto];

/// Three brokers in a mode, with 1400/s and then 7000/s, for which ten are right.
fn overloaded(mode: Mode) -> Model {
    let mut model = Model::new(3);
    model.policy.autoscaling.mode = mode;
    model.policy.autoscaling.min_replicas = 2;
    model.run(90, 1_400.0);
    assert_eq!(model.desired, 3, "{mode:?}");
    model.run(40, 7_000.0);
    model
}

#[test]
fn each_change_of_the_mode_takes_effect_at_once_and_what_does_not_act_goes_by_the_spec() {
    for from in MODES {
        for to in MODES {
            let mut model = overloaded(from);
            let here = format!("{from:?} -> {to:?}");
            let before = model.desired;
            assert_eq!(before, if from.acts() { 10 } else { 3 }, "{here}");
            model.policy.autoscaling.mode = to;
            let first = model.tick(|_| 7_000.0).clone();
            assert_eq!(first.mode, to, "{here}");
            if !to.acts() {
                assert_eq!((first.desired_replicas, model.desired), (3, 3), "{here}: {first}");
                assert_eq!(
                    first.limited_by.is_some(),
                    to == Mode::Recommend,
                    "{here}: {first}"
                );
            } else if from.acts() {
                assert_eq!(model.desired, before, "{here}: {first}");
            }
            model.run(60, 7_000.0);
            assert_eq!(
                model.desired,
                if to.acts() { 10 } else { 3 },
                "{here}: {:?}",
                model.actions
            );
            // It falls: only Auto removes, and not before its window is full of it.
            let fell = model.second;
            model.run(1_500, 1_400.0);
            let removed = |action: &&(u64, u32, u32, Reason)| action.0 > fell && action.2 < action.1;
            let last = model.last.clone().unwrap();
            match to {
                Mode::Auto => assert_eq!(model.desired, 2, "{here}: {:?}", model.actions),
                Mode::ScaleUpOnly => {
                    assert_eq!(
                        (model.desired, last.limited_by),
                        (10, Some(LimitedBy::Mode)),
                        "{here}: {last}"
                    );
                }
                Mode::Off | Mode::Recommend => assert_eq!(model.desired, 3, "{here}"),
            }
            for action in model.actions.iter().filter(removed) {
                assert!(
                    to == Mode::Auto && action.1 - action.2 == 1 && action.0 >= fell + 300,
                    "{here}: {action:?}"
                );
            }
            // And back: whatever is there then is within the bounds, and goes by the mode.
            model.policy.autoscaling.mode = from;
            let back = model.tick(|_| 1_400.0).desired_replicas;
            assert!((2..=30).contains(&back), "{here}: {back}");
            assert!(from.acts() || back == 3, "{here}: {back}");
        }
    }
}

#[test]
fn bounds_that_are_edited_count_at_once_upwards_and_one_at_a_time_downwards() {
    for mode in [Mode::ScaleUpOnly, Mode::Auto] {
        let mut model = Model::new(4);
        model.policy.autoscaling.mode = mode;
        model.run(60, 2_000.0);
        let actions = |model: &Model| {
            model
                .actions
                .iter()
                .map(|action| (action.1, action.2))
                .collect::<Vec<_>>()
        };
        model.policy.autoscaling.min_replicas = 6;
        model.run(1, 2_000.0);
        assert_eq!(actions(&model), [(4, 6)], "{mode:?}");
        assert_eq!(model.actions[0].3, Reason::OutOfBounds);
        model.run(400, 2_000.0);
        model.policy.autoscaling.min_replicas = 1;
        model.policy.autoscaling.max_replicas = 4;
        model.run(200, 2_000.0);
        if mode == Mode::Auto {
            assert_eq!(actions(&model)[1..3], [(6, 5), (5, 4)], "{:?}", model.actions);
        } else {
            assert_eq!(actions(&model), [(4, 6)], "only Auto removes");
            assert_eq!(model.last.unwrap().limited_by, Some(LimitedBy::Mode));
        }
    }
    for mode in [Mode::Off, Mode::Recommend] {
        let mut model = Model::new(4);
        model.policy.autoscaling.mode = mode;
        model.policy.autoscaling.min_replicas = 6;
        model.run(100, 2_000.0);
        assert_eq!((model.desired, model.actions.len()), (4, 0), "{mode:?}");
    }
}

#[test]
fn a_scale_by_hand_is_where_it_goes_on_from_in_each_mode() {
    for mode in MODES {
        for wanted in [2, 7, 99] {
            let mut model = Model::new(4);
            model.policy.autoscaling.mode = mode;
            model.policy.autoscaling.min_replicas = 3;
            model.run(60, 2_000.0);
            model.spec_replicas = wanted;
            let decision = model.tick(|_| 2_000.0).clone();
            let expected = if mode.acts() { wanted.clamp(3, 30) } else { wanted };
            assert_eq!(
                decision.desired_replicas, expected,
                "{mode:?} {wanted}: {decision}"
            );
            model.run(20, 2_000.0);
            assert_eq!(model.desired, expected, "{mode:?} {wanted}: it is not fought");
        }
    }
}
