//! SIGTERM and SIGINT, as a token that everything that runs looks at.

use tokio::signal::unix::{SignalKind, signal};
pub use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT. A second one ends the process at once, with the
/// exit code that shells give to it.
///
/// # Errors
/// The process cannot listen to signals.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let signalled = token.clone();
    // It lives as long as the process: that is what signals are sent to.
    tokio::spawn(async move {
        let mut count = 0;
        loop {
            let number = tokio::select! {
                _ = terminate.recv() => 15,
                _ = interrupt.recv() => 2,
            };
            count += 1;
            if count > 1 {
                std::process::exit(128 + number);
            }
            tracing::info!(signal = number, "stopping; once more stops at once");
            signalled.cancel();
        }
    });
    Ok(token)
}
