//! What the caller saw: the input of both loops.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::counters::{BrokerCounters, BrokerGauges};
use super::time::Time;

/// What is true now, as far as the caller knows.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// `spec.replicas`.
    pub spec_replicas: u32,
    /// The number of brokers decided on so far: `status.autoscaling.desiredReplicas`, else `spec.replicas`.
    pub current_replicas: u32,
    /// All brokers that exist, ready or not, by ascending ordinal.
    pub brokers: Vec<ObservedBroker>,
    /// Brokers are being restarted with another configuration or image.
    pub rolling_out: bool,
    /// A broker is being emptied to be removed.
    pub draining: bool,
    /// What this cluster's brokers lately took from decision to Ready.
    pub start_time: Duration,
    /// The capacity of the channels so far; 0: as configured.
    pub channel_capacity: u32,
}

impl Observed {
    /// How many brokers are Ready.
    pub fn ready_brokers(&self) -> u32 {
        self.ready().count() as u32
    }

    /// The brokers that are Ready.
    pub fn ready(&self) -> impl Iterator<Item = &ObservedBroker> {
        self.brokers.iter().filter(|broker| broker.ready)
    }
}

/// One broker.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ObservedBroker {
    /// Its name, which stays the same over restarts.
    pub name: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Its last report, if there ever was one.
    pub report: Option<Report>,
    /// The partition of its that gets most, if that is known.
    #[serde(default)]
    pub hottest: Option<HotPartition>,
}

/// A partition and what it gets.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct HotPartition {
    /// The topic's name.
    pub topic: String,
    /// Which partition of it.
    pub partition: u32,
    /// Messages accepted a second.
    pub per_second: u64,
}

/// The last report of a broker.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// When it was received, by the caller's clock.
    pub received: Time,
    /// Its counters.
    pub counters: BrokerCounters,
    /// Its gauges.
    pub gauges: BrokerGauges,
}

impl Report {
    /// Whether it is recent enough to count. One from the future is not: the clock has stepped since.
    pub fn is_fresh(&self, staleness: Duration, now: Time) -> bool {
        now.since(self.received) <= staleness && self.received.since(now) <= staleness
    }
}
