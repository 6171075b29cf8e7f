//! What `/metrics` shows of a broker: its counters, read when asked. Label sets are closed.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use tokio::runtime::Handle;

use super::cpu;
use super::group;
use super::refusals::Family;
use super::service::Shared;

/// Reads one broker's counters.
pub struct BrokerMetrics {
    /// The broker.
    pub shared: Arc<Shared>,
}

impl fmt::Debug for BrokerMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BrokerMetrics")
            .field("broker", &self.shared.name)
            .finish_non_exhaustive()
    }
}

impl Collector for BrokerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let shared = &self.shared;
        shared.count_clocks();
        let counters = &shared.counters;
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        for (name, help, value) in [
            (
                "accepted_messages",
                "Messages let into the channel",
                counters.accepted_messages.get(),
            ),
            (
                "acked_messages",
                "Messages acknowledged to publishers",
                counters.acked_messages.get(),
            ),
            (
                "acked_bytes",
                "Bytes of acknowledged messages",
                counters.acked_bytes.get(),
            ),
            (
                "received_bytes",
                "Bytes of messages taken from publishers",
                counters.bytes_in.get(),
            ),
            (
                "delivered_bytes",
                "Bytes of messages delivered to consumers",
                counters.bytes_out.get(),
            ),
            (
                "requests",
                "Batches of publishers, requests of consumers and calls of Send",
                counters.requests.get(),
            ),
            ("commits", "Group commits", counters.commits.get()),
            (
                "delivered_messages",
                "Deliveries, redeliveries included",
                counters.delivered_messages.get(),
            ),
            (
                "redelivered_messages",
                "Deliveries after a message's first",
                counters.redelivered_messages.get(),
            ),
            (
                "dead_lettered_messages",
                "Messages put into a dead-letter topic",
                counters.dead_lettered_messages.get(),
            ),
            (
                "given_up_messages",
                "Messages given up where there is no dead-letter topic",
                counters.given_up_messages.get(),
            ),
            (
                "rejected_messages",
                "Payloads answered with Rejected",
                counters.rejected_messages.get(),
            ),
            (
                "recovery_cut_bytes",
                "Bytes of torn records cut off the journal at the start, which nobody was told are stored",
                counters.recovery_cut_bytes.get(),
            ),
            (
                "forwarded_messages",
                "Messages passed on to their owner",
                counters.forwarded_messages.get(),
            ),
            (
                "offered_messages",
                "Messages that publishers were given to send, where they say so; else what they sent",
                counters.offered_messages.get(),
            ),
            (
                "untold_messages",
                "Messages of publishers that do not say how many they were given",
                counters.untold_messages.get(),
            ),
        ] {
            count(&mut encoder, name, help, value)?;
        }
        for (name, help, nanos) in [
            ("commit_seconds", "Time in fdatasync", counters.commit_nanos.get()),
            (
                "append_seconds",
                "Time in encoding and writing",
                counters.append_nanos.get(),
            ),
            (
                "publisher_blocked_seconds",
                "Time of publish streams without credit",
                counters.publisher_blocked_nanos.get(),
            ),
            (
                "publisher_active_seconds",
                "Time of publish streams with anything unacknowledged",
                counters.publisher_active_nanos.get(),
            ),
            (
                "consumer_starved_seconds",
                "Time of members with messages waiting and no credit",
                counters.consumer_starved_nanos.get(),
            ),
            ("cpu_seconds", "CPU time of the process", cpu::used_nanos()),
        ] {
            let counter = ConstCounter::new(seconds(nanos));
            let name = format!("sluice_broker_{name}");
            let metric = encoder.encode_descriptor(
                &name,
                help,
                None,
                prometheus_client::metrics::MetricType::Counter,
            )?;
            counter.encode(metric)?;
        }
        let (channel_messages, channel_bytes) = shared.channel.inside();
        let (unconsumed, oldest) = shared.store.unconsumed();
        let census = group::census(&shared.store);
        let damage = shared.store.damage();
        let tasks = Handle::try_current().map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        let configuration = shared.store.configuration();
        let generation = configuration
            .borrow()
            .as_ref()
            .map_or(0, |known| known.generation);
        for (name, help, value) in [
            ("connections", "Connections open", counters.connections.get()),
            (
                "waiting_dead_letters",
                "Messages on their way to a dead-letter topic, those that wait for one included",
                counters.waiting_dead_letters.get(),
            ),
            ("streams", "Streams and calls open", counters.streams.get()),
            (
                "publish_streams",
                "Publish streams open",
                counters.publish_streams.get(),
            ),
            (
                "channel_messages",
                "Messages between the network and the log",
                channel_messages,
            ),
            (
                "channel_bytes",
                "Bytes between the network and the log",
                channel_bytes,
            ),
            (
                "channel_capacity",
                "Messages that may be between the network and the log",
                u64::from(shared.channel.capacity()),
            ),
            (
                "inflight_bytes",
                "Bytes of messages that are not committed yet",
                shared.inflight.used(),
            ),
            (
                "unconsumed_messages",
                "Messages that some group has not done",
                unconsumed,
            ),
            (
                "oldest_unconsumed_seconds",
                "Age of the oldest of them",
                oldest.as_secs(),
            ),
            (
                "damaged_positions",
                "Positions here that a read, the check in the background or the start found damaged, and that are not served",
                damage.messages,
            ),
            (
                "damaged_segments",
                "Segments of the journal that are kept because something in them is damaged",
                damage.segments,
            ),
            ("group_members", "Members of consumer groups", census.members),
            (
                "outstanding_messages",
                "Messages that members have and did not settle",
                census.outstanding,
            ),
            ("tasks", "Tasks of the runtime that are alive", tasks as u64),
            ("memory_bytes", "Resident memory", cpu::resident_bytes()),
            ("configuration_generation", "The newest configuration", generation),
            (
                "partitions_led",
                "Partitions that take appends here",
                shared.store.led().len() as u64,
            ),
            (
                "cordoned",
                "1 where the operator places nothing here",
                u64::from(shared.is_cordoned()),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            let name = format!("sluice_broker_{name}");
            let metric = encoder.encode_descriptor(
                &name,
                help,
                None,
                prometheus_client::metrics::MetricType::Gauge,
            )?;
            gauge.encode(metric)?;
        }
        for (name, help, family) in [
            (
                "sluice_broker_refused_connections",
                "Connections refused, or closed for a limit",
                Family::Connections,
            ),
            (
                "sluice_broker_refused_streams",
                "Streams ended for a limit",
                Family::Streams,
            ),
            (
                "sluice_broker_refused_messages",
                "Messages answered with Throttled, or RESOURCE_EXHAUSTED, for a limit",
                Family::Messages,
            ),
        ] {
            let mut metric = encoder.encode_descriptor(
                name,
                help,
                None,
                prometheus_client::metrics::MetricType::Counter,
            )?;
            for (reason, value) in shared.refusals.all(family) {
                ConstCounter::new(value).encode(metric.encode_family(&[("reason", reason)])?)?;
            }
        }
        Ok(())
    }
}

fn count(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let name = format!("sluice_broker_{name}");
    let metric =
        encoder.encode_descriptor(&name, help, None, prometheus_client::metrics::MetricType::Counter)?;
    ConstCounter::new(value).encode(metric)
}
