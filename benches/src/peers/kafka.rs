//! Apache Kafka: one node in KRaft mode with the settings that it ships with, and its own producer benchmark.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use super::Programs;
use crate::process::{self, Server};

const LIMIT: Duration = Duration::from_secs(120);

/// A broker that runs.
#[derive(Debug)]
pub(crate) struct Kafka {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    folder: PathBuf,
}

/// What ProducerPerformance prints: records a second, and milliseconds.
#[derive(Debug, Clone, Copy)]
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
        .arg(format!("{}/*", programs.kafka.display()))
        .arg(class);
    command
}

pub(crate) async fn start(programs: &Programs, folder: &Path) -> anyhow::Result<Kafka> {
    std::fs::create_dir_all(folder)?;
    let (address, controller) = (process::free_address()?, process::free_address()?);
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

pub(crate) async fn create(programs: &Programs, kafka: &Kafka, topic: &Topic) -> anyhow::Result<()> {
    let mut command = java(programs, "org.apache.kafka.tools.TopicCommand", &["-Xmx256M"]);
    command
        .arg(format!("--bootstrap-server={}", kafka.address))
        .args(["--create", "--topic", &topic.name])
        .arg(format!("--partitions={}", topic.partitions))
        .arg("--replication-factor=1");
    if topic.is_flushed {
        command.args(["--config", "flush.messages=1"]);
    }
    process::output(&mut command, LIMIT).await.map(drop)
}

pub(crate) async fn delete(programs: &Programs, kafka: &Kafka, topic: &Topic) -> anyhow::Result<()> {
    let mut command = java(programs, "org.apache.kafka.tools.TopicCommand", &["-Xmx256M"]);
    command
        .arg(format!("--bootstrap-server={}", kafka.address))
        .args(["--delete", "--topic", &topic.name]);
    process::output(&mut command, LIMIT).await.map(drop)
}

/// One load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) records: u64,
    pub(crate) size: u32,
    /// Records a second; 0: as fast as it goes.
    pub(crate) rate: u64,
    pub(crate) linger_ms: u32,
}

pub(crate) async fn publish(
    programs: &Programs,
    kafka: &Kafka,
    topic: &str,
    load: Load,
) -> anyhow::Result<Printed> {
    let mut command = java(
        programs,
        "org.apache.kafka.tools.ProducerPerformance",
        &["-Xmx512M"],
    );
    let throughput = if load.rate == 0 {
        "-1".to_owned()
    } else {
        load.rate.to_string()
    };
    command
        .args(["--topic", topic, "--throughput", &throughput])
        .arg("--num-records")
        .arg(load.records.to_string())
        .arg("--record-size")
        .arg(load.size.to_string())
        .arg("--producer-props")
        .arg(format!("bootstrap.servers={}", kafka.address))
        .args(["acks=all", "batch.size=65536", "buffer.memory=67108864"])
        .arg(format!("linger.ms={}", load.linger_ms))
        .current_dir(&kafka.folder);
    let text = process::output(&mut command, LIMIT).await?;
    parse(&text).with_context(|| format!("ProducerPerformance printed something else than expected:\n{text}"))
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
        p50: before("ms 50th")?,
        p99: before("ms 99th")?,
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
            (1000.0, 250_000.5, 1.0, 12.0)
        );
    }
}
