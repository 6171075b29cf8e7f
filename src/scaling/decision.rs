//! A decision, its reason, and both as one sentence.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::observed::HotPartition;
use super::policy::Mode;

/// How many brokers there should be, and why.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Decision {
    /// The number of brokers decided on before.
    pub from: u32,
    /// The number to act on.
    pub desired_replicas: u32,
    /// The number to act on if the mode were `Auto`; differs from `desired_replicas` in the other modes only.
    pub proposed_replicas: u32,
    /// The number that the demand asks for, before stabilisation, policies, bounds and guards; `from` where
    /// nothing can be said.
    pub recommended_replicas: u32,
    /// Why.
    pub reason: Reason,
    /// What keeps `desired_replicas` from `recommended_replicas`.
    pub limited_by: Option<LimitedBy>,
    /// The mode it was decided in.
    pub mode: Mode,
    /// What it was decided on.
    pub inputs: Inputs,
    /// The broker that the reason speaks of, if it speaks of one.
    pub broker: Option<String>,
    /// The partition of that broker that gets most, if that is known.
    #[serde(default)]
    pub partition: Option<HotPartition>,
}

impl Decision {
    /// Whether there is anything to do.
    pub fn changes(&self) -> bool {
        self.desired_replicas != self.from
    }
}

/// What a decision was made on, in the units of `status.autoscaling`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Messages a second that publishers would send if nothing held them back.
    pub demand_per_second: u64,
    /// Messages a second that were accepted.
    pub accepted_per_second: u64,
    /// Messages a second that one broker can do, as estimated; `None` while nothing was ever acknowledged.
    pub capacity_per_broker: Option<u64>,
    /// The part of their active time that publishers were without credit, in percent.
    pub blocked_percent: u32,
    /// Messages in the channels.
    pub backlog: u64,
    /// The 99th percentile of the wait in the channel, at the worst broker.
    pub queue_delay_p99: Duration,
    /// Brokers that are Ready.
    pub brokers_ready: u32,
    /// Ready brokers whose reports are fresh and tell a rate.
    pub brokers_reporting: u32,
    /// The target utilization, in percent.
    pub target_utilization_percent: u32,
}

/// Why a decision is as it is. One word each, for conditions and events.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The mode is `Off`.
    Off,
    /// `spec.replicas` was changed.
    StartingPoint,
    /// The number of brokers was outside `minReplicas` and `maxReplicas`.
    OutOfBounds,
    /// Brokers are being restarted with another configuration.
    Rollout,
    /// A broker is being emptied to be removed.
    Draining,
    /// No broker is Ready.
    NoBrokers,
    /// Reports of some or all brokers are stale or missing.
    MetricsMissing,
    /// No broker reported for so long that `fallback` applies.
    Fallback,
    /// There are too few reports yet, or too few to remove a broker.
    Measuring,
    /// The operator started lately and does not yet know enough to remove a broker.
    OperatorRestarted,
    /// The brokers of the last jump are not serving yet.
    AwaitingBrokers,
    /// The brokers of the last jump are working off what has piled up.
    CatchingUp,
    /// Messages come in and none is acknowledged: what a broker can do is unknown.
    CapacityUnknown,
    /// Consumers are out of credit and the brokers are not busy: more brokers would help nobody.
    ConsumerBound,
    /// One broker is used up and the others are not: its partitions must move, or one of them is too much for any broker.
    HotPartition,
    /// The last brokers that were added gained next to nothing.
    IneffectiveScaling,
    /// The demand rises and will be above the target utilization before another broker could serve.
    DemandRising,
    /// Publishers are held back and the brokers are busy.
    Saturated,
    /// The demand is above the target utilization.
    DemandHigh,
    /// The model says that the brokers are nearly used up, but nobody is held back and more was never tried.
    NotFelt,
    /// The demand needs fewer brokers.
    DemandLow,
    /// A broker would be removed, but publishers are held back, the demand rises or a broker is not Ready.
    Unsettled,
    /// A change waits for its stabilisation window.
    Stabilizing,
    /// The number of brokers fits.
    WithinTolerance,
}

