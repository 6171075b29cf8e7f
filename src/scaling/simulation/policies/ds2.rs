//! DS2 as in Apache Flink's autoscaler.
//!
//! Sources: Kalavri et al., "Three steps is all you need" (OSDI 2018), and
//! <https://nightlies.apache.org/flink/flink-kubernetes-operator-docs-main/docs/custom-resource/autoscaler/> with its defaults: the true
//! rate of an operator is what it processed over its busy time; `parallelism = target rate / (true rate × 0.7)`, the target rate
//! being the mean input and what catches up with the lag within 30 minutes. Metrics are means over 15 minutes, nothing is done within
//! a utilization of 0.7 ± 0.3, and for five minutes after a change nothing is measured. What was before the start is taken to be as
//! in the first second.

use std::collections::VecDeque;

use super::{Autoscaler, Decided};
use crate::scaling::AutoscalingPolicy;
use crate::scaling::simulation::Cluster;

/// Seconds between two evaluations.
const INTERVAL: u64 = 60;
const WINDOW: usize = 900;
const STABILIZATION: u64 = 300;
const BOUNDARY: f64 = 0.3;
const CATCH_UP_SECONDS: f64 = 1_800.0;

/// A second: messages that came in, messages processed, broker-seconds busy.
#[derive(Clone, Copy, Default)]
struct Second {
    input: f64,
    processed: f64,
    busy: f64,
}

pub(super) struct Ds2 {
    policy: AutoscalingPolicy,
    window: VecDeque<Second>,
    sum: Second,
    before: f64,
    scaled: Option<u64>,
}

impl Ds2 {
    pub(super) fn new(policy: &AutoscalingPolicy) -> Self {
        Self {
            policy: policy.clone(),
            window: VecDeque::new(),
            sum: Second::default(),
            before: 0.0,
            scaled: None,
        }
    }

    fn measure(&mut self, cluster: &Cluster) {
        let processed: f64 = cluster.brokers.iter().map(|broker| broker.acked).sum();
        let backlog = cluster.backlog();
        let second = Second {
            input: (processed + backlog - self.before).max(0.0),
            processed,
            busy: cluster.brokers.iter().map(|broker| broker.utilization).sum(),
        };
        self.before = backlog;
        if self
            .scaled
            .is_some_and(|scaled| cluster.second < scaled + STABILIZATION)
        {
            return;
        }
        let times = if self.window.is_empty() { WINDOW } else { 1 };
        for _ in 0..times {
            self.sum.input += second.input;
            self.sum.processed += second.processed;
            self.sum.busy += second.busy;
            self.window.push_back(second);
        }
        if let Some(old) = self
            .window
            .front()
            .copied()
            .filter(|_| self.window.len() > WINDOW)
        {
            self.window.pop_front();
            self.sum.input -= old.input;
            self.sum.processed -= old.processed;
            self.sum.busy -= old.busy;
        }
    }
}

impl Autoscaler for Ds2 {
    fn decide(&mut self, cluster: &Cluster) -> Decided {
        self.measure(cluster);
        let current = cluster.desired;
        let settled = !self.window.is_empty()
            && self
                .scaled
                .is_none_or(|scaled| cluster.second >= scaled + STABILIZATION + INTERVAL);
        if !cluster.second.is_multiple_of(INTERVAL) || !settled || self.sum.busy <= 0.0 {
            return Decided::new(current, current, "", String::new);
        }
        let seconds = self.window.len() as f64;
        let true_rate = self.sum.processed / self.sum.busy;
        let target_rate = self.sum.input / seconds + cluster.backlog() / CATCH_UP_SECONDS;
        let utilization = self.policy.target_utilization();
        let carried = true_rate * f64::from(current);
        let too_little = carried < target_rate / (utilization + BOUNDARY).min(1.0);
        let too_much = carried > target_rate / (utilization - BOUNDARY).max(0.05);
        let wanted = if too_little || too_much {
            (target_rate / (true_rate * utilization)).ceil() as u32
        } else {
            current
        };
        let replicas = self.policy.within_bounds(wanted);
        if replicas != current {
            self.scaled = Some(cluster.second);
            self.window.clear();
            self.sum = Second::default();
        }
        Decided::new(replicas, current, "TrueRate", || {
            format!("input {target_rate:.0}/s, true rate {true_rate:.0}/s a broker")
        })
    }
}
