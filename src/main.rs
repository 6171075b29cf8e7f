//! The command line: parse, start logging, run.

use std::process::ExitCode;

use sluice::cli::{Cli, Failure, runtime};
use sluice::telemetry;

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let result = telemetry::init(cli.command.default_log_filter())
        .map_err(Failure::Usage)
        .and_then(|()| runtime::run(cli.command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}
