//! What is measured: Sluice and what it is compared with, each as its makers would have it run.

pub(crate) mod handlers;
pub(crate) mod kafka;
pub(crate) mod nats;
pub(crate) mod sluice;

use std::path::PathBuf;

/// Where the programs are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Programs {
    /// The sluice executable, built for release.
    #[arg(long)]
    pub(crate) sluice: PathBuf,
    /// The article's handler in Go.
    #[arg(long)]
    pub(crate) grpc_go: PathBuf,
    /// NATS' server.
    #[arg(long)]
    pub(crate) nats_server: PathBuf,
    /// NATS' command line.
    #[arg(long)]
    pub(crate) nats: PathBuf,
    /// The folder of Kafka's jars.
    #[arg(long)]
    pub(crate) kafka: PathBuf,
    /// The folder of `peers/kafka/Load.java`, compiled.
    #[arg(long)]
    pub(crate) kafka_load: PathBuf,
    /// The test `broker_cuts`, built for release.
    #[arg(long)]
    pub(crate) cuts: PathBuf,
    /// Java.
    #[arg(long, default_value = "java")]
    pub(crate) java: PathBuf,
}
