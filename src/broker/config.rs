//! How a broker is started: flags, each of which is also an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::api::DurationString;

/// Runs one broker.
///
/// In a cluster the operator configures it; with `--standalone` it configures itself:
///
/// sluice broker --standalone --data-dir /tmp/broker --topic orders:4
#[derive(Debug, Clone, Args)]
pub struct BrokerArgs {
    /// The broker's name, for example orders-0. Kept on the disk: a directory of another broker is refused.
    #[arg(long, env = "SLUICE_BROKER_NAME", default_value_t = default_name())]
    pub name: String,

    /// The MessageBroker it belongs to, as namespace/name; a configuration for another one is refused. Empty: any.
    #[arg(long, env = "SLUICE_BROKER_CLUSTER", default_value = "")]
    pub cluster: String,

    /// Where it keeps everything.
    #[arg(long, env = "SLUICE_BROKER_DATA_DIR", default_value = "/data")]
    pub data_dir: PathBuf,

    /// Where it serves publishers and subscribers.
    #[arg(long, env = "SLUICE_BROKER_LISTEN", default_value = "0.0.0.0:7400")]
    pub listen: SocketAddr,

    /// Where it serves the operator and other brokers.
    #[arg(long, env = "SLUICE_BROKER_CONTROL_LISTEN", default_value = "0.0.0.0:7401")]
    pub control_listen: SocketAddr,

    /// Where it serves /healthz, /readyz and /metrics.
    #[arg(long, env = "SLUICE_BROKER_HTTP_LISTEN", default_value = "0.0.0.0:7402")]
    pub http_listen: SocketAddr,

    /// The host:port that a standalone broker tells its clients. Empty: 127.0.0.1 and the port of --listen.
    /// In a cluster the operator says it.
    #[arg(long, env = "SLUICE_BROKER_ADVERTISE", default_value = "")]
    pub advertise: String,

    /// How long it takes at most to stop; keep it below the pod's terminationGracePeriodSeconds.
    #[arg(long, env = "SLUICE_BROKER_SHUTDOWN_GRACE", default_value = "25s", value_parser = parse_duration)]
    pub shutdown_grace: Duration,

    /// How long an opening waits for a topic that is not configured yet, before it is answered UNAVAILABLE.
    #[arg(long, env = "SLUICE_BROKER_TOPIC_WAIT", default_value = "5s", value_parser = parse_duration)]
    pub topic_wait: Duration,

    /// Connections at once, until the operator says another number.
    #[arg(long, env = "SLUICE_BROKER_MAX_CONNECTIONS", default_value_t = 60_000)]
    pub max_connections: u32,

    /// Streams and calls at once on one connection, until the operator says another number.
    #[arg(long, env = "SLUICE_BROKER_MAX_STREAMS_PER_CONNECTION", default_value_t = 200)]
    pub max_streams_per_connection: u32,

    /// The largest message (key, headers and body), until the operator says another number.
    #[arg(long, env = "SLUICE_BROKER_MAX_MESSAGE_BYTES", default_value = "4Mi", value_parser = parse_bytes)]
    pub max_message_bytes: u64,

    /// Bytes of messages that are not committed yet, over all publishers, until the operator says another number.
    #[arg(long, env = "SLUICE_BROKER_MAX_INFLIGHT_BYTES", default_value = "256Mi", value_parser = parse_bytes)]
    pub max_inflight_bytes: u64,

    /// A connection that has not sent HTTP/2's preface and first frame by then is closed.
    #[arg(long, env = "SLUICE_BROKER_HANDSHAKE_TIMEOUT", default_value = "10s", value_parser = parse_duration)]
    pub handshake_timeout: Duration,

    /// A connection that says nothing for so long is pinged.
    #[arg(long, env = "SLUICE_BROKER_KEEPALIVE_INTERVAL", default_value = "30s", value_parser = parse_duration)]
    pub keepalive_interval: Duration,

    /// A connection that does not answer a ping, or take what is sent to it, for so long is closed.
    #[arg(long, env = "SLUICE_BROKER_KEEPALIVE_TIMEOUT", default_value = "20s", value_parser = parse_duration)]
    pub keepalive_timeout: Duration,

    /// Messages between the network and the log, until the operator says another number.
    #[arg(long, env = "SLUICE_BROKER_CHANNEL_CAPACITY", default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub channel_capacity: u32,

    /// The size of a segment file of the log.
    #[arg(long, env = "SLUICE_BROKER_SEGMENT_BYTES", default_value = "64Mi", value_parser = parse_bytes)]
    pub segment_bytes: u64,

    /// Threads that serve connections; 0: as many as the container's CPU quota, at least 1.
    #[arg(long, env = "SLUICE_BROKER_THREADS", default_value_t = 0)]
    pub threads: usize,

    /// Without an operator: owns the topics of --topic, and appends at once. For trying out and for tests.
    #[arg(long, env = "SLUICE_BROKER_STANDALONE")]
    pub standalone: bool,

    /// With --standalone: acknowledges when a message is in memory instead of when it is on the disk.
    #[arg(long, env = "SLUICE_BROKER_MEMORY_DURABILITY", requires = "standalone")]
    pub memory_durability: bool,

    /// With --standalone: a topic, as name:partitions. May be given several times.
    #[arg(long = "topic", env = "SLUICE_BROKER_TOPICS", value_delimiter = ',', value_parser = parse_topic,
        value_name = "NAME:PARTITIONS", requires = "standalone")]
    pub topics: Vec<(String, u32)>,
}

fn default_name() -> String {
    ["POD_NAME", "HOSTNAME"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "broker-0".to_owned())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    DurationString(text.to_owned())
        .parse("duration")
        .map_err(|error| error.to_string())
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    crate::api::quantity::whole(&Quantity(text.to_owned()), "bytes").map_err(|error| error.to_string())
}

fn parse_topic(text: &str) -> Result<(String, u32), String> {
    let (name, partitions) = text.split_once(':').unwrap_or((text, "1"));
    match partitions.parse() {
        Ok(partitions) if partitions > 0 && !name.is_empty() => Ok((name.to_owned(), partitions)),
        _ => Err(format!("{text:?} is not NAME:PARTITIONS, such as orders:4")),
    }
}
