//! The simulator's cluster, and the decision code in closed loop with it.

use std::ops::{Deref, DerefMut};

use crate::scaling::simulation::{BrokerModel, Builtin, Cluster, Event, Load, Publishers};
use crate::scaling::*;

pub(super) struct Model {
    pub(super) cluster: Cluster,
    pub(super) policy: Policy,
    pub(super) state: State,
    /// What happens to the brokers.
    pub(super) event: Event,
    /// Second, from, to, why.
    pub(super) actions: Vec<(u64, u32, u32, Reason)>,
    pub(super) last: Option<Decision>,
}

impl Deref for Model {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for Model {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

impl Model {
    /// `replicas` ready brokers at 1000/s each, mode `Auto`, at most 30; publishers give up what they cannot send.
    pub(super) fn new(replicas: u32) -> Self {
        let mut policy = Policy::default();
        policy.autoscaling.mode = Mode::Auto;
        policy.autoscaling.max_replicas = 30;
        let broker = BrokerModel {
            publishers: Publishers::GiveUp,
            ..BrokerModel::new(1_000.0)
        };
        let mut cluster = Cluster::new(broker, replicas);
        cluster.drain_seconds = 10.0;
        Self {
            cluster,
            policy,
            state: State::new(Time::from_millis(0)),
            event: Load::Builtin(Builtin::Flat, 1.0).event(0.0),
            actions: Vec::new(),
            last: None,
        }
    }

    /// One second: load, reports, decision, action.
    pub(super) fn tick(&mut self, offered: impl Fn(f64) -> f64) -> &Decision {
        self.tick_seen(offered, |_| {})
    }

    /// One second of which the operator sees something else.
    pub(super) fn tick_seen(
        &mut self,
        offered: impl Fn(f64) -> f64,
        disturb: impl FnOnce(&mut Observed),
    ) -> &Decision {
        self.cluster.serve(offered, &self.event);
        let (mut observed, now) = (self.cluster.observed(), self.cluster.now());
        disturb(&mut observed);
        let decision = decide(&self.policy, &observed, &mut self.state, now);
        if decision.changes() {
            self.actions.push((
                self.cluster.second,
                decision.from,
                decision.desired_replicas,
                decision.reason,
            ));
            self.cluster.desired = decision.desired_replicas;
        }
        self.cluster.follow();
        self.last.insert(decision)
    }

    /// Many seconds of a constant load.
    pub(super) fn run(&mut self, seconds: u64, rate: f64) {
        for _ in 0..seconds {
            self.tick(|_| rate);
        }
    }

    /// Publishers forget what they could not send.
    pub(super) fn forget_backlog(&mut self) {
        for broker in &mut self.cluster.brokers {
            broker.waiting = 0.0;
        }
    }

    /// The operator was restarted: only what was written down is left.
    pub(super) fn restart_operator(&mut self) {
        let written = serde_json::to_string(&self.state.durable).unwrap();
        self.state = State::resume(serde_json::from_str(&written).unwrap(), self.now());
    }
}
