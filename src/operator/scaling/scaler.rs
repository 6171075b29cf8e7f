//! The autoscaler of one cluster: what it remembers, and what of that the status shows.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use k8s_openapi::jiff::Timestamp;

use super::figures::{self, BrokerFigures, Figures};
use crate::api::MessageBroker;
use crate::api::broker_status::{AutoscalingStatus, Decision as ApiDecision, DecisionInputs, OpaqueState};
use crate::scaling::{
    self, Decision, HotPartition, Mode, Observed, ObservedBroker, Policy, Report, State, Time,
};

/// What a broker takes from decision to Ready, until this cluster's own were seen.
const START_TIME: Duration = Duration::from_secs(10);

/// What the reconcile knows and the loops need.
#[derive(Clone, Debug, PartialEq)]
pub struct Basis {
    /// What the user asked for.
    pub policy: Policy,
    /// `spec.replicas`.
    pub spec_replicas: u32,
    /// Every broker by ascending ordinal, and whether it serves.
    pub brokers: Vec<(String, bool)>,
    /// Brokers are being restarted with another template.
    pub rolling_out: bool,
    /// A broker is being emptied.
    pub draining: bool,
}

/// The newest of one broker.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its report.
    pub report: Report,
    /// Its connections.
    pub connections: u64,
    /// Its partition that gets most, where it was asked for.
    pub hottest: Option<HotPartition>,
}

/// The autoscaler of one cluster.
#[derive(Debug)]
pub struct Scaler {
    state: State,
    basis: Option<Basis>,
    desired: Option<u32>,
    capacity: Option<u32>,
    decisions: Vec<ApiDecision>,
    last_scale: Option<ApiTime>,
    written: Figures,
    written_at: Time,
    durable: Option<OpaqueState>,
    start_time: Duration,
    growing: Option<(u32, Time)>,
    last: Option<Decision>,
    /// The last change, to be told as an event.
    pub announcement: Option<(&'static str, String)>,
}

impl Scaler {
    /// Goes on from the status that an operator before this one left.
    pub fn new(broker: &MessageBroker) -> Self {
        let now = super::now();
        let status = broker.status.clone().unwrap_or_default();
        let written = Figures::shown(&status);
        let autoscaling = status.autoscaling.unwrap_or_default();
        let durable = autoscaling
            .state
            .as_ref()
            .and_then(|state| serde_json::from_value(state.0.clone()).ok());
        Self {
            state: durable.map_or_else(|| State::new(now), |durable| State::resume(durable, now)),
            basis: None,
            desired: autoscaling.desired_replicas,
            capacity: status.channel_capacity,
            decisions: autoscaling.decisions,
            last_scale: autoscaling.last_scale_time,
            written,
            written_at: now,
            durable: autoscaling.state,
            start_time: START_TIME,
            growing: None,
            last: None,
            announcement: None,
        }
    }

    /// Takes in what the reconcile knows. Decides from then on.
    pub fn set_basis(&mut self, basis: Basis) {
        self.basis = Some(basis);
    }

    /// Decides nothing until there is a basis again. What is remembered of the last minutes is not true by then: it goes on as
    /// after a restart of the operator.
    pub fn pause(&mut self, now: Time) {
        if self.basis.take().is_some() {
            self.growing = None;
            self.state = State::resume(self.state.durable.clone(), now);
        }
    }

    /// How many brokers there should be.
    pub fn desired(&self, mode: Mode, spec_replicas: u32) -> u32 {
        match mode {
            Mode::Off | Mode::Recommend => spec_replicas,
            Mode::ScaleUpOnly | Mode::Auto => self.desired.unwrap_or(spec_replicas),
        }
    }

    /// The capacity of each broker's channel.
    pub fn channel_capacity(&self, policy: &Policy) -> u32 {
        match policy.channel.mode {
            scaling::ChannelMode::Fixed => policy.channel.capacity.max(1),
            scaling::ChannelMode::Auto => policy
                .channel
                .within_bounds(self.capacity.unwrap_or(policy.channel.capacity)),
        }
    }

    /// Decides. `true`: something is to be written or done.
    pub fn tick(&mut self, reports: &BTreeMap<String, Seen>, now: Time) -> bool {
        let Some(basis) = self.basis.clone() else {
            return false;
        };
        let observed = Observed {
            spec_replicas: basis.spec_replicas,
            current_replicas: self.desired(basis.policy.autoscaling.mode, basis.spec_replicas),
            brokers: basis
                .brokers
                .iter()
                .map(|(name, ready)| ObservedBroker {
                    name: name.clone(),
                    ready: *ready,
                    report: reports.get(name).map(|seen| seen.report),
                    hottest: reports.get(name).and_then(|seen| seen.hottest.clone()),
                })
                .collect(),
            rolling_out: basis.rolling_out,
            draining: basis.draining,
            start_time: self.start_time,
            channel_capacity: self.channel_capacity(&basis.policy),
        };
        self.measure_start(&observed, now);
        let decision = scaling::decide(&basis.policy, &observed, &mut self.state, now);
        let channel = scaling::decide_channel(&basis.policy, &observed, &mut self.state, now);
        let resized = self.capacity != Some(channel.capacity);
        self.capacity = Some(channel.capacity);
        let changed = self.conclude(&decision, now);
        let figures = Figures::of(&decision, broker_figures(&basis, reports, &decision));
        let written = changed || resized || figures.worth_writing(&self.written, self.written_at, now);
        if written {
            self.written = figures;
            self.written_at = now;
            self.durable = serde_json::to_value(&self.state.durable).ok().map(OpaqueState);
        }
        self.last = Some(decision);
        written
    }

