//! Who is compared in durable publishing, and one run of each (P4).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{Bench, settle};
use crate::peers::{kafka, nats, sluice};
use crate::proc;
use crate::process::Server;

/// Who publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Sluice,
    KafkaFlushed,
    KafkaPerformance,
    KafkaDefault,
    NatsAsync,
    NatsAtomic,
}

impl Serialize for Peer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Peer {
    pub(super) const ALL: [Self; 6] = [
        Self::Sluice,
        Self::KafkaFlushed,
        Self::KafkaPerformance,
        Self::KafkaDefault,
        Self::NatsAsync,
        Self::NatsAtomic,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sluice => "Sluice",
            Self::KafkaFlushed => "Kafka flush.messages=1",
            Self::KafkaPerformance => "Kafka flush.messages=1, ProducerPerformance",
            Self::KafkaDefault => "Kafka default (no fsync)",
            Self::NatsAsync => "NATS async",
            Self::NatsAtomic => "NATS atomic batches",
        }
    }
}

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Shape {
    pub(super) size: u32,
    pub(super) producers: u32,
    pub(super) partitions: u32,
    /// Messages a second; 0: as fast as it goes.
    pub(super) rate: u64,
    pub(super) seconds: f64,
}

/// What came of one run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    pub(super) rate: f64,
    pub(super) p50_micros: f64,
    pub(super) p99_micros: f64,
    pub(super) flushes_a_second: Option<f64>,
    pub(super) server_cpu_micros: f64,
    pub(super) client_cpu_micros: f64,
    pub(super) rss: u64,
}

/// How a peer's client is set: found by a sweep for throughput, given for an equal rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Tuning {
    /// How long Kafka's client waits for a batch to fill.
    pub(super) linger_ms: u32,
    /// Bytes of its batches, at most.
    pub(super) batch: u32,
    /// Messages that a NATS client leaves unacknowledged.
    pub(super) window: u32,
    /// Messages that all of Sluice's publishers together leave unacknowledged, as fast as it goes.
    pub(super) sluice_window: u32,
}

impl Tuning {
    /// Kafka's default linger with larger batches than its default; NATS' default window.
    pub(super) const USUAL: Self = Self {
        linger_ms: 5,
        batch: 65_536,
        window: 500,
        sluice_window: 8192,
    };

    /// Takes over what `other` says of a peer.
    pub(super) fn take(&mut self, peer: Peer, other: Self) {
        match peer {
            Peer::Sluice => self.sluice_window = other.sluice_window,
            Peer::NatsAsync | Peer::NatsAtomic => self.window = other.window,
            Peer::KafkaFlushed | Peer::KafkaDefault | Peer::KafkaPerformance => {
                (self.linger_ms, self.batch) = (other.linger_ms, other.batch);
            }
        }
    }
}

/// The servers that stay up over all runs: those that get better with time. Sluice starts anew for each.
pub(super) struct Peers {
    pub(super) kafka: kafka::Kafka,
    client: kafka::Client,
    nats: nats::Nats,
    topics: u32,
    /// Messages a second of each peer's last run: NATS' clients are told how many to send, not how long.
    rates: BTreeMap<(Peer, u32, u32, u32), f64>,
    _folder: tempfile::TempDir,
}

impl Peers {
    pub(super) async fn start(bench: &Bench) -> anyhow::Result<Self> {
        let folder = bench.folder()?;
        let kafka = kafka::start(&bench.programs, &folder.path().join("kafka")).await?;
        let client = kafka::Client::start(&bench.programs, &kafka)?;
        let nats = nats::start(&bench.programs, &folder.path().join("nats")).await?;
        let mut peers = Self {
            kafka,
            client,
            nats,
            topics: 0,
            rates: BTreeMap::new(),
            _folder: folder,
        };
        // Java's compiler needs some load before it has done its work.
        let warm_up = Shape {
            size: 256,
            producers: 1,
            partitions: 16,
            rate: 0,
            seconds: bench.either(2.0, 8.0),
        };
        peers
            .run(bench, Peer::KafkaFlushed, warm_up, Tuning::USUAL)
            .await?;
        Ok(peers)
    }

