//! The figures that a status shows, and when they are worth writing: never at rest, and not at every tick.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::api::broker_status::BrokerStatus;
use crate::api::{DurationString, MessageBrokerStatus};
use crate::scaling::{Decision, LimitedBy, Reason, Time};

/// Figures are not written more often than this, unless a decision changes something.
const SPACING: Duration = Duration::from_secs(12);
/// A changed reason is written a little sooner.
const REASON_SPACING: Duration = Duration::from_secs(5);

/// What is shown of one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerFigures {
    /// Demand relative to what it can carry, in percent.
    pub pressure: Option<u32>,
    /// Connections.
    pub connections: u64,
    /// The 99th percentile of the wait in the channel, in milliseconds.
    pub queue_delay_ms: u64,
}

/// What is shown of the autoscaler's inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Messages a second that publishers would send if nothing held them back.
    pub demand_per_second: u64,
    /// Messages a second that one broker can carry.
    pub capacity_per_broker: Option<u64>,
    /// The part of their time in which publishers are held back, in percent.
    pub blocked_percent: u32,
    /// The 99th percentile of the wait in a channel, in milliseconds, in the worst broker.
    pub queue_delay_ms: u64,
    /// Brokers whose reports are recent.
    pub brokers_reporting: u32,
    /// Brokers that serve.
    pub brokers_ready: u32,
    /// What the demand asks for.
    pub recommended: u32,
    /// What limits it.
    pub limited_by: Option<&'static str>,
    /// Why it was decided so.
    pub reason: &'static str,
    /// Each broker.
    pub brokers: BTreeMap<String, BrokerFigures>,
}

impl Figures {
    /// The figures of a decision.
    pub fn of(decision: &Decision, brokers: BTreeMap<String, BrokerFigures>) -> Self {
        let inputs = &decision.inputs;
        Self {
            demand_per_second: rounded(inputs.demand_per_second),
            capacity_per_broker: inputs.capacity_per_broker.map(rounded),
            blocked_percent: inputs.blocked_percent,
            queue_delay_ms: rounded(u64::try_from(inputs.queue_delay_p99.as_millis()).unwrap_or(u64::MAX)),
            brokers_reporting: inputs.brokers_reporting,
            brokers_ready: inputs.brokers_ready,
            recommended: decision.recommended_replicas,
            limited_by: decision.limited_by.map(LimitedBy::as_str),
            reason: decision.reason.as_str(),
            brokers,
        }
    }

    /// The figures that a status shows, so that an operator that was started again does not write them once more.
    pub fn shown(status: &MessageBrokerStatus) -> Self {
        let autoscaling = status.autoscaling.clone().unwrap_or_default();
        let delay = |text: &Option<DurationString>| {
            let parsed = text.as_ref().and_then(|text| text.parse("status").ok());
            parsed.map_or(0, |delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
        };
        let broker = |one: &BrokerStatus| {
            let figures = BrokerFigures {
                pressure: one.pressure,
                connections: one.connections.unwrap_or(0),
                queue_delay_ms: delay(&one.queue_delay_p99),
            };
            (one.name.clone(), figures)
        };
        let measured = status.brokers.iter().filter(|one| one.connections.is_some());
        Self {
            demand_per_second: autoscaling.demand_per_second.unwrap_or(0),
            capacity_per_broker: autoscaling.capacity_per_broker,
            blocked_percent: autoscaling.blocked_percent.unwrap_or(0),
            queue_delay_ms: delay(&autoscaling.queue_delay_p99),
            brokers_reporting: autoscaling.brokers_reporting.unwrap_or(0),
            brokers_ready: status.ready_replicas,
            recommended: autoscaling.recommended_replicas.unwrap_or(0),
            limited_by: autoscaling
                .limited_by
                .and_then(|limit| word::<LimitedBy>(&limit))
                .map(LimitedBy::as_str),
            reason: status
                .summary
                .as_ref()
                .and_then(|summary| word::<Reason>(&summary.scaling))
                .map_or("", Reason::as_str),
            brokers: measured.map(broker).collect(),
        }
    }

    /// Demand relative to what the ready brokers can carry, in percent.
    pub fn pressure(&self) -> Option<u32> {
        let capacity = self
            .capacity_per_broker?
            .checked_mul(u64::from(self.brokers_ready))?;
        let percent = self.demand_per_second.checked_mul(100)?.checked_div(capacity)?;
        u32::try_from(percent).ok()
    }

    /// Whether these are worth writing where `written` was written so long ago.
    pub fn worth_writing(&self, written: &Self, at: Time, now: Time) -> bool {
        let age = now.since(at);
        let reason = self.reason != written.reason
            || self.limited_by != written.limited_by
            || self.recommended != written.recommended
            || self.brokers_reporting != written.brokers_reporting;
        (reason && age >= REASON_SPACING) || (age >= SPACING && (reason || self.differs(written)))
    }

    fn differs(&self, other: &Self) -> bool {
        let brokers = self.brokers.keys().ne(other.brokers.keys())
            || self
                .brokers
                .values()
                .zip(other.brokers.values())
                .any(|(one, two)| {
                    far(
                        u64::from(one.pressure.unwrap_or(0)),
                        u64::from(two.pressure.unwrap_or(0)),
                        5,
                    ) || far(one.connections, two.connections, 0)
                        || far(one.queue_delay_ms, two.queue_delay_ms, 5)
                });
        brokers
            || far(self.demand_per_second, other.demand_per_second, 10)
            || far(
                self.capacity_per_broker.unwrap_or(0),
                other.capacity_per_broker.unwrap_or(0),
                10,
            )
            || far(
                u64::from(self.blocked_percent),
                u64::from(other.blocked_percent),
                2,
            )
            || far(self.queue_delay_ms, other.queue_delay_ms, 5)
    }
}

/// One of a closed set, by its name.
fn word<T: DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_value(name.into()).ok()
}

/// More than a fifth apart, and by more than `noise`.
fn far(one: u64, two: u64, noise: u64) -> bool {
    let apart = one.abs_diff(two);
    apart > noise && apart.saturating_mul(5) > one.max(two)
}

/// Two significant digits.
fn rounded(number: u64) -> u64 {
    let mut unit = 1u64;
    while number / unit >= 100 {
        unit *= 10;
    }
    number / unit * unit
}

/// Milliseconds, as a status shows them.
pub fn millis(millis: u64) -> DurationString {
    DurationString::from_duration(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(demand: u64) -> Figures {
        Figures {
            demand_per_second: demand,
            reason: "WithinTolerance",
            ..Figures::default()
        }
    }

    #[test]
    fn at_rest_nothing_is_ever_written() {
        let later = Time::from_millis(3_600_000);
        assert!(!figures(0).worth_writing(&figures(0), Time::default(), later));
        assert!(!figures(1_050).worth_writing(&figures(1_000), Time::default(), later));
    }

    #[test]
    fn a_change_is_written_but_not_at_every_tick() {
        let at = |seconds: u64| Time::from_millis(seconds * 1000);
        assert!(!figures(5_000).worth_writing(&figures(1_000), at(0), at(11)));
        assert!(figures(5_000).worth_writing(&figures(1_000), at(0), at(12)));
        let saturated = Figures {
            reason: "Saturated",
            ..figures(1_000)
        };
        assert!(!saturated.worth_writing(&figures(1_000), at(0), at(4)));
        assert!(saturated.worth_writing(&figures(1_000), at(0), at(5)));
    }

    #[test]
    fn two_digits_are_enough() {
        assert_eq!((rounded(0), rounded(99), rounded(12_345)), (0, 99, 12_000));
    }
}
