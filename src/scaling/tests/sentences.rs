//! Each reason as the sentence that somebody reads at night.

use super::model::Model;
use crate::scaling::simulation::Publishers;
use crate::scaling::*;

fn last(model: &Model) -> &Decision {
    model.last.as_ref().unwrap()
}

/// Ticks until a decision has a reason; at most five minutes.
fn until(model: &mut Model, reason: Reason, offered: impl Fn(f64) -> f64) -> Decision {
    for _ in 0..300 {
        let decision = model.tick(&offered).clone();
        if decision.reason == reason {
            return decision;
        }
    }
    panic!("never {reason}: {}", last(model));
}

#[test]
fn a_hot_broker_a_step_in_vain_and_a_drain_that_is_in_the_way() {
    let mut hot = Model::new(4);
    hot.event.hot = 0.6;
    hot.run(90, 1_200.0);
    insta::assert_snapshot!(until(&mut hot, Reason::HotPartition, |_| 2_200.0), @"orders-0 gets far more than the other brokers, which are not busy: partition 0 of topic orders alone has 1000/s of it, so give it a broker of its own, or spread its keys over more partitions; demand 1362/s against 1000/s a broker: stays at 4 brokers");

    let mut vain = Model::new(2);
    vain.run(90, 1_400.0);
    let decision = loop {
        vain.model.rate = 2_000.0 / f64::from(vain.ready().max(1));
        let decision = vain.tick(|_| 4_000.0).clone();
        if decision.reason == Reason::IneffectiveScaling {
            break decision;
        }
        assert!(vain.second < 300, "{decision}");
    };
    insta::assert_snapshot!(decision, @"the brokers that were added last gained next to nothing, so no more are added for ten minutes; demand 3996/s against 334/s a broker: stays at 6 brokers");

    let mut drain = Model::new(3);
    drain.drain_seconds = 1e6;
    while drain.actions.is_empty() {
        drain.tick(|_| 300.0);
    }
    drain.run(30, 1_900.0);
    insta::assert_snapshot!(last(&drain), @"a broker is being emptied; demand 1100/s against 1000/s a broker: stays at 2 brokers");
}

#[test]
fn a_demand_that_rises_and_one_of_publishers_that_queue() {
    let mut rising = Model::new(2);
    rising.run(60, 1_000.0);
    // The limit of a broker is known once publishers were held back.
    rising.run(20, 2_300.0);
    rising.run(90, 2_000.0);
    let from = rising.second as f64;
    insta::assert_snapshot!(until(&mut rising, Reason::DemandRising, |at| 2_000.0 + 10.0 * (at - from)), @"rising, demand 3089/s against 1000/s a broker will be above 70 % of what 4 brokers carry when another could serve: 4 -> 5 brokers");

    let mut queue = Model::new(2);
    queue.model.publishers = Publishers::Queue;
    queue.run(90, 1_400.0);
    insta::assert_snapshot!(until(&mut queue, Reason::Saturated, |_| 7_000.0), @"publishers were blocked 100 % of the time; demand 7000/s against 1001/s a broker: 2 -> 10 brokers");
}

#[test]
fn consumers_reports_and_rollouts() {
    let mut consumers = Model::new(2);
    consumers.event.consumed = 0.5;
    consumers.run(100, 1_000.0);
    insta::assert_snapshot!(last(&consumers), @"consumers are out of credit and the brokers are not busy: more consumers are needed, not more brokers; demand 1000/s against 1000/s a broker: stays at 2 brokers");

    let mut missing = Model::new(5);
    missing.run(100, 1_400.0);
    missing.brokers[3].mute = true;
    missing.run(400, 1_400.0);
    insta::assert_snapshot!(last(&missing), @"4 of 5 brokers reported lately: stays at 5 brokers");

    let mut all = Model::new(2);
    all.run(400, 1_200.0);
    all.brokers.iter_mut().for_each(|broker| broker.mute = true);
    insta::assert_snapshot!(until(&mut all, Reason::Fallback, |_| 1_200.0), @"0 of 2 brokers reported for too long: fallback: 2 -> 3 brokers");

    let mut rollout = Model::new(2);
    rollout.run(100, 1_400.0);
    rollout.rolling_out = true;
    rollout.run(10, 7_000.0);
    insta::assert_snapshot!(last(&rollout), @"a rollout is in progress: stays at 2 brokers");
}