    pub(super) async fn end(self) -> anyhow::Result<()> {
        self.client.end().await?;
        self.kafka.server.end().await?;
        self.nats.server.end().await
    }

    /// Creates a topic of Kafka.
    pub(super) async fn create(
        &mut self,
        name: &str,
        partitions: u32,
        is_flushed: bool,
    ) -> anyhow::Result<()> {
        let topic = kafka::Topic {
            name: name.to_owned(),
            partitions,
            is_flushed,
        };
        self.client.create(&topic).await
    }

    /// One run of one peer.
    pub(super) async fn run(
        &mut self,
        bench: &Bench,
        peer: Peer,
        shape: Shape,
        tuning: Tuning,
    ) -> anyhow::Result<Outcome> {
        settle().await?;
        match peer {
            Peer::Sluice => run_sluice(bench, shape, tuning).await,
            Peer::KafkaFlushed | Peer::KafkaDefault | Peer::KafkaPerformance => {
                self.topics += 1;
                let topic = kafka::Topic {
                    name: format!("bench-{}", self.topics),
                    partitions: shape.partitions,
                    is_flushed: peer != Peer::KafkaDefault,
                };
                self.client.create(&topic).await?;
                let outcome = self.run_kafka(bench, peer, shape, tuning).await;
                self.client.delete(&topic).await?;
                let outcome = outcome?;
                self.rates.insert(key(peer, shape), outcome.rate);
                Ok(outcome)
            }
            Peer::NatsAsync | Peer::NatsAtomic => self.run_nats(bench, peer, shape, tuning).await,
        }
    }

    async fn run_nats(
        &mut self,
        bench: &Bench,
        peer: Peer,
        shape: Shape,
        tuning: Tuning,
    ) -> anyhow::Result<Outcome> {
        let (way, window) = match peer {
            Peer::NatsAsync => (nats::Way::Async, tuning.window),
            _ => (nats::Way::Atomic, Tuning::USUAL.window),
        };
        let streams = shape.partitions;
        // At a few thousand messages a second, what all clients leave unacknowledged must not take longer to store than
        // they wait for it; and a server says "too many requests" to much more than 32,000. A batch is one request.
        let window = match peer {
            Peer::NatsAsync => window.min(8_000 / shape.producers),
            _ => window,
        };
        let all = self.messages(peer, shape, window);
        let load = nats::Load {
            way,
            clients: (shape.producers / streams).max(1),
            size: shape.size,
            messages: all / u64::from(streams),
            window,
            streams,
            rate: shape.rate,
        };
        let before = Used::now(bench, &self.nats.server, None)?;
        let printed = nats::publish(&bench.programs, &self.nats, load).await?;
        let used = before.until_now(bench, &self.nats.server)?;
        self.rates.insert(key(peer, shape), printed.rate);
        Ok(used.outcome(all as f64, printed.rate, printed.p50, printed.p99))
    }

    /// As many messages as fit into the time.
    fn messages(&self, peer: Peer, shape: Shape, window: u32) -> u64 {
        let first_guess = match peer {
            Peer::NatsAsync => 3000.0,
            Peer::NatsAtomic => 40_000.0,
            _ => 100_000.0,
        };
        let known = self.rates.get(&key(peer, shape)).copied();
        let rate = if shape.rate == 0 {
            known.unwrap_or(first_guess)
        } else {
            shape.rate as f64
        };
        // Each client sends a window or batch.
        let least = f64::from(window) * f64::from(shape.producers.max(shape.partitions));
        (rate * shape.seconds).max(least) as u64
    }

    /// On the newest topic.
    async fn run_kafka(
        &mut self,
        bench: &Bench,
        peer: Peer,
        shape: Shape,
        tuning: Tuning,
    ) -> anyhow::Result<Outcome> {
        let topic = format!("bench-{}", self.topics);
        let load = kafka::Load {
            producers: shape.producers,
            size: shape.size,
            rate: shape.rate,
            seconds: shape.seconds,
            linger_ms: tuning.linger_ms,
            // Of a thousand, each has little to put into one.
            batch: tuning.batch.min(16_384_000 / shape.producers),
        };
        let printed;
        let before;
        if peer == Peer::KafkaPerformance {
            let records = self.messages(peer, shape, 1);
            before = Used::now(bench, &self.kafka.server, None)?;
            printed =
                kafka::producer_performance(&bench.programs, &self.kafka, &topic, records, load).await?;
        } else {
            before = Used::now(bench, &self.kafka.server, Some(self.client.pid))?;
            printed = self.client.publish(&topic, load).await?;
        }
        let used = before.until_now(bench, &self.kafka.server)?;
        Ok(used.outcome(printed.records, printed.rate, printed.p50, printed.p99))
    }
}

