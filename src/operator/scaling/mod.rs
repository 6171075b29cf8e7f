//! The scaling loops joined to a cluster: reports in, decisions out, and what of both is worth writing down.

pub mod figures;
pub mod gauges;
pub mod policy;
pub mod scaler;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use scaler::{Basis, Scaler};

use super::cluster::Cluster;
use super::context::Context;
use super::pressure::LinkState;
use crate::pb::{PartitionRate, PressureReport};
use crate::scaling::{BrokerCounters, BrokerGauges, HotPartition, Report, Time};

/// How often it is decided.
const TICK: Duration = Duration::from_secs(1);

/// Starts the decisions of a cluster.
pub fn start(context: Arc<Context>, cluster: Arc<Cluster>) {
    tokio::spawn(async move {
        let mut ticks =
            tokio::time::interval(TICK.min(context.pressure_interval.max(Duration::from_millis(100))));
        let mut before: BTreeMap<String, Arc<PressureReport>> = BTreeMap::new();
        let labels = gauges::ClusterLabels {
            namespace: cluster.namespace.clone(),
            name: cluster.name.clone(),
        };
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cluster.stop.cancelled() => return context.metrics.scaling.forget(&labels),
                _ = ticks.tick() => {}
            }
            let now = now();
            let states = cluster.link_states();
            let hot = cluster.scaler.lock().hot_broker();
            let seen = |(name, state): (&String, &LinkState)| {
                let mut seen = report(state, now)?;
                if hot.as_ref() == Some(name) {
                    let newest = &state.report.as_ref()?.0;
                    seen.hottest = before.get(name).and_then(|before| hottest(before, newest));
                }
                Some((name.clone(), seen))
            };
            let reports = states.iter().filter_map(seen).collect();
            let newest = |(name, state): (String, LinkState)| Some((name, state.report?.0));
            before = states.into_iter().filter_map(newest).collect();
            let notable = {
                let mut scaler = cluster.scaler.lock();
                let notable = scaler.tick(&reports, now);
                if let (Some(decision), Some(capacity)) = scaler.last() {
                    context.metrics.scaling.show(&labels, decision, capacity);
                }
                notable
            };
            if notable {
                cluster.request_reconcile();
            }
        }
    });
}

/// Milliseconds since the Unix epoch: some moments outlive the operator.
pub fn now() -> Time {
    let millis = k8s_openapi::jiff::Timestamp::now().as_millisecond();
    Time::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn report(state: &LinkState, now: Time) -> Option<scaler::Seen> {
    let (report, at) = state.report.as_ref()?;
    let age = Instant::now().saturating_duration_since(*at);
    Some(scaler::Seen {
        connections: report.connections,
        report: to_report(report, now - age),
        hottest: None,
    })
}

/// The partition that got most between two reports of a broker; none where they cannot be compared or nothing came in.
fn hottest(before: &PressureReport, newest: &PressureReport) -> Option<HotPartition> {
    let nanos = newest.uptime_nanos.checked_sub(before.uptime_nanos)?;
    if before.boot_id != newest.boot_id || nanos == 0 {
        return None;
    }
    let known: HashMap<_, _> = before
        .partitions
        .iter()
        .map(|one| ((&one.topic, one.partition, one.epoch), one.accepted_messages))
        .collect();
    let grown = |one: &'_ PartitionRate| {
        let known = known.get(&(&one.topic, one.partition, one.epoch)).copied();
        one.accepted_messages.saturating_sub(known.unwrap_or(0))
    };
    let most = newest.partitions.iter().max_by_key(|one| grown(one))?;
    let per_second = u128::from(grown(most)) * 1_000_000_000 / u128::from(nanos);
    (per_second > 0).then(|| HotPartition {
        topic: most.topic.clone(),
        partition: most.partition,
        per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
    })
}

/// A broker's report as the loops take it.
pub fn to_report(report: &PressureReport, received: Time) -> Report {
    Report {
        received,
        counters: BrokerCounters {
            boot_id: report.boot_id,
            uptime_nanos: report.uptime_nanos,
            accepted_messages: report.accepted_messages,
            acked_messages: report.acked_messages,
            acked_bytes: report.acked_bytes,
            requests: report.requests,
            delivered_messages: report.delivered_messages,
            commits: report.commits,
            commit_nanos: report.commit_nanos,
            append_nanos: report.append_nanos,
            cpu_nanos: report.cpu_nanos,
            publisher_blocked_nanos: report.publisher_blocked_nanos,
            publisher_active_nanos: report.publisher_active_nanos,
            consumer_starved_nanos: report.consumer_starved_nanos,
            offered_messages: report.offered_messages,
            untold_messages: report.untold_messages,
        },
        gauges: BrokerGauges {
            cpu_quota_nanos: report.cpu_quota_nanos,
            channel_messages: report.channel_messages,
            channel_capacity: report.channel_capacity,
            sojourn_min_nanos: report.sojourn_min_nanos,
            sojourn_p99_nanos: report.sojourn_p99_nanos,
            unconsumed_messages: report.unconsumed_messages,
            publish_streams: report.publish_streams,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(boot_id: u64, seconds: u64, accepted: &[(u32, u64, u64)]) -> PressureReport {
        let partition = |(partition, epoch, accepted_messages): &(u32, u64, u64)| PartitionRate {
            topic: "orders".to_owned(),
            partition: *partition,
            epoch: *epoch,
            accepted_messages: *accepted_messages,
        };
        PressureReport {
            boot_id,
            uptime_nanos: seconds * 1_000_000_000,
            partitions: accepted.iter().map(partition).collect(),
            ..PressureReport::default()
        }
    }

    #[test]
    fn the_hottest_partition_is_the_one_that_grew_most_and_not_the_largest() {
        let before = report(1, 10, &[(0, 1, 90_000), (1, 1, 500), (2, 1, 100)]);
        let newest = report(1, 12, &[(0, 1, 90_200), (1, 1, 3_700), (2, 2, 40)]);
        let hot = hottest(&before, &newest).unwrap();
        assert_eq!(
            (hot.topic.as_str(), hot.partition, hot.per_second),
            ("orders", 1, 1_600)
        );
    }

    #[test]
    fn reports_that_cannot_be_compared_name_no_partition() {
        let before = report(1, 10, &[(0, 1, 500)]);
        for newest in [
            report(2, 12, &[(0, 1, 900)]),
            report(1, 10, &[(0, 1, 900)]),
            report(1, 9, &[(0, 1, 900)]),
            report(1, 12, &[(0, 1, 500)]),
            report(1, 12, &[(0, 1, 400)]),
            report(1, 12, &[]),
        ] {
            assert_eq!(hottest(&before, &newest), None, "{newest:?}");
        }
    }
}
