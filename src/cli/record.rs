//! `sluice record`: writes down the pressure reports of a cluster's brokers, for `sluice simulate --recording`.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use super::Failure;
use super::options::duration;
use crate::operator::scaling::{now, to_report};
use crate::pb::WatchPressureRequest;
use crate::pb::control_client::ControlClient;
use crate::scaling::Report;
use crate::shutdown;

const EXAMPLES: &str = "\
Examples:
  sluice record --brokers orders-0.orders-brokers:7401,orders-1.orders-brokers:7401 --duration 10m --out orders.jsonl
        from a pod of the same namespace
  sluice simulate --recording orders.jsonl --spec broker.yaml
        what the autoscaler would have done

A line of the file is a JSON object with the broker's name and its report: counters, gauges and when it came.
Brokers that are not there yet or restart are tried again. While this runs, what the brokers tell the operator about waits in
the channel covers only the time since the last report to either.

Exit codes: 0 at least one report was written; 1 none was, or the file cannot be written; 2 usage.";

/// How long a connection may take to open, and the pause before the next try.
const CONNECT: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_secs(1);
/// The longest line of a broker's report, in bytes.
const MESSAGE_BYTES: usize = 64 << 20;

/// Writes down the pressure reports of a cluster's brokers, for sluice simulate --recording.
#[derive(Args, Debug, Clone)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The control addresses of the brokers (port 7401), separated by commas.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "SLUICE_RECORD_BROKERS",
        value_delimiter = ',',
        required = true
    )]
    brokers: Vec<String>,
    /// How long to record; unless given, until it is interrupted.
    #[arg(long, value_name = "DURATION", env = "SLUICE_RECORD_DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// How often each broker reports.
    #[arg(long, value_name = "DURATION", env = "SLUICE_RECORD_INTERVAL", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// The file to write.
    #[arg(
        long,
        value_name = "FILE",
        env = "SLUICE_RECORD_OUT",
        default_value = "recording.jsonl"
    )]
    out: PathBuf,
}

/// A line of a recording.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// The broker's name.
    pub(super) broker: String,
    /// What it reported, and when that came.
    pub(super) report: Report,
}

/// The file, and how many lines it has.
struct Out {
    file: std::io::BufWriter<std::fs::File>,
    lines: u64,
    failed: Option<std::io::Error>,
}

impl Out {
    /// Adds a line; after a failure, nothing.
    fn line(&mut self, line: &Line) {
        if self.failed.is_some() {
            return;
        }
        let written = serde_json::to_string(line)
            .map_err(std::io::Error::from)
            .and_then(|text| writeln!(self.file, "{text}"))
            .and_then(|()| self.file.flush());
        match written {
            Ok(()) => self.lines += 1,
            Err(error) => self.failed = Some(error),
        }
    }
}

/// Records until the time is over or it is interrupted.
///
/// # Errors
/// The file cannot be written, or no broker reported anything.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let writing = format!("writing {}", arguments.out.display());
    let file = std::fs::File::create(&arguments.out).map_err(|error| Failure::of(&writing, error))?;
    let out = Arc::new(Mutex::new(Out {
        file: std::io::BufWriter::new(file),
        lines: 0,
        failed: None,
    }));
    let stop = shutdown::on_signals().map_err(|error| Failure::of("listening to signals", error))?;
    let mut tasks = tokio::task::JoinSet::new();
    for broker in arguments.brokers.clone() {
        tasks.spawn(follow(broker, arguments.interval, out.clone(), stop.clone()));
    }
    let end = async {
        match arguments.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = end => {}
        () = stop.cancelled() => {}
        // Only a file that cannot be written ends them.
        _ = tasks.join_next() => {}
    }
    tasks.shutdown().await;
    let mut out = out.lock();
    if let Some(error) = out.failed.take() {
        return Err(Failure::of(&writing, error));
    }
    if out.lines == 0 {
        return Err(Failure::Failed(format!(
            "no broker of {} reported anything; expected control addresses, with port 7401",
            arguments.brokers.join(", ")
        )));
    }
    println!("{} reports written to {}", out.lines, arguments.out.display());
    Ok(())
}

/// Writes down what one broker reports, over as many connections as it takes. Ends when the file cannot be written.
async fn follow(broker: String, interval: Duration, out: Arc<Mutex<Out>>, stop: CancellationToken) {
    let mut told = String::new();
    while !stop.is_cancelled() && out.lock().failed.is_none() {
        if let Err(error) = connection(&broker, interval, &out).await
            && error != told
        {
            tracing::warn!(broker, error, "no reports");
            told = error;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn connection(broker: &str, interval: Duration, out: &Mutex<Out>) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{broker}"))
        .map_err(|error| error.to_string())?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5));
    let channel = tokio::time::timeout(CONNECT, endpoint.connect())
        .await
        .map_err(|_| "no answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let mut client = ControlClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    let request = WatchPressureRequest {
        interval: prost_types::Duration::try_from(interval).ok(),
    };
    let opened = client.watch_pressure(request).await;
    let mut reports = opened.map_err(|status| status.message().to_owned())?.into_inner();
    while let Some(report) = reports
        .message()
        .await
        .map_err(|status| status.message().to_owned())?
    {
        let line = Line {
            report: to_report(&report, now()),
            broker: report.broker,
        };
        let mut out = out.lock();
        out.line(&line);
        if out.failed.is_some() {
            return Ok(());
        }
    }
    Err("the broker ended the stream".to_owned())
}
