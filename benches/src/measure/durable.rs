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
    #[serde(rename = "Kafka flush.messages=1, ProducerPerformance")]
    KafkaPerformance,
    #[serde(rename = "Kafka default (no fsync)")]
    KafkaDefault,
    #[serde(rename = "NATS async")]
    NatsAsync,
    #[serde(rename = "NATS atomic batches")]
    NatsAtomic,
}

impl Peer {
    const ALL: [Self; 6] = [
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
}

impl Tuning {
    /// Kafka's default linger with larger batches than its default; NATS' default window.
    pub(super) const USUAL: Self = Self {
        linger_ms: 5,
        batch: 65_536,
        window: 500,
    };
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
            Peer::Sluice => run_sluice(bench, shape).await,
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
    let before = Used::now(bench, &broker.server, None)?;
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

#[derive(Debug, Serialize)]
struct Point {
    peer: Peer,
    shape: Shape,
    runs: Vec<Outcome>,
    /// Runs that its clients ended with an error.
    failures: usize,
}

/// What each peer is measured at: wherever it may be at its best, and each number of producers and partitions once.
fn plan(bench: &Bench) -> Vec<(Peer, u32, u32, u32)> {
    use Peer::{KafkaDefault, KafkaFlushed, KafkaPerformance, NatsAsync, NatsAtomic, Sluice};
    if bench.quick {
        return vec![
            (Sluice, 256, 1, 1),
            (Sluice, 256, 64, 16),
            (Sluice, 256, 1000, 16),
            (KafkaFlushed, 256, 1, 16),
            (KafkaFlushed, 256, 64, 16),
            (KafkaFlushed, 256, 1000, 16),
            (KafkaDefault, 256, 1, 16),
            (NatsAsync, 256, 64, 1),
            (NatsAsync, 256, 1000, 1),
            (NatsAtomic, 256, 1, 1),
            (NatsAtomic, 256, 64, 16),
            (Sluice, 1024, 1, 16),
            (KafkaFlushed, 1024, 1, 16),
            (NatsAsync, 1024, 64, 1),
            (NatsAtomic, 1024, 1, 1),
        ];
    }
    let mut all = vec![
        (KafkaPerformance, 256, 1, 16),
        (KafkaDefault, 256, 1, 16),
        (Sluice, 1024, 1, 16),
        (Sluice, 1024, 64, 16),
        (Sluice, 1024, 1000, 16),
        (KafkaFlushed, 1024, 1, 16),
        (KafkaFlushed, 1024, 64, 16),
        (NatsAsync, 1024, 64, 1),
        (NatsAtomic, 1024, 1, 1),
        (NatsAtomic, 1024, 64, 1),
    ];
    for (producers, partitions) in [(1, 1), (1, 16), (64, 16), (1000, 16)] {
        all.extend([Sluice, KafkaFlushed].map(|peer| (peer, 256, producers, partitions)));
    }
    // A stream is NATS' unit of order, as a partition is ours.
    for (producers, partitions) in [(1, 1), (64, 1), (1000, 1), (64, 16)] {
        all.push((NatsAsync, 256, producers, partitions));
        // A batch of each of a thousand clients is half a million messages a run: too many for the time there is.
        if producers <= 64 {
            all.push((NatsAtomic, 256, producers, partitions));
        }
    }
    all.sort_by_key(|(peer, size, producers, partitions)| (*size, *producers, *partitions, *peer));
    all
}

/// The settings with which each peer's client is fastest, tried once each, and what was tried.
async fn sweep(bench: &Bench, peers: &mut Peers) -> anyhow::Result<(Tuning, String)> {
    let shape = |producers, partitions| Shape {
        size: 256,
        producers,
        partitions,
        rate: 0,
        seconds: 1.5,
    };
    let mut best = Tuning::USUAL;
    let (mut fastest, mut table) = (0.0, Table::new(&["client's settings", "messages/s"]));
    let lingers: &[u32] = bench.either(&[5], &[0, 5, 20]);
    for &linger_ms in lingers {
        for batch in [16_384, 65_536, 262_144] {
            let tuning = Tuning {
                linger_ms,
                batch,
                ..best
            };
            let rate = peers
                .run(bench, Peer::KafkaFlushed, shape(1, 16), tuning)
                .await?
                .rate;
            table.row(&[
                format!("Kafka flush.messages=1: linger {linger_ms} ms, batches of {batch} B"),
                spread([rate]),
            ]);
            if rate > fastest {
                fastest = rate;
                (best.linger_ms, best.batch) = (linger_ms, batch);
            }
        }
    }
    fastest = 0.0;
    for window in [100, 500, 2000] {
        let tuning = Tuning { window, ..best };
        let rate = peers.run(bench, Peer::NatsAsync, shape(1, 1), tuning).await?.rate;
        table.row(&[format!("NATS async: {window} unacknowledged"), spread([rate])]);
        if rate > fastest {
            fastest = rate;
            best.window = window;
        }
    }
    Ok((best, table.text()))
}

pub(super) async fn measure(bench: &Bench, bars: &mut Bars) -> anyhow::Result<Section> {
    let mut points: Vec<Point> = plan(bench)
        .into_iter()
        .map(|(peer, size, producers, partitions)| Point {
            peer,
            shape: Shape {
                size,
                producers,
                partitions,
                rate: 0,
                seconds: bench.either(1.5, 1.6),
            },
            runs: Vec::new(),
            failures: 0,
        })
        .collect();
    let mut peers = Peers::start(bench).await?;
    let (tuning, swept) = sweep(bench, &mut peers).await?;
    for _ in bench.rounds() {
        for point in &mut points {
            match peers.run(bench, point.peer, point.shape, tuning).await {
                Ok(outcome) => point.runs.push(outcome),
                // Its clients give up where it keeps them waiting; the other peers are measured all the same.
                Err(error) if matches!(point.peer, Peer::NatsAsync | Peer::NatsAtomic) => {
                    eprintln!("{}: {error:#}", point.peer.name());
                    point.failures += 1;
                }
                Err(error) => return Err(error),
            }
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
        let failed = match point.failures {
            0 => String::new(),
            failures => format!(" ({failures} runs failed)"),
        };
        format!(
            "{size} B, {producers} producers, {partitions} partitions: {}{failed}",
            point.peer.name()
        )
    };
    let rows: Vec<(String, &[Outcome])> = points.iter().map(|point| (named(point), &*point.runs)).collect();
    let text = format!(
        "### Durable publishing, as fast as it goes (P4)\n\nEach peer with its own client, set as was fastest here:\n\n{swept}\n\
         NATS has streams for want of partitions; the latencies of its clients are those of a whole window or batch.\n\n{}",
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
    Section::new(text).plot(plot).figures(&points)
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
