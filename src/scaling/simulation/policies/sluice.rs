//! The operator's own decisions.

use super::{Autoscaler, Decided};
use crate::scaling::simulation::Cluster;
use crate::scaling::{Policy, State, Time, decide, decide_channel};

/// Both loops, as the operator calls them.
pub(super) struct Sluice {
    policy: Policy,
    state: State,
}

impl Sluice {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            state: State::new(Time::from_millis(0)),
        }
    }
}

impl Autoscaler for Sluice {
    fn decide(&mut self, cluster: &Cluster) -> Decided {
        let observed = cluster.observed();
        let now = cluster.now();
        let decision = decide(&self.policy, &observed, &mut self.state, now);
        let channel = decide_channel(&self.policy, &observed, &mut self.state, now);
        let mut decided = Decided::new(
            decision.desired_replicas,
            cluster.desired,
            decision.reason.as_str(),
            || decision.to_string(),
        );
        decided.channel_capacity = Some(channel.capacity);
        decided.demand = Some(decision.inputs.demand_per_second as f64);
        decided
    }
}
