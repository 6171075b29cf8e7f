//! The command line: parse, start logging, run.

use std::process::ExitCode;

use anyhow::Context as _;
use sluice::cli::{Cli, Failure};
use sluice::telemetry;

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            error.downcast_ref().map_or(ExitCode::FAILURE, Failure::exit_code)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    telemetry::init(cli.command.default_log_filter()).map_err(Failure::Usage)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = cli.command.worker_threads() {
        builder.worker_threads(threads);
    }
    let runtime = builder.enable_all().build().context("cannot start threads")?;
    let result = runtime.block_on(cli.command.run());
    // A read of stdin that nobody waits for any more would hold up the end.
    runtime.shutdown_background();
    Ok(result?)
}
