//! `sluice pub`: publishes what is given as arguments, in a file, or on stdin.

use std::collections::VecDeque;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};

use super::options::{duration, header};
use super::{Connection, Failure, Output};
use crate::client::{Message, PublishError, Publisher, Receipt, Stored};

const EXAMPLES: &str = "\
Examples:
  sluice pub --topic payments 'paid 17 EUR'
        one message
  sluice pub --topic payments --key customer-42 one two
        two, one after the other in one partition
  journalctl -f -o json | sluice pub --topic logs
        every line of stdin, as it comes
  sluice pub --topic payments --file payments.jsonl --producer-id import-7
        again and again until it succeeds: each line is stored once, because its number is its sequence

Exit codes: 0 all are acknowledged; 1 one was rejected or not acknowledged in time; 2 usage.";

/// Messages whose receipts are waited for at a time.
const WINDOW: usize = 4096;

/// Publishes messages and waits until all of them are acknowledged: by default after an fdatasync on their broker.
///
/// Messages are the arguments, or the lines of --file, or the lines of stdin. Messages with the same key stay in
/// order.
#[derive(Args, Debug, Clone)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The topic. Where the cluster makes topics on demand, it need not exist.
    #[arg(long, short, env = "SLUICE_TOPIC")]
    topic: String,
    /// The key of every message: decides the partition.
    #[arg(long, short, env = "SLUICE_PUB_KEY")]
    key: Option<String>,
    /// The partition of every message, in place of what the key decides.
    #[arg(long, value_name = "N", env = "SLUICE_PUB_PARTITION")]
    partition: Option<u32>,
    /// A header of every message; may be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE", env = "SLUICE_PUB_HEADERS", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Names the producer, so that a message that is sent again is stored once: also by a second run with the same
    /// id and the same messages.
    #[arg(long, value_name = "ID", env = "SLUICE_PUB_PRODUCER_ID", default_value = "")]
    producer_id: String,
    /// The sequence of the first message: what the producer's last run ended with, plus one, to go on there.
    #[arg(long, value_name = "N", env = "SLUICE_PUB_FIRST_SEQUENCE", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    first_sequence: u64,
    /// Publish each line of this file.
    #[arg(long, short, env = "SLUICE_PUB_FILE", conflicts_with = "messages")]
    file: Option<PathBuf>,
    /// A message that is not acknowledged in this time fails.
    #[arg(long, value_name = "DURATION", env = "SLUICE_PUB_TIMEOUT", default_value = "2m", value_parser = duration)]
    timeout: Duration,
    /// How each acknowledged message is printed.
    #[arg(long, short, value_enum, env = "SLUICE_OUTPUT", default_value_t)]
    output: Output,
    /// The messages; none: the lines of stdin.
    messages: Vec<String>,
}

struct Printer {
    output: Output,
    published: u64,
    failed: u64,
    progress: Option<ProgressBar>,
}

/// Publishes.
///
/// # Errors
/// No broker answers, the input cannot be read, or a message was not stored.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.connection.connect().await?;
    let publisher = client
        .publisher(&arguments.topic)
        .producer_id(&arguments.producer_id)
        .first_sequence(arguments.first_sequence)
        .delivery_timeout(Some(arguments.timeout))
        .open();
    let is_long = arguments.messages.is_empty();
    let progress = (is_long && std::io::stderr().is_terminal()).then(progress_bar);
    let mut printer = Printer {
        output: arguments.output,
        published: 0,
        failed: 0,
        progress,
    };
    let mut source = Source::open(&arguments).await?;
    let result = copy(&arguments, &mut source, &publisher, &mut printer).await;
    let duplicates = publisher.stats().duplicates;
    if let Some(progress) = &printer.progress {
        progress.finish_and_clear();
    }
    result?;
    if duplicates > 0 {
        tracing::warn!("{duplicates} of the messages had been stored before by this producer id");
    }
    publisher
        .close()
        .await
        .map_err(|error| Failure::of("closing", error))?;
    match printer.failed {
        0 => Ok(()),
        failed => Err(Failure::Failed(format!(
            "{failed} of {} messages were not stored",
            printer.published + failed
        ))),
    }
}

