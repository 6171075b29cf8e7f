//! The pressure report: everything that the operator scales on.

use std::sync::Arc;
use std::time::SystemTime;

use super::cpu;
use super::service::Shared;
use crate::pb;

/// Makes the reports of one stream.
pub struct Reporter {
    shared: Arc<Shared>,
    report: u64,
    cpu_quota_nanos: u64,
}

impl Reporter {
    /// Its first report is number 1.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            report: 0,
            cpu_quota_nanos: cpu::quota_nanos(),
        }
    }

    /// How the broker is now. What it says about the time since the last report (sojourn, fdatasync) is about the
    /// last report of any stream.
    pub fn report(&mut self) -> pb::PressureReport {
        self.report += 1;
        // A container's quota may be changed while it runs.
        if self.report.is_multiple_of(60) {
            self.cpu_quota_nanos = cpu::quota_nanos();
        }
        let shared = &self.shared;
        shared.count_clocks();
        let counters = &shared.counters;
        let store = &shared.store;
        let (channel_messages, channel_bytes) = shared.channel.inside();
        let sojourn = shared.channel.take_sojourn();
        let (unconsumed_messages, oldest) = store.unconsumed();
        let configuration = store.configuration();
        let generation = configuration
            .borrow()
            .as_ref()
            .map_or(0, |known| known.generation);
        pb::PressureReport {
            broker: shared.name.clone(),
            boot_id: shared.boot_id,
            report: self.report,
            time: Some(SystemTime::now().into()),
            uptime_nanos: nanos(shared.started.elapsed()),
            accepted_messages: counters.accepted_messages.get(),
            acked_messages: counters.acked_messages.get(),
            bytes_in: counters.bytes_in.get(),
            bytes_out: counters.bytes_out.get(),
            commits: counters.commits.get(),
            commit_nanos: counters.commit_nanos.get(),
            append_nanos: counters.append_nanos.get(),
            cpu_nanos: cpu::used_nanos(),
            publisher_blocked_nanos: counters.publisher_blocked_nanos.get(),
            publisher_active_nanos: counters.publisher_active_nanos.get(),
            consumer_starved_nanos: counters.consumer_starved_nanos.get(),
            delivered_messages: counters.delivered_messages.get(),
            redelivered_messages: counters.redelivered_messages.get(),
            rejected_messages: counters.rejected_messages.get(),
            forwarded_messages: counters.forwarded_messages.get(),
            acked_bytes: counters.acked_bytes.get(),
            requests: counters.requests.get(),
            offered_messages: counters.offered_messages.get(),
            untold_messages: counters.untold_messages.get(),
            cpu_quota_nanos: self.cpu_quota_nanos,
            channel_messages,
            channel_bytes,
            channel_capacity: u64::from(shared.channel.capacity()),
            sojourn_min_nanos: nanos(sojourn.min),
            sojourn_p99_nanos: nanos(sojourn.p99),
            fdatasync_p99_nanos: store.take_fdatasync_p99(),
            unconsumed_messages,
            oldest_unconsumed_nanos: nanos(oldest),
            connections: counters.connections.get(),
            streams: counters.streams.get(),
            configuration_generation: generation,
            publish_streams: counters.publish_streams.get(),
            memory_bytes: cpu::resident_bytes(),
            appends_confirmed: shared.is_confirmed(),
            partitions: store
                .led()
                .into_iter()
                .map(
                    |((topic, partition), (epoch, accepted_messages))| pb::PartitionRate {
                        topic,
                        partition,
                        epoch,
                        accepted_messages,
                    },
                )
                .collect(),
            wanted_topics: shared.wanted_topics(),
        }
    }
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
