//! Options that several commands share, and how their values are written.

use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};

use super::Failure;
use crate::api::DurationString;
use crate::client::{Client, ClientOptions, Start};

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for scripts.
    Json,
}

/// How to reach a cluster.
#[derive(Args, Debug, Clone)]
pub struct Connection {
    /// Any brokers of the cluster, as host:port, separated by commas. The others are found from there.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "SLUICE_ADDRESS",
        value_delimiter = ',',
        default_value = "localhost:7400"
    )]
    pub address: Vec<String>,
    /// Send everything through --address and let the brokers forward it, instead of going to each partition's
    /// owner: for where the brokers cannot be reached one by one, as through `kubectl port-forward`.
    #[arg(long, env = "SLUICE_FORWARD")]
    pub forward: bool,
    /// How long to wait for a broker to answer at the start.
    #[arg(long, value_name = "DURATION", env = "SLUICE_CONNECT_TIMEOUT", default_value = "15s", value_parser = duration)]
    pub connect_timeout: Duration,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn connect(&self) -> Result<Client, Failure> {
        let options = ClientOptions {
            forward: self.forward,
            topology_timeout: self.connect_timeout,
            ..ClientOptions::default()
        };
        Client::connect_with(self.address.iter().cloned(), options)
            .await
            .map_err(|error| Failure::Failed(error.to_string()))
    }
}

/// Reads `30s`, `100ms`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    DurationString::from(text)
        .parse("duration")
        .map_err(|error| error.to_string())
}

/// Reads `name=value`.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Reads `earliest`, `latest`, `offset:N` or `time:RFC3339`.
pub(super) fn start(text: &str) -> Result<Start, String> {
    let expected = "expected earliest, latest, offset:N or time:RFC3339 (time:2026-01-31T12:00:00Z)";
    match text.split_once(':') {
        None if text == "earliest" => Ok(Start::Earliest),
        None if text == "latest" => Ok(Start::Latest),
        Some(("offset", offset)) => offset
            .parse()
            .map(Start::Offset)
            .map_err(|error| format!("{error}; {expected}")),
        Some(("time", time)) => {
            let time: k8s_openapi::jiff::Timestamp =
                time.parse().map_err(|error| format!("{error}; {expected}"))?;
            Ok(Start::Time(SystemTime::from(time)))
        }
        _ => Err(expected.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_read_and_others_are_refused_with_what_is_expected() {
        assert_eq!(start("earliest"), Ok(Start::Earliest));
        assert_eq!(start("latest"), Ok(Start::Latest));
        assert_eq!(start("offset:17"), Ok(Start::Offset(17)));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        assert_eq!(start("time:1970-01-02T00:00:00Z"), Ok(Start::Time(time)));
        for bad in ["", "newest", "offset:", "offset:-1", "time:yesterday"] {
            assert!(
                start(bad).is_err_and(|error| error.contains("expected earliest")),
                "{bad}"
            );
        }
    }

    #[test]
    fn headers_are_split_at_the_first_equals_sign() {
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(header("=x").is_err() && header("x").is_err());
    }
}