    /// Notes a decision that changes something.
    fn conclude(&mut self, decision: &Decision, now: Time) -> bool {
        let acting = decision.mode.acts();
        let previous = self.last.as_ref().map(|last| last.proposed_replicas);
        let proposes = decision.mode == Mode::Recommend
            && decision.proposed_replicas != decision.from
            && previous != Some(decision.proposed_replicas);
        self.desired = Some(decision.desired_replicas);
        let acts = acting && decision.changes();
        if !acts && !proposes {
            return false;
        }
        let time = ApiTime(timestamp(now));
        if acting {
            self.last_scale = Some(time.clone());
            if decision.desired_replicas > decision.from {
                self.growing = Some((decision.desired_replicas, now));
            }
        }
        let to = if acting {
            decision.desired_replicas
        } else {
            decision.proposed_replicas
        };
        self.announcement = Some((announced_as(decision, to), decision.to_string()));
        self.decisions.push(ApiDecision {
            time,
            from: decision.from,
            to,
            reason: decision.reason.as_str().to_owned(),
            message: decision.to_string(),
            inputs: inputs(decision),
        });
        let surplus = self
            .decisions
            .len()
            .saturating_sub(crate::api::broker_status::MAX_DECISIONS);
        self.decisions.drain(..surplus);
        true
    }

    /// How long brokers take from the decision to Ready.
    fn measure_start(&mut self, observed: &Observed, now: Time) {
        let Some((wanted, since)) = self.growing else {
            return;
        };
        if observed.ready_brokers() >= wanted {
            self.start_time = now
                .since(since)
                .clamp(Duration::from_secs(1), Duration::from_secs(600));
            self.growing = None;
        } else if observed.current_replicas < wanted {
            self.growing = None;
        }
    }

    /// What the status shows.
    pub fn status(&self, spec_replicas: u32, mode: Mode) -> AutoscalingStatus {
        let figures = &self.written;
        let measured = !figures.reason.is_empty();
        AutoscalingStatus {
            starting_replicas: Some(spec_replicas),
            desired_replicas: Some(self.desired(mode, spec_replicas)),
            recommended_replicas: (figures.recommended > 0).then_some(figures.recommended),
            demand_per_second: Some(figures.demand_per_second)
                .filter(|_| measured || figures.demand_per_second > 0),
            capacity_per_broker: figures.capacity_per_broker,
            blocked_percent: measured.then_some(figures.blocked_percent),
            queue_delay_p99: measured.then(|| figures::millis(figures.queue_delay_ms)),
            brokers_reporting: measured.then_some(figures.brokers_reporting),
            limited_by: figures.limited_by.map(str::to_owned),
            last_scale_time: self.last_scale.clone(),
            decisions: self.decisions.clone(),
            state: self.durable.clone(),
        }
    }

    /// How long ago it was decided on more brokers, while they are not there yet.
    pub fn growing_for(&self, now: Time) -> Option<Duration> {
        self.growing.map(|(_, since)| now.since(since))
    }

    /// The broker that gets far more than the others, by the last decision: of it, the hottest partition is worth knowing.
    pub fn hot_broker(&self) -> Option<String> {
        self.last.as_ref().and_then(|last| last.broker.clone())
    }

    /// The last decision, and what it is for the channels.
    pub fn last(&self) -> (Option<&Decision>, Option<u32>) {
        (self.last.as_ref(), self.capacity)
    }

    /// The figures that the status shows.
    pub fn figures(&self) -> &Figures {
        &self.written
    }
}

fn announced_as(decision: &Decision, to: u32) -> &'static str {
    match (decision.mode, to > decision.from) {
        (Mode::Recommend, _) => "ScalingRecommended",
        (_, true) => "ScaledUp",
        (_, false) => "ScalingDown",
    }
}