fn key(peer: Peer, shape: Shape) -> (Peer, u32, u32, u32) {
    (peer, shape.size, shape.producers, shape.partitions)
}

async fn run_sluice(bench: &Bench, shape: Shape, tuning: Tuning) -> anyhow::Result<Outcome> {
    // Enough for some groups of them to be on their way to the disk at any time; at a fixed rate, as many as there are.
    let window = match shape.rate {
        0 => (tuning.sluice_window / shape.producers).max(64),
        _ => 16_384,
    };
    let folder = bench.folder()?;
    let settings = sluice::Settings {
        partitions: shape.partitions,
        is_memory: false,
    };
    let broker = sluice::start(&bench.programs, folder.path(), settings).await?;
    let before = Used::now(bench, &broker.server, None)?;
    let arguments = [
        "--mode=publish".to_owned(),
        format!("--rate={}", shape.rate),
        format!("--size={}", shape.size),
        format!("--publishers={}", shape.producers),
        format!("--window={window}"),
        sluice::FINE_TICK.to_owned(),
        format!("--duration={}ms", (shape.seconds * 1000.0) as u64),
    ];
    let limit = Duration::from_secs_f64(shape.seconds + 60.0);
    let summary = sluice::bench(&bench.programs, broker.address, &arguments, limit).await?;
    let used = before.until_now(bench, &broker.server)?;
    broker.server.end().await?;
    anyhow::ensure!(
        summary.unknown == 0,
        "{} messages were not acknowledged",
        summary.unknown
    );
    let (p50, p99) = summary
        .publish_latency
        .map_or((0.0, 0.0), |latency| (latency.p50, latency.p99));
    Ok(used.outcome(summary.acknowledged as f64, summary.acknowledged_rate, p50, p99))
}

/// What a run takes.
struct Used {
    server_cpu: f64,
    client_cpu: f64,
    /// The client, where it stays up; otherwise it is a child that has ended.
    client: Option<u32>,
    flushes: Option<u64>,
    at: std::time::Instant,
    seconds: f64,
    rss: u64,
}

impl Used {
    fn now(bench: &Bench, server: &Server, client: Option<u32>) -> anyhow::Result<Self> {
        Ok(Self {
            server_cpu: server.cpu_seconds()?,
            client_cpu: client_cpu(client)?,
            client,
            flushes: proc::flushes(bench.disk())?,
            at: std::time::Instant::now(),
            seconds: 0.0,
            rss: 0,
        })
    }

    fn until_now(self, bench: &Bench, server: &Server) -> anyhow::Result<Self> {
        let flushes = self.flushes.zip(proc::flushes(bench.disk())?);
        Ok(Self {
            server_cpu: server.cpu_seconds()? - self.server_cpu,
            client_cpu: client_cpu(self.client)? - self.client_cpu,
            client: self.client,
            flushes: flushes.map(|(before, after)| after.saturating_sub(before)),
            at: self.at,
            seconds: self.at.elapsed().as_secs_f64(),
            rss: proc::peak_rss(server.pid)?,
        })
    }

    fn outcome(&self, messages: f64, rate: f64, p50_micros: f64, p99_micros: f64) -> Outcome {
        Outcome {
            rate,
            p50_micros,
            p99_micros,
            flushes_a_second: self.flushes.map(|flushes| flushes as f64 / self.seconds),
            server_cpu_micros: self.server_cpu * 1e6 / messages.max(1.0),
            client_cpu_micros: self.client_cpu * 1e6 / messages.max(1.0),
            rss: self.rss,
        }
    }
}

fn client_cpu(client: Option<u32>) -> anyhow::Result<f64> {
    client.map_or_else(proc::ended_children_cpu_seconds, proc::cpu_seconds)
}
