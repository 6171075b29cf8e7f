//! `sluice operator`: the operator, until SIGTERM.

use super::Failure;
use crate::operator::OperatorArgs;
use crate::shutdown;

/// Runs the operator.
///
/// # Errors
/// It did not start.
pub async fn run(arguments: OperatorArgs) -> Result<(), Failure> {
    let shutdown = shutdown::on_signals().map_err(|error| Failure::Failed(error.to_string()))?;
    crate::operator::run(arguments, shutdown)
        .await
        .map_err(|error| Failure::Failed(error.to_string()))
}
