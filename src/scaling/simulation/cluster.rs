//! A model of a cluster: brokers that start, take their share, are emptied one at a time and leave.

use std::time::Duration;

use super::broker::{Broker, BrokerModel, Step};
use super::load::Event;
use crate::scaling::{HotPartition, Observed, ObservedBroker, Report, Time};

/// Steps of the model in a second.
const STEPS: u32 = 5;
/// Seconds until a broker that is Ready takes its share, and until one that is emptied takes none.
const MOVING_SECONDS: f64 = 1.0;

/// A cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// What its brokers are like.
    pub model: BrokerModel,
    /// Its brokers by ordinal.
    pub brokers: Vec<Broker>,
    /// `spec.replicas`.
    pub spec_replicas: u32,
    /// The number of brokers decided on.
    pub desired: u32,
    /// Messages that fit into each channel.
    pub channel_capacity: u32,
    /// Seconds from the decision until a broker is Ready.
    pub start_seconds: f64,
    /// Seconds that emptying a broker takes.
    pub drain_seconds: f64,
    /// Brokers are being restarted.
    pub rolling_out: bool,
    /// Seconds since the start.
    pub second: u64,
    /// Messages that publishers gave up.
    pub given_up: f64,
    boots: u64,
    reports: Vec<Option<Report>>,
    names: Vec<String>,
    drained_at: Option<f64>,
    lost: Option<usize>,
    shares: Vec<f64>,
    /// The part of the load that is in one partition of broker 0.
    hot: f64,
}

impl Cluster {
    /// A cluster of `replicas` brokers that are Ready.
    pub fn new(model: BrokerModel, replicas: u32) -> Self {
        let mut cluster = Self {
            model,
            brokers: Vec::new(),
            spec_replicas: replicas,
            desired: replicas,
            channel_capacity: 128,
            start_seconds: 15.0,
            drain_seconds: 15.0,
            rolling_out: false,
            second: 0,
            given_up: 0.0,
            boots: 0,
            reports: Vec::new(),
            names: Vec::new(),
            drained_at: None,
            lost: None,
            shares: Vec::new(),
            hot: 0.0,
        };
        for _ in 0..replicas {
            cluster.add_broker(-MOVING_SECONDS);
        }
        cluster
    }

    fn add_broker(&mut self, ready_at: f64) {
        let ordinal = self.brokers.len();
        self.boots += 1;
        self.brokers.push(Broker::new(ready_at, self.boots));
        self.reports.push(None);
        if self.names.len() <= ordinal {
            self.names.push(format!("orders-{ordinal}"));
        }
    }

    /// The time by the clock of the decisions.
    pub fn now(&self) -> Time {
        Time::from_millis(self.second * 1_000)
    }

    /// Messages that were offered and are not acknowledged.
    pub fn backlog(&self) -> f64 {
        self.brokers.iter().map(Broker::backlog).sum()
    }

    /// Seconds that a message which comes now waits, at the broker where it waits longest.
    pub fn delay(&self) -> f64 {
        self.brokers.iter().map(Broker::delay).fold(0.0, f64::max)
    }

    /// Brokers that serve.
    pub fn ready(&self) -> u32 {
        (0..self.brokers.len())
            .filter(|ordinal| self.is_ready(*ordinal))
            .count() as u32
    }

    fn is_ready(&self, ordinal: usize) -> bool {
        self.lost != Some(ordinal)
            && self
                .brokers
                .get(ordinal)
                .is_some_and(|broker| broker.ready_at < self.second as f64)
    }

    /// Whether a broker is being emptied.
    pub fn is_draining(&self) -> bool {
        self.drained_at.is_some()
    }

    /// Each broker's part of the load: the hot partition with broker 0, everything else so that all have the same, as far
    /// as that goes.
    fn share(&self, at: f64, hot: f64) -> Vec<f64> {
        let leaving = self
            .drained_at
            .filter(|drained| at >= drained - self.drain_seconds + MOVING_SECONDS)
            .map(|_| self.brokers.len() - 1);
        let takes = |(ordinal, broker): (usize, &Broker)| {
            // A broker that is lost keeps its partitions.
            broker.ready_at + MOVING_SECONDS <= at && leaving != Some(ordinal)
        };
        let taking: Vec<bool> = self.brokers.iter().enumerate().map(takes).collect();
        let count = taking.iter().filter(|takes| **takes).count().max(1) as f64;
        let first = if taking.first() == Some(&true) {
            hot.max(1.0 / count)
        } else {
            0.0
        };
        let others = if count > 1.0 {
            (1.0 - first) / (count - 1.0)
        } else {
            0.0
        };
        let share = |(ordinal, takes): (usize, bool)| match (takes, ordinal) {
            (false, _) => 0.0,
            (true, 0) => first,
            (true, _) => others,
        };
        taking.into_iter().enumerate().map(share).collect()
    }

