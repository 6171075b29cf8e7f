//! The operator's command line. Every flag is also an environment variable.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::fault::ExitAfter;

/// Watch MessageBrokers and MessageTopics, and run the brokers that they ask for.
#[derive(Args, Clone, Debug)]
pub struct OperatorArgs {
    /// Namespaces to watch, separated by commas; empty: all of them.
    #[arg(
        long,
        env = "SLUICE_WATCH_NAMESPACES",
        value_delimiter = ',',
        default_value = ""
    )]
    pub watch_namespaces: Vec<String>,

    /// The image of brokers whose `spec.image` is empty, as it is when a MessageBroker is first seen.
    #[arg(long, env = "SLUICE_BROKER_IMAGE")]
    pub broker_image: String,

    /// This operator's own name, shown as the holder of the Lease.
    #[arg(long, env = "POD_NAME", default_value = "sluice-operator")]
    pub pod_name: String,

    /// The namespace of the Lease, and of the operator's own pods, which brokers let in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub pod_namespace: String,

    /// The name of the Lease.
    #[arg(long, env = "SLUICE_LEASE_NAME", default_value = "sluice-operator")]
    pub lease_name: String,

    /// How long the Lease lasts after it was last renewed, in seconds.
    #[arg(long, env = "SLUICE_LEASE_DURATION", default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=600))]
    pub lease_duration: u16,

    /// Where to serve /healthz, /readyz and /metrics.
    #[arg(long, env = "SLUICE_HTTP_LISTEN", default_value = "0.0.0.0:7410")]
    pub http_listen: SocketAddr,

    /// How often each broker reports its pressure, in milliseconds.
    #[arg(long, env = "SLUICE_PRESSURE_INTERVAL", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=60_000))]
    pub pressure_interval: u32,

    /// End at once, as by kill -9, after so many of: Write (to the Kubernetes API), Seal, Copy, Drop. For tests.
    #[arg(
        long,
        env = "SLUICE_EXIT_AFTER",
        value_name = "WHAT=N",
        value_delimiter = ',',
        hide = true
    )]
    pub exit_after: Vec<ExitAfter>,
}

impl OperatorArgs {
    /// The namespaces to watch; `None`: all of them.
    pub fn namespaces(&self) -> Option<Vec<String>> {
        let mut names: Vec<String> = self
            .watch_namespaces
            .iter()
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        names.sort();
        names.dedup();
        (!names.is_empty()).then_some(names)
    }

    /// How long the Lease lasts.
    pub fn lease_duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.lease_duration))
    }

    /// How often each broker reports.
    pub fn pressure_interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.pressure_interval))
    }
}
