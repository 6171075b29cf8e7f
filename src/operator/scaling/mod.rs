//! The scaling loops joined to a cluster: reports in, decisions out, and what of both is worth writing down.

pub mod figures;
pub mod policy;
pub mod scaler;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use scaler::{Basis, Scaler};

use super::cluster::Cluster;
use super::context::Context;
use super::pressure::LinkState;
use crate::pb::PressureReport;
use crate::scaling::{BrokerCounters, BrokerGauges, Report, Time};

/// How often it is decided.
const TICK: Duration = Duration::from_secs(1);

/// Starts the decisions of a cluster.
pub fn start(context: Arc<Context>, cluster: Arc<Cluster>) {
    tokio::spawn(async move {
        let mut ticks =
            tokio::time::interval(TICK.min(context.pressure_interval.max(Duration::from_millis(100))));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cluster.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = now();
            let reports = cluster
                .link_states()
                .into_iter()
                .filter_map(|(name, state)| Some((name, report(&state, now)?)))
                .collect();
            let notable = cluster.scaler.lock().tick(&reports, now);
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
