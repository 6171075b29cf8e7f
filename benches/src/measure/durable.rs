//! Durable publishing as fast as it goes (P4).

use std::collections::BTreeMap;

use serde::Serialize;

use super::Bench;
use super::contenders::{Outcome, Peer, Peers, Shape, Tuning};
use crate::bars::Bars;
use crate::report::{Plot, Section, Table, spread};
use crate::stats::Spread;

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
        (Sluice, 1024, 1, 1),
        (Sluice, 1024, 1, 16),
        (Sluice, 1024, 64, 16),
        (Sluice, 1024, 1000, 16),
        (KafkaFlushed, 1024, 1, 1),
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

/// The settings with which each peer's client is fastest with messages of this size, tried once each; what was tried goes into `table`.
async fn sweep(bench: &Bench, peers: &mut Peers, size: u32, table: &mut Table) -> anyhow::Result<Tuning> {
    let shape = |producers, partitions| Shape {
        size,
        producers,
        partitions,
        rate: 0,
        seconds: 1.5,
    };
    let usual = Tuning::USUAL;
    let lingers: &[u32] = bench.either(&[5], &[0, 5, 20]);
    let kafka = lingers.iter().flat_map(|&linger_ms| {
        [16_384, 65_536, 262_144].map(|batch| {
            let name = format!("Kafka flush.messages=1: linger {linger_ms} ms, batches of {batch} B");
            let tuning = Tuning {
                linger_ms,
                batch,
                ..usual
            };
            (name, tuning)
        })
    });
    let nats = [100, 500, 2000].map(|window| {
        let name = format!("NATS async: {window} unacknowledged");
        (name, Tuning { window, ..usual })
    });
    let sluice = [8192, 32_768, 131_072].map(|sluice_window| {
        let name = format!("Sluice: {sluice_window} unacknowledged of 64 producers");
        let tuning = Tuning {
            sluice_window,
            ..usual
        };
        (name, tuning)
    });
    let sweeps = [
        (Peer::KafkaFlushed, shape(1, 16), kafka.collect()),
        (Peer::NatsAsync, shape(1, 1), Vec::from(nats)),
        (Peer::Sluice, shape(64, 16), Vec::from(sluice)),
    ];
    let mut best = usual;
    for (peer, shape, tunings) in sweeps {
        let mut fastest = 0.0;
        for (name, tuning) in tunings {
            let rate = peers.run(bench, peer, shape, tuning).await?.rate;
            table.row(&[format!("{size} B, {name}"), spread([rate])]);
            if rate > fastest {
                fastest = rate;
                best.take(peer, tuning);
            }
        }
    }
    Ok(best)
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
    let mut swept = Table::new(&["client's settings", "messages/s"]);
    let mut tunings = BTreeMap::new();
    for size in bench.either(&[256][..], &[256, 1024]) {
        tunings.insert(*size, sweep(bench, &mut peers, *size, &mut swept).await?);
    }
    let usual = tunings[&256];
    for _ in bench.rounds() {
        for point in &mut points {
            let tuning = *tunings.get(&point.shape.size).unwrap_or(&usual);
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
        "### Durable publishing, as fast as it goes (P4)\n\nEach peer with its own client, set as was fastest here with messages of the same size:\n\n{}\n\
         NATS has streams for want of partitions; the latencies of its clients are those of a whole window or batch.\n\n{}",
        swept.text(),
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