fn timestamp(time: Time) -> Timestamp {
    let seconds = i64::try_from(time.as_millis() / 1000).unwrap_or(0);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn inputs(decision: &Decision) -> DecisionInputs {
    let inputs = &decision.inputs;
    DecisionInputs {
        demand_per_second: inputs.demand_per_second,
        accepted_per_second: inputs.accepted_per_second,
        capacity_per_broker: inputs.capacity_per_broker.unwrap_or(0),
        blocked_percent: inputs.blocked_percent,
        backlog: inputs.backlog,
        queue_delay_p99: Some(crate::api::DurationString::from_duration(inputs.queue_delay_p99)),
        brokers_ready: inputs.brokers_ready,
        brokers_reporting: inputs.brokers_reporting,
    }
}

fn broker_figures(
    basis: &Basis,
    reports: &BTreeMap<String, Seen>,
    decision: &Decision,
) -> BTreeMap<String, BrokerFigures> {
    let ready = decision.inputs.brokers_ready.max(1);
    let share = decision.inputs.demand_per_second / u64::from(ready);
    let pressure = decision
        .inputs
        .capacity_per_broker
        .filter(|capacity| *capacity > 0)
        .and_then(|capacity| u32::try_from(share.saturating_mul(100) / capacity).ok());
    let one = |(name, is_ready): &(String, bool)| {
        let seen = reports.get(name)?;
        let figures = BrokerFigures {
            pressure: pressure.filter(|_| *is_ready),
            connections: seen.connections,
            queue_delay_ms: seen.report.gauges.sojourn_p99_nanos / 1_000_000,
        };
        Some((name.clone(), figures))
    };
    basis.brokers.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MessageBrokerSpec;

    fn scaler(mode: crate::api::autoscaling::AutoscalingMode) -> Scaler {
        let mut spec = MessageBrokerSpec::default();
        spec.autoscaling.mode = mode;
        let policy = super::super::policy::policy(&spec);
        let mut scaler = Scaler::new(&MessageBroker::new("orders", spec));
        scaler.set_basis(Basis {
            policy,
            spec_replicas: 3,
            brokers: (0..3)
                .map(|ordinal| (format!("orders-{ordinal}"), true))
                .collect(),
            rolling_out: false,
            draining: false,
        });
        scaler
    }

    #[test]
    fn at_rest_the_status_stays_as_it_is() {
        let mut scaler = scaler(crate::api::autoscaling::AutoscalingMode::Auto);
        let start = super::super::now();
        let mut writes = Vec::new();
        let mut uptime = 0;
        for second in 0..900 {
            uptime += 1_000_000_000;
            let now = start + Duration::from_secs(second);
            let reports = (0..3).map(|ordinal| {
                let mut report = Report {
                    received: now,
                    ..Report::default()
                };
                report.counters.boot_id = 1;
                report.counters.uptime_nanos = uptime;
                report.counters.cpu_nanos = uptime / 100;
                report.gauges.cpu_quota_nanos = 1_000_000_000;
                report.gauges.channel_capacity = 128;
                (
                    format!("orders-{ordinal}"),
                    Seen {
                        report,
                        connections: 1,
                        hottest: None,
                    },
                )
            });
            if scaler.tick(&reports.collect(), now) {
                writes.push(second);
            }
        }
        assert!(
            writes.iter().all(|second| *second < 600),
            "it never comes to rest: {writes:?}"
        );
        assert!(writes.len() < 8, "{writes:?}");
    }

    /// Two brokers whose publishers are held back.
    fn overloaded(uptime_seconds: u64, now: Time) -> BTreeMap<String, Seen> {
        let one = |ordinal: u32| {
            let mut report = Report {
                received: now,
                ..Report::default()
            };
            report.counters.boot_id = 1;
            report.counters.uptime_nanos = uptime_seconds * 1_000_000_000;
            report.counters.accepted_messages = uptime_seconds * 1_000;
            report.counters.acked_messages = uptime_seconds * 1_000;
            report.counters.cpu_nanos = uptime_seconds * 1_000_000_000;
            report.counters.publisher_active_nanos = uptime_seconds * 1_000_000_000;
            report.counters.publisher_blocked_nanos = uptime_seconds * 900_000_000;
            report.gauges.cpu_quota_nanos = 1_000_000_000;
            report.gauges.channel_capacity = 128;
            report.gauges.channel_messages = 128;
            let seen = Seen {
                report,
                connections: 1,
                hottest: None,
            };
            (format!("orders-{ordinal}"), seen)
        };
        (0..3).map(one).collect()
    }

    #[test]
    fn while_it_is_paused_nothing_is_decided_and_then_it_goes_on_with_what_is_true_then() {
        let mode = crate::api::autoscaling::AutoscalingMode::Auto;
        let mut scaler = scaler(mode);
        let basis = scaler.basis.clone().unwrap();
        let start = super::super::now();
        let at = |second: u64| start + Duration::from_secs(second);
        scaler.tick(&overloaded(1, at(1)), at(1));
        scaler.pause(at(1));
        for second in 2..60 {
            assert!(!scaler.tick(&overloaded(second, at(second)), at(second)));
        }
        assert_eq!(scaler.desired(Mode::Auto, 3), 3);
        assert!(scaler.decisions.is_empty() && scaler.announcement.is_none());
        scaler.set_basis(basis);
        for second in 60..65 {
            scaler.tick(&overloaded(second, at(second)), at(second));
        }
        assert!(scaler.desired(Mode::Auto, 3) > 3);
        assert_eq!(scaler.decisions.len(), 1);
    }

    #[test]
    fn off_is_off() {
        let mut scaler = scaler(crate::api::autoscaling::AutoscalingMode::Off);
        scaler.tick(&BTreeMap::new(), super::super::now());
        assert_eq!(scaler.desired(Mode::Off, 5), 5);
        assert!(scaler.decisions.is_empty());
    }
}
