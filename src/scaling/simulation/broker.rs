//! A model of one broker and of the publishers that send to it.
//!
//! A fluid: messages are amounts, time goes in small steps. A step moves what publishers offer into the bounded channel
//! as far as there is room (that is what credit is), and out of it at the rate that the CPU and the log allow.

use super::work::Work;
use crate::scaling::{BrokerCounters, BrokerGauges};

const SECOND: f64 = 1e9;
/// How far apart the boot ids of a broker's restarts are, so that no other broker has them.
const RESTARTED: u64 = 1 << 32;
/// Publish streams at each broker.
pub(super) const STREAMS: f64 = 8.0;
/// Less than this is nothing.
const EPSILON: f64 = 1e-6;

/// What publishers do with messages that they cannot send for lack of credit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publishers {
    /// Keep them, and send them later. However little is short, such publishers wait all the time.
    #[default]
    Queue,
    /// The same, but they do not tell how much there is to send, as our client library does.
    QueueSilently,
    /// Give them up. Such publishers wait for the part of the time that they are short of.
    GiveUp,
}

/// What a broker is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BrokerModel {
    /// Messages a second that its CPU allows, in requests as large as they get.
    pub rate: f64,
    /// CPU limit, in cores.
    pub cores: f64,
    /// Cores that it uses without any load.
    pub idle_cores: f64,
    /// What its CPU time goes by.
    pub work: Work,
    /// Seconds that a commit (fdatasync) takes.
    pub commit_seconds: f64,
    /// Seconds that encoding and writing a message takes.
    pub append_seconds: f64,
    /// Bytes of a message.
    pub message_bytes: u64,
    /// What publishers do without credit.
    pub publishers: Publishers,
}

impl BrokerModel {
    /// A broker that does `rate` messages a second, bound by its CPU.
    pub fn new(rate: f64) -> Self {
        Self {
            rate,
            cores: 0.2,
            idle_cores: 0.0,
            work: Work::default(),
            commit_seconds: 0.001,
            append_seconds: 2e-6,
            message_bytes: 256,
            publishers: Publishers::default(),
        }
    }

    /// Messages a second with a commit that takes `commit_seconds` and a channel of `capacity`: the smaller one of what
    /// the CPU and the log allow. A commit takes at most what the channel holds.
    fn most(&self, commit_seconds: f64, capacity: f64) -> f64 {
        let log = capacity / (commit_seconds + capacity * self.append_seconds);
        self.by_cpu(capacity).min(log)
    }
}

/// One broker.
#[derive(Clone, Debug)]
pub struct Broker {
    /// What it has counted since its boot.
    pub counters: BrokerCounters,
    /// How it is.
    pub gauges: BrokerGauges,
    /// When it is Ready, in seconds since the start.
    pub ready_at: f64,
    /// Its reports do not arrive.
    pub mute: bool,
    /// Messages that its publishers hold because they have no credit.
    pub waiting: f64,
    /// Messages that it has stored and that no consumer has taken.
    pub unconsumed: f64,
    /// The part of its CPU that it used in the last second, 0 to 1.
    pub utilization: f64,
    /// Messages that it acknowledged in the last second.
    pub acked: f64,
    queued: f64,
    /// Messages a second that it could do in the last step.
    able: f64,
    least_wait: f64,
    most_wait: f64,
    used: f64,
    /// Messages that publishers were given and have not told of yet.
    untold: f64,
    /// Fractions of messages and requests that are not counted yet.
    rest: [f64; 4],
}

/// What comes to a broker in a step, and what it is in.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Seconds that it lasts.
    pub seconds: f64,
    /// Messages that are offered.
    pub offered: f64,
    /// Messages that fit into the channel.
    pub capacity: f64,
    /// Seconds that a commit takes, if other than usual.
    pub slow_commit: Option<f64>,
    /// What the broker can do, as a part of what it could at the start.
    pub health: f64,
    /// What consumers take of what comes in; below 1 they are short of credit.
    pub consumed: f64,
}

