//! KAAP, the Kubernetes Autoscaling for Apache Pulsar.
//!
//! Source: <https://docs.datastax.com/en/kaap-operator/0.2.0/scaling-components/autoscale-brokers.html>, with the values that it
//! shows: every 20 s, one broker more if the CPU of all brokers is above 80 %, one less if it is below 40 % for all. Its
//! `stabilizationWindowMs` is taken at 120 s, as in the documented example for Kafka clients; the default is 300 s.

use super::{Autoscaler, Decided};
use crate::scaling::AutoscalingPolicy;
use crate::scaling::simulation::Cluster;

const PERIOD: u64 = 20;
const HIGHER: f64 = 0.8;
const LOWER: f64 = 0.4;
const STABILIZATION: u64 = 120;

pub(super) struct Kaap {
    bounds: AutoscalingPolicy,
    scaled: Option<u64>,
    /// Of each broker: utilization summed since the last look, and over how many seconds.
    sums: Vec<(f64, u32)>,
}

impl Kaap {
    pub(super) fn new(policy: &AutoscalingPolicy) -> Self {
        Self {
            bounds: policy.clone(),
            scaled: None,
            sums: Vec::new(),
        }
    }
}

impl Autoscaler for Kaap {
    fn decide(&mut self, cluster: &Cluster) -> Decided {
        self.sums.resize(cluster.brokers.len(), (0.0, 0));
        for (sum, broker) in self.sums.iter_mut().zip(&cluster.brokers) {
            sum.0 += broker.utilization;
            sum.1 += 1;
        }
        let current = cluster.desired;
        let due = cluster.second.is_multiple_of(PERIOD);
        let settled = self
            .scaled
            .is_none_or(|scaled| cluster.second >= scaled + STABILIZATION);
        // It waits until as many brokers serve as it asked for.
        let complete = cluster.ready() == current && cluster.brokers.len() as u32 == current;
        if !due || !settled || !complete {
            return Decided::new(current, current, "", String::new);
        }
        let used: Vec<f64> = std::mem::take(&mut self.sums)
            .into_iter()
            .map(|(sum, seconds)| sum / f64::from(seconds.max(1)))
            .collect();
        let wanted = if used.iter().all(|used| *used > HIGHER) {
            current + 1
        } else if used.iter().all(|used| *used < LOWER) {
            current.saturating_sub(1)
        } else {
            current
        };
        let replicas = self.bounds.within_bounds(wanted);
        if replicas != current {
            self.scaled = Some(cluster.second);
        }
        Decided::new(replicas, current, "Utilization", || {
            let mean = used.iter().sum::<f64>() / used.len().max(1) as f64;
            format!("CPU utilization {:.0} % on average", mean * 100.0)
        })
    }
}