impl Reason {
    /// Its name, as in `status` and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "Off",
            Self::StartingPoint => "StartingPoint",
            Self::OutOfBounds => "OutOfBounds",
            Self::Rollout => "Rollout",
            Self::Draining => "Draining",
            Self::NoBrokers => "NoBrokers",
            Self::MetricsMissing => "MetricsMissing",
            Self::Fallback => "Fallback",
            Self::Measuring => "Measuring",
            Self::OperatorRestarted => "OperatorRestarted",
            Self::AwaitingBrokers => "AwaitingBrokers",
            Self::CatchingUp => "CatchingUp",
            Self::CapacityUnknown => "CapacityUnknown",
            Self::ConsumerBound => "ConsumerBound",
            Self::HotPartition => "HotPartition",
            Self::IneffectiveScaling => "IneffectiveScaling",
            Self::DemandRising => "DemandRising",
            Self::Saturated => "Saturated",
            Self::DemandHigh => "DemandHigh",
            Self::NotFelt => "NotFelt",
            Self::DemandLow => "DemandLow",
            Self::Unsettled => "Unsettled",
            Self::Stabilizing => "Stabilizing",
            Self::WithinTolerance => "WithinTolerance",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What keeps the number to act on from the number that the demand asks for.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitedBy {
    /// `minReplicas`.
    MinReplicas,
    /// `maxReplicas`.
    MaxReplicas,
    /// A policy of `behavior.scaleUp`.
    ScaleUpPolicy,
    /// A policy of `behavior.scaleDown`.
    ScaleDownPolicy,
    /// A stabilisation window of `behavior`.
    StabilizationWindow,
    /// Brokers are removed one at a time.
    OneAtATime,
    /// The mode.
    Mode,
    /// What the reason says.
    Guard,
}

impl LimitedBy {
    /// Its name, as in `status.autoscaling.limitedBy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MinReplicas => "MinReplicas",
            Self::MaxReplicas => "MaxReplicas",
            Self::ScaleUpPolicy => "ScaleUpPolicy",
            Self::ScaleDownPolicy => "ScaleDownPolicy",
            Self::StabilizationWindow => "StabilizationWindow",
            Self::OneAtATime => "OneAtATime",
            Self::Mode => "Mode",
            Self::Guard => "Guard",
        }
    }

    fn explain(self) -> &'static str {
        match self {
            Self::MinReplicas => "minReplicas",
            Self::MaxReplicas => "maxReplicas",
            Self::ScaleUpPolicy => "the scaleUp policies",
            Self::ScaleDownPolicy => "the scaleDown policies",
            Self::StabilizationWindow => "the stabilization window",
            Self::OneAtATime => "one broker at a time",
            Self::Mode => "the mode",
            Self::Guard => "a guard",
        }
    }
}

impl fmt::Display for LimitedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `1 broker`, `2 brokers`.
struct Brokers(u32);

impl fmt::Display for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broker{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// `demand 9800/s against 2400/s a broker`.
struct Load<'a>(&'a Inputs);

impl fmt::Display for Load<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.capacity_per_broker {
            Some(capacity) => write!(
                f,
                "demand {}/s against {capacity}/s a broker",
                self.0.demand_per_second
            ),
            None => write!(f, "demand {}/s", self.0.demand_per_second),
        }
    }
}

impl Decision {
    fn hot(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broker = self.broker.as_deref().unwrap_or("one broker");
        write!(
            f,
            "{broker} gets far more than the other brokers, which are not busy: "
        )?;
        match &self.partition {
            Some(hot) => {
                let HotPartition {
                    topic,
                    partition,
                    per_second,
                } = hot;
                let most = self.inputs.capacity_per_broker.unwrap_or(u64::MAX);
                // What is accepted is never more than the broker can do.
                if *per_second >= most / 2 {
                    write!(
                        f,
                        "partition {partition} of topic {topic} alone has {per_second}/s of it, so give it a broker of its own, \
                         or spread its keys over more partitions"
                    )?;
                } else {
                    write!(
                        f,
                        "move its partitions, first partition {partition} of topic {topic} with {per_second}/s"
                    )?;
                }
            }
            None => write!(f, "move its partitions, or split the topic further")?,
        }
        write!(f, "; {}", Load(&self.inputs))
    }