impl Broker {
    /// One that is Ready at a time, with a boot id of its own.
    pub fn new(ready_at: f64, boot_id: u64) -> Self {
        Self {
            counters: BrokerCounters {
                boot_id,
                ..BrokerCounters::default()
            },
            gauges: BrokerGauges::default(),
            ready_at,
            mute: false,
            waiting: 0.0,
            unconsumed: 0.0,
            utilization: 0.0,
            acked: 0.0,
            queued: 0.0,
            able: 0.0,
            least_wait: f64::INFINITY,
            most_wait: 0.0,
            used: 0.0,
            untold: 0.0,
            rest: [0.0; 4],
        }
    }

    /// Its process ended: another boot, counters from zero, nothing in its channel. What was not acknowledged, the
    /// publishers still have.
    pub fn restart(&mut self) {
        self.waiting += std::mem::take(&mut self.queued);
        self.counters = BrokerCounters {
            boot_id: self.counters.boot_id + RESTARTED,
            ..BrokerCounters::default()
        };
    }

    /// Messages that were offered and are not acknowledged.
    pub fn backlog(&self) -> f64 {
        self.waiting + self.queued
    }

    /// Seconds that a message which comes now waits until it is acknowledged.
    pub fn delay(&self) -> f64 {
        let backlog = self.backlog();
        if backlog > EPSILON {
            backlog / self.able.max(EPSILON)
        } else {
            0.0
        }
    }

    /// One step. Returns the messages that publishers gave up.
    pub fn step(&mut self, model: &BrokerModel, step: &Step) -> f64 {
        let commit = step.slow_commit.unwrap_or(model.commit_seconds);
        let most = model.most(commit, step.capacity) * step.health;
        self.able = most;
        let able = most * step.seconds;
        let before = self.waiting + step.offered;
        let accepted = before.min((step.capacity - self.queued).max(0.0) + able);
        let inside = self.queued + accepted;
        let acked = inside.min(able);
        self.queued = inside - acked;
        self.waiting = before - accepted;
        let (blocked, given_up) = match model.publishers {
            _ if self.waiting <= EPSILON => (0.0, 0.0),
            Publishers::Queue | Publishers::QueueSilently => (1.0, 0.0),
            Publishers::GiveUp => {
                let given_up = std::mem::take(&mut self.waiting);
                (given_up / before, given_up)
            }
        };
        let active = before > EPSILON || inside > EPSILON;
        self.count(model, step, accepted, acked, commit);
        let nanos = step.seconds * SECOND * STREAMS;
        if active {
            self.counters.publisher_active_nanos += nanos.round() as u64;
            self.counters.publisher_blocked_nanos += (nanos * blocked).round() as u64;
        }
        if acked > 0.0 {
            let wait = self.queued / most.max(EPSILON) + commit;
            self.least_wait = self.least_wait.min(wait);
            self.most_wait = self.most_wait.max(wait);
        }
        given_up
    }

    fn count(&mut self, model: &BrokerModel, step: &Step, accepted: f64, acked: f64, commit: f64) {
        let nanos = |seconds: f64| (seconds * SECOND).round() as u64;
        let counters = &mut self.counters;
        counters.uptime_nanos += nanos(step.seconds);
        let [accepted_rest, acked_rest, offered_rest, requests_rest] = &mut self.rest;
        let taken = whole(accepted, accepted_rest);
        counters.accepted_messages += taken;
        if model.publishers == Publishers::Queue {
            self.untold += step.offered;
            // A batch tells of it, and none goes out without credit.
            if accepted > 0.0 {
                counters.offered_messages += whole(std::mem::take(&mut self.untold), offered_rest);
            }
        } else {
            counters.offered_messages += taken;
            counters.untold_messages += taken;
        }
        let messages = whole(acked, acked_rest);
        counters.acked_messages += messages;
        counters.acked_bytes += messages * model.message_bytes;
        // A commit takes whatever waits; while one runs, the next batch fills.
        let used = model.used(
            acked / step.seconds,
            (step.capacity, step.health),
            self.waiting > EPSILON,
        );
        let commits = acked
            .min(step.seconds / commit.max(EPSILON))
            .min(used.commits * step.seconds);
        counters.commits += commits.ceil() as u64;
        counters.commit_nanos += nanos(commits.ceil() * commit);
        counters.append_nanos += nanos(acked * model.append_seconds);
        counters.cpu_nanos += nanos(used.cores * step.seconds);
        counters.delivered_messages += messages;
        counters.requests += whole(used.requests * step.seconds, requests_rest);
        self.used += used.cores * step.seconds;
        self.acked += acked;
        self.unconsumed += acked * (1.0 - step.consumed);
        if step.consumed < 1.0 {
            counters.consumer_starved_nanos += nanos(step.seconds * STREAMS * 0.5);
        } else {
            // Consumers that keep up take twice what comes in, until they have caught up.
            self.unconsumed = (self.unconsumed - acked).max(0.0);
        }
    }

