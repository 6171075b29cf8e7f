//! Latency of durable publishing at one rate for all (P4).

use serde::Serialize;

use super::Bench;
use super::contenders::{Outcome, Peer, Peers, Shape, Tuning};
use super::durable::table;
use crate::bars::Bars;
use crate::report::Section;
use crate::stats::Spread;

const RATE: u64 = 20_000;

#[derive(Debug, Serialize)]
struct Point {
    peer: Peer,
    linger_ms: u32,
    runs: Vec<Outcome>,
}

pub(super) async fn measure(bench: &Bench, bars: &mut Bars) -> anyhow::Result<Section> {
    let shape = Shape {
        size: 256,
        producers: 1,
        partitions: 16,
        rate: RATE,
        seconds: bench.either(2.0, 4.0),
    };
    let point = |peer, linger_ms| Point {
        peer,
        linger_ms,
        runs: Vec::new(),
    };
    let mut points = [
        point(Peer::Sluice, 0),
        point(Peer::KafkaFlushed, 0),
        point(Peer::KafkaFlushed, 5),
        point(Peer::KafkaDefault, 0),
        point(Peer::NatsAtomic, 0),
    ];
    let mut peers = Peers::start(bench).await?;
    for _ in bench.rounds() {
        for point in &mut points {
            let tuning = Tuning {
                linger_ms: point.linger_ms,
                ..Tuning::USUAL
            };
            point
                .runs
                .push(peers.run(bench, point.peer, shape, tuning).await?);
        }
    }
    peers.end().await?;
    // A peer that falls behind was not measured at this rate.
    let keeps_up = |point: &Point| {
        let rate = Spread::of(point.runs.iter().map(|run| run.rate));
        rate.is_some_and(|rate| rate.median >= 0.95 * RATE as f64)
    };
    let p99 = |peer: Peer| {
        let of_peer = points
            .iter()
            .filter(move |point| point.peer == peer && keeps_up(point));
        let medians =
            of_peer.filter_map(|p| Some(Spread::of(p.runs.iter().map(|run| run.p99_micros))?.median));
        medians.min_by(f64::total_cmp)
    };
    if let (Some(ours), Some(theirs)) = (p99(Peer::Sluice), p99(Peer::KafkaFlushed)) {
        let what = format!("p99 at {RATE}/s / Kafka flush.messages=1's");
        bars.at_most("P4", &what, ours / theirs.max(1e-9), 0.3, "×");
        bars.whole("P4", 8);
    }
    let named = |point: &Point| match point.peer {
        Peer::KafkaFlushed | Peer::KafkaDefault => {
            format!("{}, linger {} ms", point.peer.name(), point.linger_ms)
        }
        _ => point.peer.name().to_owned(),
    };
    let rows: Vec<(String, &[Outcome])> = points.iter().map(|point| (named(point), &*point.runs)).collect();
    let text = format!(
        "### Durable publishing at {RATE}/s (P4)\n\n256 B, one producer, 16 partitions. Sluice's latencies count from the \
         intended time, Kafka's from the send call, in its favour. A peer that does not reach 95 % of the rate is not compared.\n\n{}",
        table(&rows)
    );
    Section::new(text).figures(&points)
}
