//! Runs a command on threads of its own.

use super::{Command, Failure};
use crate::broker::pace;

/// Runs the command to its end. Not generic and not async, so that all of it is compiled once, with the library,
/// and not once more with each executable.
///
/// # Errors
/// It failed, or was asked for something that makes no sense.
pub fn run(command: Command) -> Result<(), Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = command.worker_threads() {
        builder.worker_threads(threads);
    }
    if matches!(command, Command::Broker(_)) {
        builder.on_thread_park(pace::before_sleep);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::of("starting threads", error))?;
    let result = runtime.block_on(command.run());
    // A read of stdin that nobody waits for any more would hold up the end.
    runtime.shutdown_background();
    result
}
