//! A small closed-loop model: brokers that do so many messages a second, publishers that queue what they cannot
//! send, and the decision code between them.

use std::time::Duration;

use crate::scaling::*;

const SUBSTEPS: u32 = 10;
const SECOND: u64 = 1_000_000_000;
/// Publish streams at each broker.
const STREAMS: f64 = 8.0;

/// How blocked time shows that publishers offer more than brokers take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Blocking {
    /// By as much as they are short: publishers that slow down.
    Proportional,
    /// All the time, however little they are short: publishers that queue what they cannot send.
    AllOrNothing,
}

pub(super) struct ModelBroker {
    pub(super) counters: BrokerCounters,
    pub(super) gauges: BrokerGauges,
    ready_at: f64,
    /// Its reports do not arrive.
    pub(super) mute: bool,
    last: Option<Report>,
}

pub(super) struct Model {
    pub(super) policy: Policy,
    pub(super) state: State,
    pub(super) spec_replicas: u32,
    pub(super) desired: u32,
    pub(super) brokers: Vec<ModelBroker>,
    pub(super) blocking: Blocking,
    /// Messages a second that a broker does.
    pub(super) mu: f64,
    pub(super) start_seconds: f64,
    /// Cores, of its 0.2, that a broker uses without any load.
    pub(super) idle_cores: f64,
    /// Small loads come in small frames, each of which costs CPU: see [`Model::framed_cores`].
    pub(super) framed: bool,
    pub(super) channel_capacity: u32,
    pub(super) rolling_out: bool,
    /// Consumers at each broker that are out of credit.
    pub(super) starved: f64,
    pub(super) backlog: f64,
    pub(super) second: u64,
    drained_at: Option<f64>,
    /// Second, from, to, why.
    pub(super) actions: Vec<(u64, u32, u32, Reason)>,
    pub(super) last: Option<Decision>,
    pub(super) replica_seconds: u64,
}

impl Model {
    /// `replicas` ready brokers at 1000/s each, mode `Auto`, at most 30.
    pub(super) fn new(replicas: u32) -> Self {
        let mut policy = Policy::default();
        policy.autoscaling.mode = Mode::Auto;
        policy.autoscaling.max_replicas = 30;
        let mut model = Self {
            policy,
            state: State::new(Time::from_millis(0)),
            spec_replicas: replicas,
            desired: replicas,
            brokers: Vec::new(),
            blocking: Blocking::Proportional,
            mu: 1_000.0,
            start_seconds: 15.0,
            idle_cores: 0.0,
            framed: false,
            channel_capacity: 128,
            rolling_out: false,
            starved: 0.0,
            backlog: 0.0,
            second: 0,
            drained_at: None,
            actions: Vec::new(),
            last: None,
            replica_seconds: 0,
        };
        for _ in 0..replicas {
            model.add_broker(0.0);
        }
        model
    }

    fn add_broker(&mut self, ready_at: f64) {
        self.brokers.push(ModelBroker {
            counters: BrokerCounters {
                boot_id: 1,
                ..BrokerCounters::default()
            },
            gauges: BrokerGauges {
                cpu_quota_nanos: SECOND / 5,
                ..BrokerGauges::default()
            },
            ready_at,
            mute: false,
            last: None,
        });
    }

    pub(super) fn now(&self) -> Time {
        Time::from_millis(self.second * 1_000)
    }

    /// Cores that a broker uses at a part of the most that it can do: per message and per frame, of which there are as
    /// many as messages up to a fifth of the most, and from there on fewer, each with more messages in it. A fifth
    /// costs 90 % of its 0.2 cores, the most all of them.
    fn framed_cores(load: f64) -> f64 {
        let frames = load.min(0.2) - (load - 0.2).max(0.0) / 12.0;
        0.092 * load + 0.808 * frames
    }

