//! `sluice sub`: prints the messages of a topic.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;

use super::options::{duration, start};
use super::{Connection, Failure, Output};
use crate::client::{Delivery, Start, Subscriber};
use crate::shutdown;

const EXAMPLES: &str = "\
Examples:
  sluice sub --topic payments --group me
        everything, then what comes
  sluice sub --topic payments --group me --from latest
        only what comes
  sluice sub --topic payments --group me --max 1 --timeout 5s
        one message; exit code 1 if none comes in 5 s
  sluice sub --topic payments --group audit --from time:2026-01-31T12:00:00Z --output json | jq .key

Members of one group share the messages; each group gets all of them. --from only holds where the
group has no progress yet: a second run goes on where the first one ended.

Exit codes: 0 stopped by a signal, by --max, or by --timeout without --max; 1 it failed, or fewer than
--max messages came before --timeout; 2 usage.";

/// Messages that are printed and acknowledged together.
const BATCH: usize = 256;

/// Receives messages, prints them to stdout, and acknowledges each one after it is printed.
#[derive(Args, Debug, Clone)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The topic.
    #[arg(long, short, env = "SLUICE_TOPIC")]
    topic: String,
    /// The consumer group.
    #[arg(long, short, env = "SLUICE_GROUP")]
    group: String,
    /// Where the group starts: earliest, latest, offset:N or time:RFC3339.
    #[arg(long, value_name = "START", env = "SLUICE_SUB_FROM", default_value = "earliest", value_parser = start)]
    from: Start,
    /// Messages of one key in their order, one of them at a time. All members of a group must say the same.
    #[arg(long, env = "SLUICE_SUB_ORDERED")]
    ordered: bool,
    /// Stop after so many messages.
    #[arg(long, short, value_name = "N", env = "SLUICE_SUB_MAX", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// Stop when no message came for so long.
    #[arg(long, value_name = "DURATION", env = "SLUICE_SUB_TIMEOUT", value_parser = duration)]
    timeout: Option<Duration>,
    /// Print only the body of each message (text), or all there is to it (json).
    #[arg(long, short, value_enum, env = "SLUICE_OUTPUT", default_value_t)]
    output: Output,
}

/// Receives.
///
/// # Errors
/// No broker answers, the subscription is refused, stdout is closed, or fewer messages came than were asked for.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let stop = shutdown::on_signals().map_err(|error| Failure::of("listening to signals", error))?;
    let client = arguments.connection.connect().await?;
    // One message asked for is one message taken from the others of the group.
    let credit = arguments.max.unwrap_or(1024).min(1024);
    let opening = client
        .subscriber(&arguments.topic, &arguments.group)
        .start(arguments.from)
        .ordered(arguments.ordered)
        .credit(credit, 16 << 20)
        .open();
    let mut subscriber = tokio::select! {
        opened = opening => opened.map_err(|error| Failure::Failed(error.to_string()))?,
        () = stop.cancelled() => return Ok(()),
    };
    let result = tokio::select! {
        result = receive(&arguments, &mut subscriber) => result,
        () = stop.cancelled() => Ok(()),
    };
    let stale = subscriber.stats().stale;
    subscriber.close().await;
    if stale > 0 {
        tracing::warn!("{stale} acknowledgements came too late: those messages are delivered again");
    }
    result
}

async fn receive(arguments: &Arguments, subscriber: &mut Subscriber) -> Result<(), Failure> {
    let mut received = 0;
    let mut lines = Vec::new();
    loop {
        let left = arguments.max.map_or(u64::MAX, |max| max - received);
        if left == 0 {
            return Ok(());
        }
        let most = left.min(BATCH as u64) as usize;
        let next = subscriber.next_batch(most);
        let batch = match arguments.timeout {
            Some(timeout) => match tokio::time::timeout(timeout, next).await {
                Ok(batch) => batch,
                Err(_) => return timed_out(received, arguments.max, timeout),
            },
            None => next.await,
        };
        let batch = batch.map_err(|error| Failure::Failed(error.to_string()))?;
        lines.clear();
        for delivery in &batch {
            write_line(&mut lines, delivery, arguments.output);
        }
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(&lines)
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::of("writing to stdout", error))?;
        received += batch.len() as u64;
        batch.into_iter().for_each(Delivery::ack);
    }
}

fn timed_out(received: u64, max: Option<u64>, timeout: Duration) -> Result<(), Failure> {
    match max {
        Some(max) => Err(Failure::Failed(format!(
            "{received} of {max} messages came before there were none for {timeout:?}"
        ))),
        None => Ok(()),
    }
}

fn write_line(lines: &mut Vec<u8>, delivery: &Delivery, output: Output) {
    match output {
        Output::Text => lines.extend_from_slice(&delivery.body),
        Output::Json => lines.extend_from_slice(json(delivery).to_string().as_bytes()),
    }
    lines.push(b'\n');
}

/// Text where it is text; otherwise an object with the bytes in hexadecimal.
fn text_or_hex(bytes: &[u8]) -> serde_json::Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({"hex": hex})
        }
    }
}

fn json(delivery: &Delivery) -> serde_json::Value {
    let published_at = delivery
        .published_at
        .and_then(|time| k8s_openapi::jiff::Timestamp::try_from(time).ok())
        .map(|time| time.to_string());
    let headers: Vec<_> = delivery
        .headers
        .iter()
        .map(|(name, value)| serde_json::json!({"name": name, "value": text_or_hex(value)}))
        .collect();
    serde_json::json!({
        "partition": delivery.partition,
        "offset": delivery.offset,
        "deliveryCount": delivery.delivery_count,
        "key": text_or_hex(&delivery.key),
        "headers": headers,
        "body": text_or_hex(&delivery.body),
        "publishedAt": published_at,
        "producerId": delivery.producer_id,
        "sequence": delivery.sequence,
    })
}
