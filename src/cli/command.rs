//! The whole command line.

use std::ffi::OsString;
use std::path::Path;

use clap::{Parser, Subcommand};

use super::{Failure, bench, broker, crd, operator, publish, record, simulate, subscribe};
use crate::broker::config::BrokerArgs;
use crate::operator::OperatorArgs;

const AFTER_HELP: &str = "\
Every flag can also be given as the environment variable that is shown with it.

Logs go to stderr: SLUICE_LOG filters them (info, warn, sluice=debug), SLUICE_LOG_FORMAT=json makes them JSON.

Exit codes: 0 it did what was asked; 1 it failed; 2 the arguments make no sense.

The same executable is a kubectl plugin where it is called kubectl-sluice: kubectl sluice pub ...";

/// Message brokers on Kubernetes that scale on backpressure.
#[derive(Parser, Debug)]
#[command(name = "sluice", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done. Each command's help is the documentation of its arguments.
#[derive(Subcommand, Debug)]
#[allow(missing_docs)]
pub enum Command {
    Broker(Box<BrokerArgs>),
    Operator(Box<OperatorArgs>),
    Crd(crd::Arguments),
    Pub(publish::Arguments),
    Sub(subscribe::Arguments),
    Bench(bench::Arguments),
    Simulate(simulate::Arguments),
    Record(record::Arguments),
}

impl Cli {
    /// Reads the arguments of the process. Called as kubectl-sluice, it says so in its help.
    ///
    /// # Errors
    /// The arguments cannot be read, or help or version was asked for.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let called_as = arguments.first().map(Path::new).and_then(Path::file_stem);
        let is_plugin = called_as.is_some_and(|name| name.to_string_lossy().ends_with("kubectl-sluice"));
        let mut command = <Self as clap::CommandFactory>::command();
        if is_plugin {
            command = command.name("kubectl sluice").bin_name("kubectl sluice");
        }
        let matches = command.try_get_matches_from(arguments)?;
        <Self as clap::FromArgMatches>::from_arg_matches(&matches)
    }
}

impl Command {
    /// What is logged where `SLUICE_LOG` does not say it: services log what they do, commands only what is wrong.
    pub fn default_log_filter(&self) -> &'static str {
        match self {
            Self::Broker(_) | Self::Operator(_) => "info",
            Self::Crd(_)
            | Self::Pub(_)
            | Self::Sub(_)
            | Self::Bench(_)
            | Self::Simulate(_)
            | Self::Record(_) => "warn",
        }
    }

    /// How many threads it is worth; `None`: one for each core.
    pub fn worker_threads(&self) -> Option<usize> {
        match self {
            // It starts threads of its own for connections.
            Self::Broker(_) => Some(1),
            _ => None,
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// It failed, or was asked for something that makes no sense.
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Broker(arguments) => broker::run(*arguments).await,
            Self::Operator(arguments) => operator::run(*arguments).await,
            Self::Crd(arguments) => crd::run(&arguments, &mut std::io::stdout().lock())
                .map_err(|error| Failure::Failed(error.to_string())),
            Self::Pub(arguments) => publish::run(arguments).await,
            Self::Sub(arguments) => subscribe::run(arguments).await,
            Self::Bench(arguments) => bench::run(arguments).await,
            Self::Simulate(arguments) => simulate::run(&arguments),
            Self::Record(arguments) => record::run(arguments).await,
        }
    }
}
