//! Apache Kafka: one node in KRaft mode with the settings that it ships with, its own benchmarks, and its client under
//! any number of producers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::Programs;
use crate::ports;
use crate::process::{self, Server};

const LIMIT: Duration = Duration::from_secs(120);

/// A broker that runs.
#[derive(Debug)]
pub(crate) struct Kafka {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    folder: PathBuf,
}

/// What came of a load: records, records a second, and microseconds from the send call to its ack.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Printed {
    pub(crate) records: f64,
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

fn java(programs: &Programs, class: &str, heap: &[&str]) -> Command {
    let mut command = Command::new(&programs.java);
    command
        .args(heap)
        // What kafka-run-class.sh gives every one of Kafka's programs.
        .args([
            "-server",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-XX:InitiatingHeapOccupancyPercent=35",
        ])
        .args([
            "-XX:+ExplicitGCInvokesConcurrent",
            "-XX:MaxInlineLevel=15",
            "-Djava.awt.headless=true",
        ])
        .arg("-cp")
        .arg(format!(
            "{}/*:{}",
            programs.kafka.display(),
            programs.kafka_load.display()
        ))
        .arg(class);
    command
}

pub(crate) async fn start(programs: &Programs, folder: &Path) -> anyhow::Result<Kafka> {
    std::fs::create_dir_all(folder)?;
    let (address, controller) = (ports::free_address()?, ports::free_address()?);
    let properties = folder.join("server.properties");
    // config/server.properties of the distribution, with our addresses and folder.
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers={controller}\n\
         listeners=PLAINTEXT://{address},CONTROLLER://{controller}\nadvertised.listeners=PLAINTEXT://{address}\n\
         inter.broker.listener.name=PLAINTEXT\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
         num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n\
         socket.receive.buffer.bytes=102400\nsocket.request.max.bytes=104857600\nlog.dirs={}\nnum.partitions=1\n\
         num.recovery.threads.per.data.dir=1\noffsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         log.retention.hours=168\nlog.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n",
        folder.join("data").display()
    );
    std::fs::write(&properties, text)?;
    let mut format = java(programs, "kafka.tools.StorageTool", &[]);
    format
        .args(["format", "--standalone", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
        .arg(&properties);
    process::output(&mut format, LIMIT).await?;
    // What kafka-server-start.sh gives it.
    let mut command = java(programs, "kafka.Kafka", &["-Xmx1G", "-Xms1G"]);
    command.arg(&properties);
    let mut server = Server::start("kafka", &mut command, &folder.join("log"))?;
    server.ready(address).await?;
    Ok(Kafka {
        server,
        address,
        folder: folder.to_owned(),
    })
}

/// A topic.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: u32,
    /// `flush.messages=1`: an fsync before every ack.
    pub(crate) is_flushed: bool,
}

/// `peers/kafka/Load.java`: Kafka's client in a process that stays up between loads.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) pid: u32,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Client {
    pub(crate) fn start(programs: &Programs, kafka: &Kafka) -> anyhow::Result<Self> {
        let errors = std::fs::File::create(kafka.folder.join("client.log"))?;
        let mut command = java(programs, "Load", &["-Xms512M", "-Xmx1536M"]);
        let mut child = command
            .arg(kafka.address.to_string())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .context("starting Kafka's client")?;
        Ok(Self {
            pid: child.id().context("Kafka's client ended at once")?,
            input: child.stdin.take().context("it has no input")?,
            output: BufReader::new(child.stdout.take().context("it has no output")?).lines(),
            child,
        })
    }

    async fn call(&mut self, line: &str) -> anyhow::Result<String> {
        let exchange = async {
            self.input.write_all(format!("{line}\n").as_bytes()).await?;
            self.input.flush().await?;
            self.output.next_line().await
        };
        let answer = tokio::time::timeout(LIMIT, exchange)
            .await
            .with_context(|| format!("Kafka's client took more than {LIMIT:?}: {line}"))??
            .with_context(|| format!("Kafka's client ended: {line}"))?;
        if answer.starts_with("error") {
            bail!("Kafka's client: {answer}: {line}");
        }
        Ok(answer)
    }

    pub(crate) async fn create(&mut self, topic: &Topic) -> anyhow::Result<()> {
        let Topic {
            name,
            partitions,
            is_flushed,
        } = topic;
        self.call(&format!("create {name} {partitions} {is_flushed}"))
            .await
            .map(drop)
    }

    pub(crate) async fn delete(&mut self, topic: &Topic) -> anyhow::Result<()> {
        self.call(&format!("delete {}", topic.name)).await.map(drop)
    }

    pub(crate) async fn publish(&mut self, topic: &str, load: Load) -> anyhow::Result<Printed> {
        let Load {
            producers,
            size,
            rate,
            seconds,
            linger_ms,
            batch,
        } = load;
        let line = format!("publish {topic} {producers} {size} {rate} {seconds} {linger_ms} {batch}");
        let answer = self.call(&line).await?;
        serde_json::from_str(&answer).with_context(|| format!("Kafka's client said: {answer}"))
    }

    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("ending Kafka's client")
    }
}

