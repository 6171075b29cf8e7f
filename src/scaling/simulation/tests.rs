//! Whole simulations.

use super::*;
use crate::scaling::{Mode, Policy};

fn scenario(load: Builtin) -> Scenario {
    let mut policy = Policy::default();
    policy.autoscaling.mode = Mode::Auto;
    policy.autoscaling.min_replicas = 2;
    policy.autoscaling.max_replicas = 30;
    let broker = BrokerModel::new(1_000.0);
    let mut scenario = Scenario {
        load: Load::Builtin(load, broker.rate),
        policy,
        broker,
        replicas: 2,
        start_seconds: 15.0,
        drain_seconds: 15.0,
        objective: 1.0,
        noise: 0.1,
    };
    scenario.replicas = scenario.ideal(scenario.load.at(0.0), 1.0);
    scenario
}

fn with_publishers(load: Builtin, publishers: Publishers) -> Scenario {
    let mut scenario = scenario(load);
    scenario.broker.publishers = publishers;
    scenario
}

#[test]
fn the_same_seed_gives_the_same_and_another_one_does_not() {
    let scenario = scenario(Builtin::Sine);
    let run = |seed| simulate(&scenario, PolicyKind::Sluice, seed, true);
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).timeline, run(2).timeline);
    assert_eq!(run(1).timeline.len(), 1_800);
}

#[test]
fn a_step_is_answered_within_five_seconds_by_one_action_to_the_right_number() {
    for publishers in [Publishers::Queue, Publishers::GiveUp] {
        for seed in 0..5 {
            let scenario = with_publishers(Builtin::Step, publishers);
            let outcome = simulate(&scenario, PolicyKind::Sluice, seed, false);
            let figures = &outcome.figures;
            let first = &outcome.acts[0];
            assert!(
                (301..=305).contains(&first.second),
                "{publishers:?} {seed}: {outcome:?}"
            );
            assert!((9..=11).contains(&first.to), "{publishers:?} {seed}: {outcome:?}");
            assert_eq!(figures.reversals, 0.0, "{publishers:?} {seed}: {outcome:?}");
            assert!(
                figures.replica_seconds <= 1.05 * figures.ideal_replica_seconds,
                "{publishers:?} {seed}: {outcome:?}"
            );
        }
    }
}

#[test]
fn a_step_is_sized_by_what_brokers_can_do_once_their_channels_have_grown() {
    for seed in 0..5 {
        let mut scenario = scenario(Builtin::Step);
        scenario.policy.channel.capacity = 512;
        // As fast as real ones: with a broker of 1000/s the target delay holds too few messages for requests of any size.
        scenario.load = Load::Builtin(Builtin::Step, 60_000.0);
        scenario.broker = BrokerModel::new(60_000.0).by_requests(512);
        let right = scenario.ideal(420_000.0, 1.0);
        assert!(right < 10, "more than twice as much with a large channel");
        let outcome = simulate(&scenario, PolicyKind::Sluice, seed, true);
        let most = outcome.figures.max_replicas as u32;
        assert!(most.abs_diff(right) <= 1, "{seed}: {right}, {:?}", outcome.acts);
        assert_eq!(outcome.figures.reversals, 0.0, "{seed}: {:?}", outcome.acts);
        let settled = outcome.timeline.iter().skip(400);
        assert!(
            settled.clone().all(|moment| moment.delay < 1.0),
            "{seed}: {:?}",
            outcome.acts
        );
    }
}

#[test]
fn noise_alone_causes_no_action() {
    for publishers in [Publishers::Queue, Publishers::GiveUp] {
        for seed in 0..5 {
            let outcome = simulate(
                &with_publishers(Builtin::Flat, publishers),
                PolicyKind::Sluice,
                seed,
                false,
            );
            assert_eq!(outcome.acts, [], "{publishers:?} {seed}");
        }
    }
}

/// Two hills of 90 s from 27,000/s to 136,000/s, for brokers that do so many messages a second, and a short memory for going down.
fn hills(rate: f64) -> Scenario {
    let mut scenario = scenario(Builtin::Flat);
    let mut text = "second,messages_per_second\n".to_owned();
    for second in 0..180 {
        let height = (1.0 - f64::cos(f64::from(second) / 90.0 * std::f64::consts::TAU)) / 2.0;
        text.push_str(&format!("{second},{}\n", 27_000.0 + 109_000.0 * height));
    }
    scenario.load = Load::Trace(Trace::parse(&text).unwrap());
    scenario.broker = BrokerModel::new(rate);
    scenario.policy.autoscaling.min_replicas = 1;
    scenario.policy.autoscaling.max_replicas = 4;
    scenario
        .policy
        .autoscaling
        .behavior
        .scale_down
        .stabilization_window = std::time::Duration::from_secs(30);
    scenario.replicas = 1;
    scenario.start_seconds = 3.0;
    scenario.noise = 0.02;
    scenario
}

#[test]
fn nothing_is_removed_that_a_load_which_rises_again_needs() {
    for rate in [70_000.0, 80_000.0, 90_000.0, 100_000.0, 120_000.0] {
        for seed in 0..3 {
            let scenario = hills(rate);
            let outcome = simulate(&scenario, PolicyKind::Sluice, seed, false);
            for act in outcome.acts.iter().filter(|act| act.to < act.from) {
                let needed = scenario.ideal(scenario.load.at(act.second as f64), 1.0);
                assert!(
                    act.to >= needed,
                    "{rate} {seed}: {act:?} where {needed} are needed"
                );
            }
        }
    }
}