    fn because(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inputs = &self.inputs;
        let load = Load(inputs);
        let reporting = inputs.brokers_reporting;
        let ready = Brokers(inputs.brokers_ready);
        match self.reason {
            Reason::Off => write!(f, "autoscaling is off"),
            Reason::StartingPoint => write!(f, "spec.replicas was changed to {}", self.desired_replicas),
            Reason::OutOfBounds => write!(f, "{} is outside minReplicas and maxReplicas", Brokers(self.from)),
            Reason::Rollout => write!(f, "a rollout is in progress"),
            Reason::Draining if self.recommended_replicas > self.from => write!(
                f,
                "{} are needed, but first a broker must be emptied that is on its way out; {load}",
                Brokers(self.recommended_replicas)
            ),
            Reason::Draining => write!(f, "a broker is being emptied; {load}"),
            Reason::NoBrokers => write!(f, "no broker is ready"),
            Reason::MetricsMissing => write!(f, "{reporting} of {ready} reported lately"),
            Reason::Fallback => write!(f, "{reporting} of {ready} reported for too long: fallback"),
            Reason::Measuring => write!(f, "not measured for long enough yet; {load}"),
            Reason::OperatorRestarted => {
                write!(
                    f,
                    "the operator has not watched for long enough to remove a broker; {load}"
                )
            }
            Reason::AwaitingBrokers => {
                write!(
                    f,
                    "waiting for new brokers, {} of {} ready",
                    inputs.brokers_ready, self.from
                )
            }
            Reason::CatchingUp => write!(
                f,
                "new brokers are working off what has piled up; publishers were blocked {} % of the time",
                inputs.blocked_percent
            ),
            Reason::CapacityUnknown => write!(
                f,
                "{}/s accepted, {} messages queued and none acknowledged",
                inputs.accepted_per_second, inputs.backlog
            ),
            Reason::ConsumerBound => write!(
                f,
                "consumers are out of credit and the brokers are not busy: more consumers are needed, not more brokers; {load}"
            ),
            Reason::HotPartition => self.hot(f),
            Reason::IneffectiveScaling => write!(
                f,
                "the brokers that were added last gained next to nothing, so no more are added for ten minutes; {load}"
            ),
            Reason::DemandRising => write!(
                f,
                "rising, {load} will be above {} % of what {} carry when another could serve",
                inputs.target_utilization_percent,
                Brokers(self.from)
            ),
            Reason::Saturated if inputs.blocked_percent < 10 => write!(
                f,
                "messages wait up to {} ms at busy brokers; {load}",
                inputs.queue_delay_p99.as_millis()
            ),
            Reason::Saturated => write!(
                f,
                "publishers were blocked {} % of the time; {load}",
                inputs.blocked_percent
            ),
            Reason::DemandHigh => write!(
                f,
                "{load} is above {} % of what {} carry",
                inputs.target_utilization_percent,
                Brokers(self.from)
            ),
            Reason::NotFelt => write!(
                f,
                "{load}, which is only known to be the least that it can do, and nobody is held back"
            ),
            Reason::DemandLow => {
                write!(
                    f,
                    "{load} needs only {}",
                    Brokers(self.recommended_replicas.max(1))
                )
            }
            Reason::Unsettled => write!(
                f,
                "no broker is removed while publishers are blocked, the demand rises or a broker is not ready; {load}"
            ),
            Reason::Stabilizing => write!(
                f,
                "{load} needs {}, but not for as long as the stabilization window",
                Brokers(self.recommended_replicas.max(1))
            ),
            Reason::WithinTolerance => write!(f, "{load} fits"),
        }
    }
}

/// One sentence with the numbers, for status and events.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.because(f)?;
        let (from, to) = (self.from, self.proposed_replicas);
        if from == to {
            write!(f, ": stays at {}", Brokers(from))?;
        } else if self.desired_replicas == to {
            write!(f, ": {from} -> {}", Brokers(to))?;
        } else {
            write!(f, ": {from} -> {} if the mode allowed it", Brokers(to))?;
        }
        match self.limited_by {
            Some(
                limit @ (LimitedBy::MaxReplicas | LimitedBy::ScaleUpPolicy | LimitedBy::ScaleDownPolicy),
            ) => {
                write!(
                    f,
                    ", not {}, because of {}",
                    self.recommended_replicas,
                    limit.explain()
                )
            }
            _ => Ok(()),
        }
    }
}
