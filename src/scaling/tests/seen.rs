//! Brokers whose messages cost several times as much at small loads as in batches.

use std::time::Duration;

use super::model::Model;
use crate::scaling::simulation::{Publishers, Work};
use crate::scaling::*;

/// 7500/s a broker; 1500/s take 90 % of the CPU already.
fn framed(replicas: u32) -> Model {
    let mut model = Model::new(replicas);
    model.model.work = Work::Frames;
    model.model.rate = 7_500.0;
    model.start_seconds = 5.0;
    model.policy.autoscaling.max_replicas = 10;
    model.policy.autoscaling.behavior.scale_down.stabilization_window = Duration::from_secs(30);
    model
}

fn is_up(action: &(u64, u32, u32, Reason)) -> bool {
    action.2 > action.1
}

#[test]
fn a_small_load_that_uses_up_the_cpu_adds_no_broker() {
    let mut model = framed(1);
    model.run(300, 1_500.0);
    assert_eq!(model.actions, []);
    let decision = model.last.unwrap();
    assert_eq!(decision.reason, Reason::NotFelt);
    assert!(decision.inputs.capacity_per_broker < Some(2_000), "{decision}");
    insta::assert_snapshot!(decision, @"demand 1500/s against 1667/s a broker, which is only known to be the least that it can do, and nobody is held back: stays at 1 broker");
}

#[test]
fn a_step_after_a_small_load_goes_up_and_comes_back_without_flapping() {
    let mut model = framed(1);
    model.run(300, 1_500.0);
    let step = model.second;
    model.run(300, 12_500.0);
    assert!(model.actions[0].0 <= step + 4, "{:?}", model.actions);
    assert!(model.actions.len() <= 2, "{:?}", model.actions);
    assert!((2..=3).contains(&model.desired), "{:?}", model.actions);
    let ups = model.actions.len();
    model.run(300, 2_500.0);
    assert_eq!(model.desired, 1, "{:?}", model.actions);
    assert!(!model.actions[ups..].iter().any(is_up), "{:?}", model.actions);
    let still = model.actions.len();
    model.run(600, 2_500.0);
    assert_eq!(model.actions.len(), still, "{:?}", model.actions);
}

#[test]
fn publishers_that_queue_get_too_many_brokers_for_a_while_and_no_flapping() {
    let mut model = framed(1);
    model.model.publishers = Publishers::Queue;
    model.run(300, 1_500.0);
    model.run(400, 12_500.0);
    assert!((2..=3).contains(&model.desired), "{:?}", model.actions);
    model.run(300, 2_500.0);
    assert_eq!(model.desired, 1, "{:?}", model.actions);
    let turns = model
        .actions
        .windows(2)
        .filter(|pair| is_up(&pair[0]) != is_up(&pair[1]));
    assert_eq!(turns.count(), 1, "{:?}", model.actions);
}

#[test]
fn half_of_what_one_broker_carried_alone_adds_none() {
    let mut model = framed(1);
    model.run(60, 1_500.0);
    model.run(20, 7_400.0);
    model.spec_replicas = 2;
    model.policy.autoscaling.min_replicas = 2;
    model.run(300, 7_400.0);
    assert_eq!(model.desired, 2, "{:?}", model.actions);
    assert!(model.last.unwrap().inputs.capacity_per_broker >= Some(7_200));
}

#[test]
fn what_was_seen_outlives_the_operator() {
    let mut model = framed(1);
    model.run(60, 1_500.0);
    model.run(60, 12_500.0);
    let capacity = |model: &Model| model.last.as_ref().unwrap().inputs.capacity_per_broker;
    model.restart_operator();
    model.run(120, 1_500.0);
    assert!(capacity(&model) >= Some(7_200), "{:?}", capacity(&model));
}

#[test]
fn brokers_that_became_slower_are_added_to_in_spite_of_what_was_seen() {
    for publishers in [Publishers::GiveUp, Publishers::Queue] {
        let mut model = framed(1);
        model.model.publishers = publishers;
        model.run(60, 1_500.0);
        model.run(60, 7_400.0);
        model.policy.autoscaling.min_replicas = model.desired;
        model.run(60, 1_500.0);
        let (actions, slower) = (model.actions.len(), model.second);
        model.model.rate = 700.0;
        model.run(30, 1_500.0);
        assert!(
            model.actions.len() > actions,
            "{publishers:?}: {:?}",
            model.actions
        );
        assert!(
            model.actions[actions].0 <= slower + 8,
            "{publishers:?}: {:?}",
            model.actions
        );
        assert!(model.last.unwrap().inputs.capacity_per_broker <= Some(1_500));
    }
}