/// One load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) producers: u32,
    pub(crate) size: u32,
    /// Records a second of all producers; 0: as fast as it goes.
    pub(crate) rate: u64,
    pub(crate) seconds: f64,
    pub(crate) linger_ms: u32,
    /// Bytes of a batch, at most.
    pub(crate) batch: u32,
}

/// Kafka's own ProducerPerformance, which has one producer and begins with a cold JVM.
pub(crate) async fn producer_performance(
    programs: &Programs,
    kafka: &Kafka,
    topic: &str,
    records: u64,
    load: Load,
) -> anyhow::Result<Printed> {
    let mut command = java(
        programs,
        "org.apache.kafka.tools.ProducerPerformance",
        &["-Xmx512M"],
    );
    command
        .args(["--topic", topic, "--throughput", "-1"])
        .arg("--num-records")
        .arg(records.to_string())
        .arg("--record-size")
        .arg(load.size.to_string())
        .arg("--producer-props")
        .arg(format!("bootstrap.servers={}", kafka.address))
        .args(["acks=all", "buffer.memory=67108864"])
        .arg(format!("batch.size={}", load.batch))
        .arg(format!("linger.ms={}", load.linger_ms))
        .current_dir(&kafka.folder);
    let text = process::output(&mut command, LIMIT).await?;
    parse(&text).with_context(|| format!("ProducerPerformance printed something else than expected:\n{text}"))
}

/// Milliseconds from a send until the record is consumed, one at a time, as Kafka's own EndToEndLatency measures it.
pub(crate) async fn end_to_end(
    programs: &Programs,
    kafka: &Kafka,
    topic: &str,
    records: u64,
    size: u32,
) -> anyhow::Result<(f64, f64)> {
    let mut command = java(programs, "org.apache.kafka.tools.EndToEndLatency", &["-Xmx512M"]);
    command
        .args([&kafka.address.to_string(), topic])
        .args([records.to_string(), "all".to_owned(), size.to_string()])
        .current_dir(&kafka.folder);
    let text = process::output(&mut command, LIMIT).await?;
    end_to_end_percentiles(&text)
        .with_context(|| format!("EndToEndLatency printed something else than expected:\n{text}"))
}

/// `Percentiles: 50th = 1, 99th = 4, 99.9th = 20`
fn end_to_end_percentiles(text: &str) -> Option<(f64, f64)> {
    let (_, line) = text.lines().find_map(|line| line.split_once("Percentiles:"))?;
    let of = |name: &str| {
        line.split(',')
            .find_map(|part| part.trim().strip_prefix(name)?.trim().strip_prefix('='))
            .and_then(|value| value.trim().parse().ok())
    };
    Some((of("50th")?, of("99th")?))
}

/// The last line is `N records sent, R records/sec (...), ... ms avg latency, ... ms max latency, X ms 50th, ...`.
fn parse(text: &str) -> Option<Printed> {
    let line = text.lines().rev().find(|line| line.contains("ms 50th"))?;
    let before = |unit: &str| -> Option<f64> {
        line.split(',')
            .find(|part| part.contains(unit))?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    Some(Printed {
        records: before("records sent")?,
        rate: before("records/sec")?,
        p50: before("ms 50th")? * 1000.0,
        p99: before("ms 99th")? * 1000.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_read() {
        let text = "300 records sent, 60.0 records/sec (0.01 MB/sec), 9.0 ms avg latency, 10.0 ms max latency.\n\
                    1000 records sent, 250000.5 records/sec (61.04 MB/sec), 3.21 ms avg latency, 200.00 ms max latency, \
                    1 ms 50th, 3 ms 95th, 12 ms 99th, 50 ms 99.9th.\n";
        let printed = parse(text).unwrap();
        assert_eq!(
            (printed.records, printed.rate, printed.p50, printed.p99),
            (1000.0, 250_000.5, 1000.0, 12_000.0)
        );
    }

    #[test]
    fn the_percentiles_of_kafkas_latencies_are_read() {
        let text = "0\t12.3\nAvg latency: 1.5 ms\n\nPercentiles: 50th = 1, 99th = 4, 99.9th = 20\n";
        assert_eq!(end_to_end_percentiles(text), Some((1.0, 4.0)));
    }
}
