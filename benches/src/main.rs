//! `make bench`: one load generator, the peers, and the report. See benches/README.md.

mod article;
mod bars;
mod load;
mod measure;
mod peers;
#[path = "../../tests/support/ports.rs"]
mod ports;
mod proc;
mod process;
mod processors;
mod report;
mod stats;
mod tonic_server;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

/// What `make bench` runs.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything: measures, and writes the report.
    Run(measure::Arguments),
    /// One load; prints what came of it as JSON.
    Load(load::Load),
    /// The article's handler in stock tonic.
    TonicServer {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Load(load) => {
            println!("{}", serde_json::to_string(&load::run(load)?)?);
            Ok(())
        }
        Command::Run(arguments) => Runtime::new()?.block_on(run(arguments)),
        Command::TonicServer { listen } => Runtime::new()?.block_on(tonic_server::serve(listen)),
    }
}

async fn run(arguments: measure::Arguments) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    // Whatever was started ends when the measurement is dropped.
    tokio::select! {
        done = measure::run(arguments) => done,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
}