#[test]
fn the_drain_of_the_second_of_two_brokers_is_given_up_for_an_overload() {
    for publishers in [Publishers::Queue, Publishers::GiveUp] {
        let mut scenario = hills(80_000.0);
        scenario.broker.publishers = publishers;
        let mut autoscaler = PolicyKind::Sluice.start(&scenario.policy, scenario.objective);
        let mut cluster = Cluster::new(scenario.broker, 2);
        cluster.drain_seconds = 60.0;
        for second in 0..150 {
            // Somebody takes the second broker away, and then it is needed.
            if second == 100 {
                cluster.desired = 1;
            }
            let rate = if second < 110 { 60_000.0 } else { 130_000.0 };
            cluster.serve(|_| rate, &calm());
            let decided = autoscaler.decide(&cluster);
            if second >= 100 {
                cluster.desired = cluster.desired.max(decided.replicas);
            }
            cluster.follow();
            if second == 116 {
                assert!(cluster.desired >= 2, "{publishers:?}: {}", decided.message);
            }
        }
    }
}

#[test]
fn more_brokers_do_not_help_slow_consumers() {
    let scenario = scenario(Builtin::SlowConsumers);
    assert_eq!(simulate(&scenario, PolicyKind::Sluice, 1, false).acts, []);
    assert!(
        simulate(&scenario, PolicyKind::Keda, 1, false)
            .figures
            .max_replicas
            > 20.0
    );
}

#[test]
fn the_other_policies_do_what_their_formulas_say() {
    // Two brokers that are used up from second 300 on.
    for (kind, second, to) in [
        // ceil(2 × 100 % / 70 %).
        (PolicyKind::Hpa, 315, 3),
        // 15 s × 5000/s / 1000 = 75, of which 4 pods in 15 s are allowed.
        (PolicyKind::Keda, 315, 6),
        // One more after 20 s.
        (PolicyKind::Kaap, 320, 3),
    ] {
        let mut scenario = scenario(Builtin::Step);
        scenario.noise = 0.0;
        let outcome = simulate(&scenario, kind, 0, false);
        let first = outcome.acts.iter().find(|act| act.second > 300).unwrap();
        assert_eq!((first.second, first.to), (second, to), "{kind:?}: {first:?}");
    }
}

fn calm() -> Event {
    scenario(Builtin::Flat).load.event(0.0)
}

#[test]
fn brokers_start_one_after_the_other_is_emptied() {
    let mut cluster = Cluster::new(BrokerModel::new(1_000.0), 2);
    cluster.desired = 4;
    cluster.follow();
    let mut ready = Vec::new();
    for _ in 0..20 {
        cluster.serve(|_| 1_000.0, &calm());
        cluster.follow();
        ready.push(cluster.ready());
    }
    assert_eq!(ready.iter().position(|ready| *ready == 4), Some(15));
    cluster.desired = 2;
    let mut existing = Vec::new();
    for _ in 0..40 {
        cluster.serve(|_| 1_000.0, &calm());
        cluster.follow();
        existing.push(cluster.brokers.len());
    }
    assert_eq!(existing.iter().position(|count| *count == 3), Some(15));
    assert_eq!(existing.iter().position(|count| *count == 2), Some(31));
    assert!(cluster.backlog() < 1.0, "{}", cluster.backlog());
}

#[test]
fn nothing_is_lost_whatever_happens_to_the_brokers() {
    for load in Builtin::ALL.into_iter().filter(|load| *load != Builtin::Diurnal) {
        let scenario = scenario(load);
        let mut cluster = Cluster::new(scenario.broker, scenario.replicas);
        let (mut offered, mut acked) = (0.0, 0.0);
        for second in 0..load.seconds() {
            cluster.desired = 5 + (second / 60 % 2) as u32;
            cluster.serve(|at| scenario.load.at(at), &scenario.load.event(second as f64));
            offered += (0..5)
                .map(|step| scenario.load.at(second as f64 + f64::from(step) / 5.0) / 5.0)
                .sum::<f64>();
            acked += cluster.brokers.iter().map(|broker| broker.acked).sum::<f64>();
            cluster.follow();
        }
        let missing = (offered - acked - cluster.backlog()).abs();
        assert!(missing < 1.0, "{}: {missing} of {offered}", load.name());
    }
}

#[test]
fn a_hot_partition_stays_with_its_broker() {
    let mut cluster = Cluster::new(BrokerModel::new(1_000.0), 5);
    let event = Event { hot: 0.4, ..calm() };
    cluster.serve(|_| 2_000.0, &event);
    let acked: Vec<f64> = cluster
        .brokers
        .iter()
        .map(|broker| broker.acked.round())
        .collect();
    assert_eq!(acked, [800.0, 300.0, 300.0, 300.0, 300.0]);
}

#[test]
fn a_broker_that_was_lost_counts_from_zero_again() {
    let mut cluster = Cluster::new(BrokerModel::new(1_000.0), 2);
    let lost = Event {
        lost: Some(1),
        ..calm()
    };
    cluster.serve(|_| 1_000.0, &calm());
    let before = cluster.observed().brokers[1].report.unwrap();
    cluster.serve(|_| 1_000.0, &lost);
    let observed = cluster.observed();
    assert!(!observed.brokers[1].ready && observed.brokers[1].report == Some(before));
    cluster.serve(|_| 1_000.0, &calm());
    let after = cluster.observed().brokers[1].report.unwrap();
    assert_ne!(after.counters.boot_id, before.counters.boot_id);
    assert_eq!(after.counters.uptime_nanos, 1_000_000_000);
    assert!(
        (cluster.brokers[1].acked - 1_000.0).abs() < 1.0,
        "what had piled up is worked off"
    );
}
