//! Logs: to stderr, filtered by `SLUICE_LOG`, as text or JSON by `SLUICE_LOG_FORMAT`.

use tracing_subscriber::EnvFilter;

/// The filter's variable, for example `info`, `warn,sluice=debug`.
pub const FILTER_VARIABLE: &str = "SLUICE_LOG";
/// The format's variable: `text` or `json`.
pub const FORMAT_VARIABLE: &str = "SLUICE_LOG_FORMAT";

/// Starts logging. `default_filter` holds where `SLUICE_LOG` is not set.
///
/// # Errors
/// A variable does not say what it may say, or logging was started before.
pub fn init(default_filter: &str) -> Result<(), String> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).map_err(|error| format!("{FILTER_VARIABLE}={text}: {error}"))?
        }
        _ => EnvFilter::new(default_filter),
    };
    let format = std::env::var(FORMAT_VARIABLE).unwrap_or_default();
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format.as_str() {
        "" | "text" => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            logs.with_ansi(is_terminal).try_init()
        }
        "json" => logs.json().flatten_event(true).try_init(),
        other => return Err(format!("{FORMAT_VARIABLE}={other}: expected text or json")),
    };
    started.map_err(|error| error.to_string())
}
