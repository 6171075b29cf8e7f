//! `sluice broker`: one broker, until SIGTERM.

use super::Failure;
use crate::broker::Listeners;
use crate::broker::config::BrokerArgs;
use crate::shutdown;

/// Runs the broker.
///
/// # Errors
/// It did not start.
pub async fn run(arguments: BrokerArgs) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let shutdown = shutdown::on_signals().map_err(|error| failed(&error))?;
    let listeners = Listeners::bind(&arguments)
        .await
        .map_err(|error| failed(&error))?;
    crate::broker::run(arguments, listeners, shutdown)
        .await
        .map_err(|error| failed(&error))
}
