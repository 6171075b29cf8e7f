//! The autoscalers that a simulation compares: the operator's own, and the usual formulas with their documented defaults.

mod ds2;
mod hpa;
mod kaap;
mod keda;
mod sluice;

use super::cluster::Cluster;
use crate::scaling::Policy;

/// An autoscaler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyKind {
    /// The operator's decisions, unchanged.
    Sluice,
    /// HorizontalPodAutoscaler on CPU utilization.
    Hpa,
    /// KEDA on lag.
    Keda,
    /// KAAP, the autoscaler for Apache Pulsar.
    Kaap,
    /// DS2 as in Apache Flink's autoscaler.
    Ds2,
}

impl PolicyKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Sluice, Self::Hpa, Self::Keda, Self::Kaap, Self::Ds2];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sluice => "sluice",
            Self::Hpa => "hpa",
            Self::Keda => "keda",
            Self::Kaap => "kaap",
            Self::Ds2 => "ds2",
        }
    }

    /// One that has seen nothing yet. `objective` is how many seconds a message may wait.
    pub(super) fn start(self, policy: &Policy, objective: f64) -> Box<dyn Autoscaler> {
        match self {
            Self::Sluice => Box::new(sluice::Sluice::new(policy.clone())),
            Self::Hpa => Box::new(hpa::Hpa::new(&policy.autoscaling)),
            Self::Keda => Box::new(keda::Keda::new(&policy.autoscaling, objective)),
            Self::Kaap => Box::new(kaap::Kaap::new(&policy.autoscaling)),
            Self::Ds2 => Box::new(ds2::Ds2::new(&policy.autoscaling)),
        }
    }
}

/// What an autoscaler decided in a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decided {
    /// How many brokers there should be.
    pub replicas: u32,
    /// What the channels should hold, if it decides on that.
    pub channel_capacity: Option<u32>,
    /// Messages a second that it takes for the demand, if it says so.
    pub demand: Option<f64>,
    /// One word, and a sentence; empty where nothing changes.
    pub reason: &'static str,
    /// Why, in a sentence; empty where nothing changes.
    pub message: String,
}

impl Decided {
    fn new(replicas: u32, current: u32, reason: &'static str, message: impl FnOnce() -> String) -> Self {
        Self {
            replicas,
            reason: if replicas == current { "" } else { reason },
            message: if replicas == current {
                String::new()
            } else {
                message()
            },
            ..Self::default()
        }
    }
}

/// Decides once a second.
pub(super) trait Autoscaler {
    /// Looks at the cluster and decides. Each one reads only what the original could know.
    fn decide(&mut self, cluster: &Cluster) -> Decided;
}
