//! A real broker with a real CPU limit, for the examples that measure what the operator makes of its reports.

#![allow(dead_code, reason = "every example uses a part of it")]

pub(crate) mod broker;
pub(crate) mod quota;
pub(crate) mod reports;

use std::process::ExitCode;

use sluice::cli::{Cli, Failure, runtime};
use sluice::telemetry;

/// These examples start themselves as broker and as load: then this is all that is done. `None`: it is the example itself.
pub(crate) fn as_sluice() -> Option<ExitCode> {
    let is_sluice = std::env::args()
        .nth(1)
        .is_some_and(|first| first == "broker" || first == "bench");
    if !is_sluice {
        return None;
    }
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let result = telemetry::init("warn")
        .map_err(Failure::Usage)
        .and_then(|()| runtime::run(cli.command));
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    })
}

/// The load average of the last minute: what else went on on this machine.
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}
