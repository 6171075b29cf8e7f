//! Durable publishing as fast as it goes (P4).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Bench, settle};
use crate::bars::Bars;
use crate::peers::{kafka, nats, sluice};
use crate::proc;
use crate::process::Server;
use crate::report::{Plot, Section, Table, spread};
use crate::stats::Spread;

/// Who publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Peer {
    #[serde(rename = "Sluice")]
    Sluice,
    #[serde(rename = "Kafka flush.messages=1")]
    KafkaFlushed,
    #[serde(rename = "Kafka default (no fsync)")]
    KafkaDefault,
    #[serde(rename = "NATS async")]
    NatsAsync,
    #[serde(rename = "NATS atomic batches")]
    NatsAtomic,
}

impl Peer {
    const ALL: [Self; 5] = [
        Self::Sluice,
        Self::KafkaFlushed,
        Self::KafkaDefault,
        Self::NatsAsync,
        Self::NatsAtomic,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sluice => "Sluice",
            Self::KafkaFlushed => "Kafka flush.messages=1",
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

/// The servers that stay up over all runs: those that get better with time. Sluice starts anew for each.
pub(super) struct Peers {
    kafka: kafka::Kafka,
    nats: nats::Nats,
    topics: u32,
    /// Messages a second of each peer's last run: their clients are told how many to send, not how long.
    rates: BTreeMap<(Peer, u32, u32), f64>,
    _folder: tempfile::TempDir,
}

impl Peers {
    pub(super) async fn start(bench: &Bench) -> anyhow::Result<Self> {
        let folder = bench.folder()?;
        let kafka = kafka::start(&bench.programs, &folder.path().join("kafka")).await?;
        let nats = nats::start(&bench.programs, &folder.path().join("nats")).await?;
        let mut peers = Self {
            kafka,
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
            seconds: bench.either(1.5, 8.0),
        };
        peers.run(bench, Peer::KafkaFlushed, warm_up, 5).await?;
        Ok(peers)
    }

    pub(super) async fn end(self) -> anyhow::Result<()> {
        self.kafka.server.end().await?;
        self.nats.server.end().await
    }

    /// One run of one peer.
    pub(super) async fn run(
        &mut self,
        bench: &Bench,
        peer: Peer,
        shape: Shape,
        linger_ms: u32,
    ) -> anyhow::Result<Outcome> {
        settle().await?;
        match peer {
            Peer::Sluice => run_sluice(bench, shape).await,
            Peer::KafkaFlushed | Peer::KafkaDefault => {
                self.topics += 1;
                let topic = kafka::Topic {
                    name: format!("bench-{}", self.topics),
                    partitions: shape.partitions,
                    is_flushed: peer == Peer::KafkaFlushed,
                };
                kafka::create(&bench.programs, &self.kafka, &topic).await?;
                let records = self.messages(peer, shape);
                let load = kafka::Load {
                    records,
                    size: shape.size,
                    rate: shape.rate,
                    linger_ms,
                };
                let outcome = self.run_kafka(bench, &topic.name, load).await;
                kafka::delete(&bench.programs, &self.kafka, &topic).await?;
                if let Ok(outcome) = &outcome {
                    self.rates.insert(key(peer, shape), outcome.rate);
                }
                outcome
            }
            Peer::NatsAsync | Peer::NatsAtomic => {
                let load = nats::Load {
                    way: if peer == Peer::NatsAsync {
                        nats::Way::Async
                    } else {
                        nats::Way::Atomic
                    },
                    clients: shape.producers,
                    size: shape.size,
                    messages: self.messages(peer, shape),
                    rate: shape.rate,
                };
                let before = Used::now(bench, &self.nats.server)?;
                let printed = nats::publish(&bench.programs, &self.nats, load).await?;
                let used = before.until_now(bench, &self.nats.server)?;
                self.rates.insert(key(peer, shape), printed.rate);
                Ok(used.outcome(load.messages as f64, printed.rate, printed.p50, printed.p99))
            }
        }
    }

    /// As many messages as fit into the time.
    fn messages(&self, peer: Peer, shape: Shape) -> u64 {
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
        // A batch of NATS has 500, and each of its clients sends some of them.
        let least = 500.0 * f64::from(shape.producers);
        (rate * shape.seconds).max(least) as u64
    }

    async fn run_kafka(&self, bench: &Bench, topic: &str, load: kafka::Load) -> anyhow::Result<Outcome> {
        let before = Used::now(bench, &self.kafka.server)?;
        let printed = kafka::publish(&bench.programs, &self.kafka, topic, load).await?;
        let used = before.until_now(bench, &self.kafka.server)?;
        Ok(used.outcome(
            printed.records,
            printed.rate,
            printed.p50 * 1000.0,
            printed.p99 * 1000.0,
        ))
    }
}

fn key(peer: Peer, shape: Shape) -> (Peer, u32, u32) {
    (peer, shape.size, shape.producers)
}

/// Messages of a producer that are unacknowledged: enough for some groups of them to be on their way to the disk at any
/// time; at a fixed rate, as many as there are.
fn window(shape: Shape) -> u32 {
    match shape.rate {
        0 => (8192 / shape.producers).max(64),
        _ => 16_384,
    }
}

async fn run_sluice(bench: &Bench, shape: Shape) -> anyhow::Result<Outcome> {
    let folder = bench.folder()?;
    let settings = sluice::Settings {
        partitions: shape.partitions,
        is_memory: false,
    };
    let broker = sluice::start(&bench.programs, folder.path(), settings).await?;
    let before = Used::now(bench, &broker.server)?;
    let arguments = [
        "--mode=publish".to_owned(),
        format!("--rate={}", shape.rate),
        format!("--size={}", shape.size),
        format!("--publishers={}", shape.producers),
        format!("--window={}", window(shape)),
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
    flushes: Option<u64>,
    at: std::time::Instant,
    seconds: f64,
    rss: u64,
}

impl Used {
    fn now(bench: &Bench, server: &Server) -> anyhow::Result<Self> {
        Ok(Self {
            server_cpu: server.cpu_seconds()?,
            client_cpu: proc::ended_children_cpu_seconds()?,
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
            client_cpu: proc::ended_children_cpu_seconds()? - self.client_cpu,
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

#[derive(Debug, Serialize)]
struct Point {
    peer: Peer,
    shape: Shape,
    runs: Vec<Outcome>,
}

/// Kafka's benchmark is one producer in one JVM, which is its best client: producers of many threads share one.
fn can(peer: Peer, shape: Shape) -> bool {
    match peer {
        Peer::Sluice => true,
        Peer::KafkaFlushed | Peer::KafkaDefault => shape.producers == 1,
        Peer::NatsAsync | Peer::NatsAtomic => shape.producers <= 64 && shape.partitions == 1,
    }
}

pub(super) async fn measure(bench: &Bench, bars: &mut Bars) -> anyhow::Result<Section> {
    let seconds = bench.either(2.0, 4.0);
    let shape = |size, producers, partitions| Shape {
        size,
        producers,
        partitions,
        rate: 0,
        seconds,
    };
    let shapes = bench.either(
        vec![
            shape(256, 1, 1),
            shape(256, 1, 16),
            shape(256, 64, 1),
            shape(1024, 1, 16),
        ],
        vec![
            shape(256, 1, 1),
            shape(256, 1, 16),
            shape(256, 64, 1),
            shape(256, 64, 16),
            shape(256, 1000, 16),
            shape(1024, 1, 1),
            shape(1024, 1, 16),
            shape(1024, 64, 1),
            shape(1024, 64, 16),
            shape(1024, 1000, 16),
        ],
    );
    let mut points = Vec::new();
    for shape in shapes {
        for peer in Peer::ALL.into_iter().filter(|peer| can(*peer, shape)) {
            points.push(Point {
                peer,
                shape,
                runs: Vec::new(),
            });
        }
    }
    let mut peers = Peers::start(bench).await?;
    for _ in 0..bench.rounds() {
        for point in &mut points {
            point
                .runs
                .push(peers.run(bench, point.peer, point.shape, 5).await?);
        }
    }
    peers.end().await?;
    judge(&points, bars);
    let named = |point: &Point| {
        let Shape {
            size,
            producers,
            partitions,
            ..
        } = point.shape;
        format!(
            "{size} B, {producers} producers, {partitions} partitions: {}",
            point.peer.name()
        )
    };
    let rows: Vec<(String, &[Outcome])> = points.iter().map(|point| (named(point), &*point.runs)).collect();
    let text = format!(
        "### Durable publishing, as fast as it goes (P4)\n\nEach peer with its own client. NATS has no partitions. Kafka's \
         benchmark has one producer.\n\n{}",
        table(&rows)
    );
    let series = |peer: Peer| {
        let of_peer = points
            .iter()
            .filter(|p| p.peer == peer && p.shape.size == 256 && p.shape.producers == 1);
        let medians = of_peer.filter_map(|p| {
            Some((
                f64::from(p.shape.partitions),
                Spread::of(p.runs.iter().map(|run| run.rate))?.median,
            ))
        });
        (peer.name().to_owned(), medians.collect())
    };
    let plot = Plot {
        name: "durable-rate".to_owned(),
        title: "Durable publishing, 256 B, one producer".to_owned(),
        x: "partitions",
        y: "messages/s",
        series: Peer::ALL.map(series).into(),
    };
    Section::new("durable", text).plot(plot).figures(&points)
}

/// The table of some runs.
pub(super) fn table(rows: &[(String, &[Outcome])]) -> String {
    let mut table = Table::new(&[
        "",
        "messages/s",
        "p50 ms",
        "p99 ms",
        "flushes/s",
        "server CPU µs a message",
        "client CPU µs a message",
        "peak RSS MB",
    ]);
    for (name, runs) in rows {
        let of = |value: fn(&Outcome) -> f64| spread(runs.iter().map(value));
        table.row(&[
            name.clone(),
            of(|run| run.rate),
            of(|run| run.p50_micros / 1000.0),
            of(|run| run.p99_micros / 1000.0),
            spread(runs.iter().filter_map(|run| run.flushes_a_second)),
            of(|run| run.server_cpu_micros),
            of(|run| run.client_cpu_micros),
            of(|run| run.rss as f64 / 1e6),
        ]);
    }
    table.text()
}

/// Best against best: every peer at the number of producers and partitions that suits it most.
fn judge(points: &[Point], bars: &mut Bars) {
    let medians = |peer: Peer, size: u32, value: fn(&Outcome) -> f64| {
        let of_peer = points
            .iter()
            .filter(move |p| p.peer == peer && p.shape.size == size);
        of_peer.filter_map(move |p| Some(Spread::of(p.runs.iter().map(value))?.median))
    };
    let best = |peer, size| medians(peer, size, |run| run.rate).max_by(f64::total_cmp);
    let peers = [
        (Peer::KafkaFlushed, 1.5),
        (Peer::NatsAsync, 30.0),
        (Peer::NatsAtomic, 3.0),
    ];
    for size in [256, 1024] {
        for (peer, limit) in peers {
            if let (Some(ours), Some(theirs)) = (best(Peer::Sluice, size), best(peer, size)) {
                let what = format!("{size} B, best rate / {}'s best", peer.name());
                bars.at_least("P4", &what, ours / theirs, limit, "×");
            }
        }
    }
    let most = |peer| medians(peer, 256, |run| run.rss as f64).max_by(f64::total_cmp);
    if let (Some(ours), Some(theirs)) = (most(Peer::Sluice), most(Peer::KafkaFlushed)) {
        bars.at_most("P4", "256 B, peak RSS / Kafka's", ours / theirs, 0.1, "×");
    }
}