    /// One second of load; the brokers report at its end.
    fn serve(&mut self, offered: impl Fn(f64) -> f64) {
        let dt = 1.0 / f64::from(SUBSTEPS);
        for sub in 0..SUBSTEPS {
            let at = self.second as f64 + f64::from(sub) * dt;
            let arrived = offered(at) * dt;
            let ready = self.brokers.iter().filter(|broker| broker.ready_at <= at).count() as f64;
            let most = self.mu * ready * dt;
            let waiting = arrived + self.backlog;
            let served = waiting.min(most);
            let short = waiting > most + 1e-6;
            let blocked = match self.blocking {
                _ if !short => 0.0,
                Blocking::AllOrNothing => 1.0,
                Blocking::Proportional => 1.0 - served / arrived.max(served),
            };
            self.backlog = waiting - served;
            for broker in self.brokers.iter_mut().filter(|broker| broker.ready_at <= at) {
                let share = served / ready;
                let nanos = |seconds: f64| (seconds * 1e9).round() as u64;
                let counters = &mut broker.counters;
                counters.uptime_nanos += nanos(dt);
                counters.accepted_messages += share.round() as u64;
                counters.acked_messages += share.round() as u64;
                counters.acked_bytes += 256 * share.round() as u64;
                counters.commits += 2;
                counters.commit_nanos += nanos(0.001);
                counters.append_nanos += nanos(share * 2e-6);
                let load = share / dt / self.mu.max(1.0);
                counters.cpu_nanos += nanos(if self.framed {
                    Self::framed_cores(load) * dt
                } else {
                    (self.idle_cores + load * (0.2 - self.idle_cores)) * dt
                });
                counters.publisher_active_nanos += nanos(STREAMS * dt);
                counters.publisher_blocked_nanos += nanos(STREAMS * dt * blocked);
                counters.consumer_starved_nanos += nanos(self.starved * dt);
                let capacity = u64::from(self.channel_capacity);
                broker.gauges.channel_capacity = capacity;
                broker.gauges.channel_messages = if short { capacity } else { u64::from(served > 0.0) };
                let wait = broker.gauges.channel_messages as f64 / self.mu.max(1.0);
                broker.gauges.sojourn_min_nanos = nanos(wait);
                broker.gauges.sojourn_p99_nanos = nanos(wait * 1.5);
            }
        }
        self.replica_seconds += self.brokers.len() as u64;
        self.second += 1;
        let now = self.now();
        for broker in self.brokers.iter_mut().filter(|broker| !broker.mute) {
            if broker.ready_at < self.second as f64 {
                broker.last = Some(Report {
                    received: now,
                    counters: broker.counters,
                    gauges: broker.gauges,
                });
            }
        }
    }

    pub(super) fn observed(&self) -> Observed {
        let brokers = self
            .brokers
            .iter()
            .enumerate()
            .map(|(ordinal, broker)| ObservedBroker {
                name: format!("orders-{ordinal}"),
                ready: broker.ready_at < self.second as f64,
                report: broker.last,
            });
        Observed {
            spec_replicas: self.spec_replicas,
            current_replicas: self.desired,
            brokers: brokers.collect(),
            rolling_out: self.rolling_out,
            draining: self.drained_at.is_some(),
            start_time: Duration::from_secs_f64(self.start_seconds),
            channel_capacity: self.channel_capacity,
        }
    }

    /// What Kubernetes and the drain do towards the number decided on.
    fn follow(&mut self) {
        let at = self.second as f64;
        while (self.brokers.len() as u32) < self.desired {
            self.add_broker(at + self.start_seconds);
        }
        if self.brokers.len() as u32 > self.desired {
            match self.drained_at {
                None => self.drained_at = Some(at + 10.0),
                Some(drained) if drained <= at => {
                    self.brokers.pop();
                    self.drained_at = None;
                }
                Some(_) => {}
            }
        }
    }

    /// One second: load, reports, decision, action.
    pub(super) fn tick(&mut self, offered: impl Fn(f64) -> f64) -> &Decision {
        self.serve(offered);
        let (decision, state) = decide(&self.policy, &self.observed(), &self.state, self.now());
        self.state = state;
        if decision.changes() {
            self.actions.push((
                self.second,
                decision.from,
                decision.desired_replicas,
                decision.reason,
            ));
            self.desired = decision.desired_replicas;
        }
        self.follow();
        self.last.insert(decision)
    }

    /// Many seconds of a constant load.
    pub(super) fn run(&mut self, seconds: u64, rate: f64) {
        for _ in 0..seconds {
            self.tick(|_| rate);
        }
    }

    /// A broker's process was restarted: another boot, counters from zero.
    pub(super) fn restart_broker(&mut self, ordinal: usize) {
        let counters = &mut self.brokers[ordinal].counters;
        *counters = BrokerCounters {
            boot_id: counters.boot_id + 1,
            ..BrokerCounters::default()
        };
    }

    /// The operator was restarted: only what was written down is left.
    pub(super) fn restart_operator(&mut self) {
        let written = serde_json::to_string(&self.state.durable).unwrap();
        self.state = State::resume(serde_json::from_str(&written).unwrap(), self.now());
    }
}