#[test]
fn another_cpu_quota_is_another_broker() {
    let mut model = framed(1);
    model.run(60, 7_400.0);
    assert!(model.state.durable.seen.rate() > 7_000.0);
    model.model.rate = 3_000.0;
    model.model.cores /= 2.0;
    model.run(8, 2_000.0);
    assert!(
        model.state.durable.seen.rate() <= 3_000.0,
        "{:?}",
        model.state.durable
    );
}

#[test]
fn what_was_seen_fades_within_hours_but_never_below_the_model() {
    let mut model = framed(1);
    model.run(60, 7_400.0);
    let seen = model.state.durable.seen.rate();
    model.run(3_600, 1_500.0);
    let faded = model.state.durable.seen.rate();
    let model_says = 1_500.0 / 0.9;
    let left = (faded - model_says) / (seen - model_says);
    assert!((0.4..0.6).contains(&left), "{seen} {faded}");
    assert_eq!(model.actions.iter().filter(|action| is_up(action)).count(), 0);
}

/// What is decided for a broker whose CPU is used up by 10,000 messages a second in requests of 40, while publishers are
/// held back for this part of the time by a channel of so many messages.
fn busy_with_small_requests(blocked: f64, (channel, mode): (u64, ChannelMode)) -> Decision {
    let mut policy = Policy::default();
    policy.autoscaling.mode = Mode::Auto;
    policy.channel.mode = mode;
    let mut state = State::new(Time::from_millis(0));
    let mut decision = None;
    for second in 1..=20_u64 {
        let now = Time::from_millis(second * 1_000);
        let counters = BrokerCounters {
            boot_id: 1,
            uptime_nanos: second * 1_000_000_000,
            accepted_messages: second * 10_000,
            acked_messages: second * 10_000,
            acked_bytes: second * 2_560_000,
            requests: second * 250,
            commits: second * 100,
            commit_nanos: second * 20_000_000,
            append_nanos: second * 20_000_000,
            cpu_nanos: second * 198_000_000,
            publisher_blocked_nanos: (second as f64 * blocked * 1e9) as u64,
            publisher_active_nanos: second * 1_000_000_000,
            ..BrokerCounters::default()
        };
        let gauges = BrokerGauges {
            cpu_quota_nanos: 200_000_000,
            channel_capacity: channel,
            publish_streams: 1,
            ..BrokerGauges::default()
        };
        let report = Report {
            received: now,
            counters,
            gauges,
        };
        let observed = Observed {
            spec_replicas: 1,
            current_replicas: 1,
            brokers: vec![ObservedBroker {
                name: "orders-0".to_owned(),
                ready: true,
                report: Some(report),
                hottest: None,
            }],
            ..Observed::default()
        };
        decision = Some(decide(&policy, &observed, &mut state, now));
    }
    decision.unwrap()
}

#[test]
fn publishers_that_are_held_back_a_little_do_not_make_small_requests_the_most_a_broker_can_do() {
    let large = (1_024, ChannelMode::Auto);
    let capacity = |blocked| {
        busy_with_small_requests(blocked, large)
            .inputs
            .capacity_per_broker
    };
    assert!(capacity(0.19) > Some(12_000), "{:?}", capacity(0.19));
    assert!(
        (9_900..=10_100).contains(&capacity(0.95).unwrap()),
        "{:?}",
        capacity(0.95)
    );
}

#[test]
fn a_channel_that_may_still_grow_tells_nothing_of_the_most_that_a_broker_can_do() {
    let capacity = |channel, mode| {
        busy_with_small_requests(0.95, (channel, mode))
            .inputs
            .capacity_per_broker
    };
    // The target delay allows 1000 messages at 10,000/s.
    assert!(capacity(128, ChannelMode::Auto) > Some(12_000));
    assert!(capacity(600, ChannelMode::Auto) <= Some(10_100));
    assert!(capacity(128, ChannelMode::Fixed) <= Some(10_100));
}
