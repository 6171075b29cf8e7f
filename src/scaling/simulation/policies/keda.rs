//! KEDA on lag.
//!
//! Sources: <https://keda.sh/docs/latest/reference/scaledobject-spec/> and
//! <https://keda.sh/docs/latest/scalers/apache-kafka/>: KEDA hands the total lag to a HorizontalPodAutoscaler as an
//! external metric of type `AverageValue`, so that `desiredReplicas = ceil(lag / lagThreshold)`, every 15 s, with the
//! tolerance and the behavior of the HorizontalPodAutoscaler. The threshold is what a broker does within the objective, which is the
//! best that a user could set: the default of 10 would ask for the most brokers at once.

use super::hpa::{Limits, SYNC, TOLERANCE};
use super::{Autoscaler, Decided};
use crate::scaling::AutoscalingPolicy;
use crate::scaling::simulation::Cluster;

pub(super) struct Keda {
    limits: Limits,
    objective: f64,
}

impl Keda {
    pub(super) fn new(policy: &AutoscalingPolicy, objective: f64) -> Self {
        Self {
            limits: Limits::new(policy),
            objective,
        }
    }
}

impl Autoscaler for Keda {
    fn decide(&mut self, cluster: &Cluster) -> Decided {
        if !cluster.second.is_multiple_of(SYNC) {
            return Decided::new(cluster.desired, cluster.desired, "", String::new);
        }
        let unconsumed: f64 = cluster.brokers.iter().map(|broker| broker.unconsumed).sum();
        let lag = cluster.backlog() + unconsumed;
        let threshold = (cluster.model.rate * self.objective).max(1.0);
        let current = cluster.brokers.len() as u32;
        let ratio = lag / (threshold * f64::from(current.max(1)));
        let wanted = if (ratio - 1.0).abs() <= TOLERANCE {
            current
        } else {
            (lag / threshold).ceil().min(f64::from(u32::MAX)) as u32
        };
        let replicas = self.limits.apply(cluster, wanted);
        Decided::new(replicas, cluster.desired, "Lag", || format!("lag {lag:.0}"))
    }
}