async fn copy(
    arguments: &Arguments,
    source: &mut Source,
    publisher: &Publisher,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let headers: Vec<(String, Bytes)> = arguments
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), Bytes::from(value.clone())))
        .collect();
    let key = Bytes::from(arguments.key.clone().unwrap_or_default());
    let mut receipts: VecDeque<Receipt> = VecDeque::new();
    loop {
        let body = tokio::select! {
            body = source.next(), if receipts.len() < WINDOW => body?,
            Some(stored) = first(&mut receipts) => {
                receipts.pop_front();
                printer.print(stored);
                continue;
            }
        };
        let Some(body) = body else { break };
        let message = Message {
            key: key.clone(),
            headers: headers.clone(),
            body,
            partition: arguments.partition,
        };
        match publisher.publish(message).await {
            Ok(receipt) => receipts.push_back(receipt),
            Err(error) => printer.print(Err(error)),
        }
    }
    while let Some(receipt) = receipts.pop_front() {
        printer.print(receipt.await);
    }
    Ok(())
}

/// Waits for the oldest receipt without taking it out; `None` at once where there is none.
async fn first(receipts: &mut VecDeque<Receipt>) -> Option<Result<Stored, PublishError>> {
    match receipts.front_mut() {
        Some(receipt) => Some(receipt.await),
        None => None,
    }
}

enum Source {
    Arguments(std::vec::IntoIter<String>),
    Lines(Box<dyn AsyncBufRead + Unpin + Send>, Vec<u8>),
}

impl Source {
    async fn open(arguments: &Arguments) -> Result<Self, Failure> {
        if !arguments.messages.is_empty() {
            return Ok(Self::Arguments(arguments.messages.clone().into_iter()));
        }
        let reader: Box<dyn AsyncBufRead + Unpin + Send> = match &arguments.file {
            Some(path) => {
                let file = tokio::fs::File::open(path).await;
                let file = file.map_err(|error| Failure::of(&path.display().to_string(), error))?;
                Box::new(BufReader::with_capacity(256 << 10, file))
            }
            None => Box::new(BufReader::new(tokio::io::stdin())),
        };
        Ok(Self::Lines(reader, Vec::new()))
    }

    /// The next message without its line end. Cancel-safe: a line that was read in part is kept.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Arguments(messages) => Ok(messages.next().map(Bytes::from)),
            Self::Lines(reader, line) => {
                reader
                    .read_until(b'\n', line)
                    .await
                    .map_err(|error| Failure::of("reading", error))?;
                if line.is_empty() {
                    return Ok(None);
                }
                let mut line = std::mem::take(line);
                line.pop_if(|byte| *byte == b'\n');
                line.pop_if(|byte| *byte == b'\r');
                Ok(Some(Bytes::from(line)))
            }
        }
    }
}

impl Printer {
    fn print(&mut self, result: Result<Stored, PublishError>) {
        match (result, self.output) {
            (Ok(stored), output) => {
                self.published += 1;
                if let Some(progress) = &self.progress {
                    progress.set_position(self.published);
                }
                print_stored(&stored, output);
            }
            (Err(error), Output::Text) => {
                self.failed += 1;
                eprintln!("error: {error}");
            }
            (Err(error), Output::Json) => {
                self.failed += 1;
                println!("{}", serde_json::json!({"error": error.to_string()}));
            }
        }
    }
}

fn print_stored(stored: &Stored, output: Output) {
    let durability = match stored.durability {
        crate::pb::Durability::Fsync => "Fsync",
        crate::pb::Durability::Memory => "Memory",
        crate::pb::Durability::Unspecified => "Unknown",
    };
    match output {
        Output::Text if stored.exact => {
            println!(
                "partition {} offset {} {durability}",
                stored.partition, stored.offset
            );
        }
        Output::Text => println!(
            "partition {} before {} {durability}",
            stored.partition, stored.offset
        ),
        Output::Json => {
            let offset = stored.exact.then_some(stored.offset);
            let stored = serde_json::json!({
                "partition": stored.partition, "offset": offset, "durability": durability,
            });
            println!("{stored}");
        }
    }
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} messages acknowledged, {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