    /// Begins a second.
    pub fn begin_second(&mut self) {
        self.acked = 0.0;
        self.used = 0.0;
        self.least_wait = f64::INFINITY;
        self.most_wait = 0.0;
    }

    /// Ends a second: the gauges are as a report would say.
    pub fn end_second(&mut self, model: &BrokerModel, capacity: u32) {
        let nanos = |seconds: f64| (seconds * SECOND).round() as u64;
        self.utilization = self.used / model.cores;
        self.gauges = BrokerGauges {
            cpu_quota_nanos: nanos(model.cores),
            channel_messages: self.queued.round() as u64,
            channel_capacity: u64::from(capacity),
            sojourn_min_nanos: if self.least_wait.is_finite() {
                nanos(self.least_wait)
            } else {
                0
            },
            sojourn_p99_nanos: nanos(self.most_wait),
            unconsumed_messages: self.unconsumed.round() as u64,
            publish_streams: STREAMS as u64,
        };
    }
}

/// The whole messages in an amount; what is left of it counts later.
fn whole(amount: f64, rest: &mut f64) -> u64 {
    let sum = amount + *rest;
    let whole = sum.floor();
    *rest = sum - whole;
    whole as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(broker: &mut Broker, model: &BrokerModel, rate: f64, capacity: u32) -> f64 {
        broker.begin_second();
        let step = Step {
            seconds: 0.1,
            offered: rate / 10.0,
            capacity: f64::from(capacity),
            slow_commit: None,
            health: 1.0,
            consumed: 1.0,
        };
        let given_up = (0..10).map(|_| broker.step(model, &step)).sum();
        broker.end_second(model, capacity);
        given_up
    }

    fn blocked(broker: &Broker) -> f64 {
        broker.counters.publisher_blocked_nanos as f64 / broker.counters.publisher_active_nanos as f64
    }

    #[test]
    fn publishers_that_queue_wait_all_the_time_and_lose_nothing() {
        let model = BrokerModel::new(1_000.0);
        let mut broker = Broker::new(0.0, 1);
        assert_eq!(second(&mut broker, &model, 1_500.0, 128), 0.0);
        assert_eq!(broker.counters.acked_messages, 1_000);
        assert_eq!(broker.counters.accepted_messages, 1_128);
        assert!((broker.backlog() - 500.0).abs() < 1e-6, "{}", broker.backlog());
        assert_eq!(broker.gauges.channel_messages, 128);
        assert!(blocked(&broker) >= 0.7, "{}", blocked(&broker));
        assert!((broker.utilization - 1.0).abs() < 1e-6);
    }

    #[test]
    fn publishers_that_give_up_wait_for_the_part_that_is_short() {
        let model = BrokerModel {
            publishers: Publishers::GiveUp,
            ..BrokerModel::new(1_000.0)
        };
        let mut broker = Broker::new(0.0, 1);
        second(&mut broker, &model, 2_000.0, 128);
        let given_up = second(&mut broker, &model, 2_000.0, 128);
        assert!((given_up - 1_000.0).abs() < 1.0, "{given_up}");
        assert!((0.4..=0.5).contains(&blocked(&broker)), "{}", blocked(&broker));
    }

    #[test]
    fn a_slow_disk_bounds_the_rate_by_what_the_channel_holds() {
        let model = BrokerModel::new(10_000.0);
        assert_eq!(model.most(0.001, 128.0), 10_000.0);
        assert!((model.most(0.3, 128.0) - 128.0 / (0.3 + 128.0 * 2e-6)).abs() < 1e-6);
    }
}
