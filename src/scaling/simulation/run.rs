//! One simulation: a load, a cluster and an autoscaler, second by second.

use super::broker::BrokerModel;
use super::cluster::Cluster;
use super::figures::{Figures, Second, Tally};
use super::load::Load;
use super::noise;
use super::policies::PolicyKind;
use crate::scaling::Policy;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What comes in.
    pub load: Load,
    /// What the user asked for; its bounds and its target utilization count for every autoscaler.
    pub policy: Policy,
    /// What a broker is like.
    pub broker: BrokerModel,
    /// Brokers at the start.
    pub replicas: u32,
    /// Seconds from a decision until a broker is Ready.
    pub start_seconds: f64,
    /// Seconds that emptying a broker takes.
    pub drain_seconds: f64,
    /// Seconds that a message may wait.
    pub objective: f64,
    /// The standard deviation of the load from second to second, as a part of it.
    pub noise: f64,
}

impl Scenario {
    /// The fewest brokers that carry a load at the target utilization, within the bounds.
    pub fn ideal(&self, rate: f64, health: f64) -> u32 {
        let one = self.broker.rate * health * self.policy.autoscaling.target_utilization();
        let brokers = (rate / one - 1e-9).ceil();
        let whole = if brokers.is_finite() {
            brokers.max(0.0) as u32
        } else {
            u32::MAX
        };
        self.policy.autoscaling.within_bounds(whole)
    }
}

/// A change of the number of brokers.
#[derive(Clone, Debug, PartialEq)]
pub struct Act {
    /// When.
    pub second: u64,
    /// How many there were.
    pub from: u32,
    /// How many there should be.
    pub to: u32,
    /// Why, in a word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub message: String,
}

/// How everything was at the end of a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Messages a second that came in.
    pub offered: f64,
    /// Messages a second that the brokers that serve can do.
    pub supply: f64,
    /// Messages a second that the autoscaler took for the demand, if it said so.
    pub demand: Option<f64>,
    /// The number of brokers decided on.
    pub desired: u32,
    /// Brokers that serve.
    pub ready: u32,
    /// Brokers that exist.
    pub existing: u32,
    /// The fewest brokers that keep the utilization at its target.
    pub ideal: u32,
    /// Messages that fit into each channel.
    pub channel_capacity: u32,
    /// Messages that were offered and are not acknowledged.
    pub backlog: f64,
    /// Seconds that a message which comes now waits, at the broker where it waits longest.
    pub delay: f64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// In numbers.
    pub figures: Figures,
    /// What was decided.
    pub acts: Vec<Act>,
    /// Every second; empty unless asked for.
    pub timeline: Vec<Moment>,
}

/// Runs a scenario with a policy. The same seed gives the same noise, whatever the policy.
pub fn simulate(scenario: &Scenario, kind: PolicyKind, seed: u64, with_timeline: bool) -> Outcome {
    let mut autoscaler = kind.start(&scenario.policy, scenario.objective);
    let mut cluster = Cluster::new(scenario.broker, scenario.replicas);
    cluster.start_seconds = scenario.start_seconds;
    cluster.drain_seconds = scenario.drain_seconds;
    cluster.channel_capacity = scenario.policy.channel.capacity;
    let mut tally = Tally::default();
    let mut acts = Vec::new();
    let mut timeline = Vec::new();
    for second in 0..scenario.load.seconds() {
        let event = scenario.load.event(second as f64);
        let noise = noise::factor(seed, second, scenario.noise);
        let dropped = cluster.given_up;
        cluster.serve(|at| scenario.load.at(at) * noise, &event);
        let rate = scenario.load.at(second as f64);
        let ready = cluster.ready();
        let delay = cluster.delay();
        let ideal = scenario.ideal(rate, event.health);
        tally.second(&Second {
            second,
            existing: cluster.brokers.len() as u32,
            ready,
            ideal,
            initial: scenario.replicas,
            over_objective: delay > scenario.objective || cluster.given_up > dropped,
        });
        let decided = autoscaler.decide(&cluster);
        if with_timeline {
            timeline.push(Moment {
                offered: rate * noise,
                supply: f64::from(ready) * scenario.broker.rate * event.health,
                demand: decided.demand,
                desired: cluster.desired,
                ready,
                existing: cluster.brokers.len() as u32,
                ideal,
                channel_capacity: cluster.channel_capacity,
                backlog: cluster.backlog(),
                delay,
            });
        }
        if decided.replicas != cluster.desired {
            tally.action(second + 1, cluster.desired, decided.replicas);
            acts.push(Act {
                second: second + 1,
                from: cluster.desired,
                to: decided.replicas,
                reason: decided.reason,
                message: decided.message,
            });
            cluster.desired = decided.replicas;
        }
        if let Some(capacity) = decided.channel_capacity {
            cluster.channel_capacity = capacity;
        }
        cluster.follow();
    }
    Outcome {
        figures: tally.finish(scenario.replicas, cluster.given_up),
        acts,
        timeline,
    }
}