    /// Where partitions go, what publishers hold for them goes too.
    /// The hot partition stays where it is, and what waits there is mostly for it.
    fn move_partitions(&mut self, shares: Vec<f64>, hot: f64) {
        if shares == self.shares {
            return;
        }
        let kept = usize::from(hot > 0.0 && shares.first() == Some(&hot));
        let moving = || shares.iter().skip(kept);
        let waiting: f64 = self.brokers.iter().skip(kept).map(|broker| broker.waiting).sum();
        let all: f64 = moving().sum();
        if waiting > 0.0 && all > 0.0 {
            for (broker, share) in self.brokers.iter_mut().skip(kept).zip(moving()) {
                broker.waiting = waiting * share / all;
            }
        }
        self.shares = shares;
    }

    /// One second: `offered` tells the messages a second at a time, `event` what happens to the brokers. The brokers
    /// report at its end.
    pub fn serve(&mut self, offered: impl Fn(f64) -> f64, event: &Event) {
        let seconds = 1.0 / f64::from(STEPS);
        self.lose(event.lost);
        self.hot = event.hot;
        for broker in &mut self.brokers {
            broker.begin_second();
        }
        for step in 0..STEPS {
            let at = self.second as f64 + f64::from(step) * seconds;
            let arrived = offered(at).max(0.0) * seconds;
            let shares = self.share(at, event.hot);
            self.move_partitions(shares, event.hot);
            for (ordinal, broker) in self.brokers.iter_mut().enumerate() {
                let share = self.shares.get(ordinal).copied().unwrap_or(0.0);
                if self.lost == Some(ordinal) {
                    // Nobody there: publishers that queue go on queueing.
                    match self.model.publishers {
                        super::Publishers::Queue | super::Publishers::QueueSilently => {
                            broker.waiting += arrived * share;
                        }
                        super::Publishers::GiveUp => self.given_up += arrived * share,
                    }
                    continue;
                }
                if broker.ready_at > at {
                    continue;
                }
                let slow = event.slow_commit.filter(|(slow, _)| *slow == ordinal);
                self.given_up += broker.step(
                    &self.model,
                    &Step {
                        seconds,
                        offered: arrived * share,
                        capacity: f64::from(self.channel_capacity),
                        slow_commit: slow.map(|(_, seconds)| seconds),
                        health: event.health,
                        consumed: event.consumed,
                    },
                );
            }
        }
        self.second += 1;
        self.report();
    }

    fn lose(&mut self, lost: Option<usize>) {
        let lost = lost.filter(|ordinal| *ordinal < self.brokers.len());
        if lost != self.lost {
            if let Some(broker) = self.lost.and_then(|back| self.brokers.get_mut(back)) {
                broker.restart();
            }
            self.lost = lost;
        }
    }

    fn report(&mut self) {
        let now = self.now();
        for (ordinal, broker) in self.brokers.iter_mut().enumerate() {
            broker.end_second(&self.model, self.channel_capacity);
            let up = broker.ready_at < self.second as f64 && self.lost != Some(ordinal);
            if up && !broker.mute {
                self.reports[ordinal] = Some(Report {
                    received: now,
                    counters: broker.counters,
                    gauges: broker.gauges,
                });
            }
        }
    }

    /// What the operator sees.
    pub fn observed(&self) -> Observed {
        let broker = |ordinal: usize| ObservedBroker {
            name: self.names[ordinal].clone(),
            ready: self.is_ready(ordinal),
            report: self.reports[ordinal],
            hottest: (ordinal == 0 && self.hot > 0.0).then(|| HotPartition {
                topic: "orders".to_owned(),
                partition: 0,
                per_second: (self.brokers[0].acked * self.hot / self.shares.first().unwrap_or(&1.0)).round()
                    as u64,
            }),
        };
        Observed {
            spec_replicas: self.spec_replicas,
            current_replicas: self.desired,
            brokers: (0..self.brokers.len()).map(broker).collect(),
            rolling_out: self.rolling_out,
            draining: self.is_draining(),
            start_time: Duration::from_secs_f64(self.start_seconds.clamp(0.0, 1e9)),
            channel_capacity: self.channel_capacity,
        }
    }

    /// What Kubernetes and the drain do towards the number decided on.
    pub fn follow(&mut self) {
        let at = self.second as f64;
        while (self.brokers.len() as u32) < self.desired {
            self.add_broker(at + self.start_seconds);
        }
        if self.brokers.len() as u32 <= self.desired {
            self.drained_at = None;
            return;
        }
        match self.drained_at {
            None => self.drained_at = Some(at + self.drain_seconds),
            Some(drained) if drained <= at => {
                if let Some(last) = self.brokers.pop() {
                    self.reports.pop();
                    if let Some(first) = self.brokers.first_mut() {
                        first.waiting += last.backlog();
                    }
                }
                self.drained_at = None;
            }
            Some(_) => {}
        }
    }
}
