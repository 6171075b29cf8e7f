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
mod report;
mod stats;
mod tonic_server;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run(arguments) => {
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            // Whatever was started ends when the measurement is dropped.
            tokio::select! {
                done = measure::run(arguments) => done,
                _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
                _ = terminate.recv() => anyhow::bail!("terminated"),
            }
        }
        Command::Load(load) => {
            println!("{}", serde_json::to_string(&load::run(load).await?)?);
            Ok(())
        }
        Command::TonicServer { listen } => tonic_server::serve(listen).await,
    }
}
