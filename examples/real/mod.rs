//! A real broker with a real CPU limit, for the examples that measure what the operator makes of its reports.

#![allow(dead_code, reason = "every example uses a part of it")]

pub(crate) mod broker;
pub(crate) mod quota;
pub(crate) mod reports;

use std::process::ExitCode;

use anyhow::Result;
use sluice::cli::{Cli, Failure, runtime};
use sluice::telemetry;

/// The example, or what it starts itself as.
pub(crate) fn main<F: Future<Output = Result<()>>>(example: impl FnOnce() -> F) -> ExitCode {
    if let Some(code) = as_sluice() {
        return code;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let result = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(example()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// These examples start themselves as broker and as load: then this is all that is done. `None`: it is the example itself.
fn as_sluice() -> Option<ExitCode> {
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
