//! From one to many streams, and from one to many partitions.

use std::time::Duration;

use serde::Serialize;

use super::{Bench, handlers, settle};
use crate::load::Loaded;
use crate::peers::handlers::Handler;
use crate::peers::sluice::{self, Settings};
use crate::report::{Plot, Section, Table, spread};
use crate::stats::Spread;

/// Streams of one connection, at most.
const STREAMS: usize = 100;

#[derive(Debug, Serialize)]
struct Streams {
    streams: usize,
    runs: Vec<Loaded>,
}

#[derive(Debug, Serialize)]
struct Partitions {
    partitions: u32,
    rates: Vec<f64>,
    p99: Vec<f64>,
    rss: Vec<f64>,
}

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Section> {
    let seconds = bench.either(1.0, 1.5);
    let counts: &[usize] = &[1, 100, 10_000];
    let mut streams = Vec::new();
    for &count in counts {
        let mut one = Streams {
            streams: count,
            runs: Vec::new(),
        };
        for _ in bench.rounds() {
            let load = [
                ("connections", count.div_ceil(STREAMS).to_string()),
                ("streams", count.min(STREAMS).to_string()),
                ("rate", "10000".to_owned()),
                ("seconds", seconds.to_string()),
                ("warm-up", "0.5".to_owned()),
            ];
            one.runs.push(handlers::run(bench, Handler::Sluice, &load).await?);
        }
        streams.push(one);
    }
    let counts: &[u32] = &[1, 100, 1000];
    let mut partitions = Vec::new();
    for &count in counts {
        let mut one = Partitions {
            partitions: count,
            rates: Vec::new(),
            p99: Vec::new(),
            rss: Vec::new(),
        };
        for _ in bench.rounds() {
            run(bench, &mut one, seconds).await?;
        }
        partitions.push(one);
    }
    section(&streams, &partitions)
}

async fn run(bench: &Bench, one: &mut Partitions, seconds: f64) -> anyhow::Result<()> {
    settle().await?;
    let folder = bench.folder()?;
    let settings = Settings {
        partitions: one.partitions,
        is_memory: false,
    };
    let broker = sluice::start(&bench.programs, folder.path(), settings).await?;
    let arguments = [
        "--mode=publish".to_owned(),
        "--rate=0".to_owned(),
        "--publishers=4".to_owned(),
        format!("--duration={}ms", (seconds * 1000.0) as u64),
    ];
    let limit = Duration::from_secs(90);
    let summary = sluice::bench(&bench.programs, broker.address, &arguments, limit).await?;
    one.rates.push(summary.acknowledged_rate);
    one.p99
        .push(summary.publish_latency.map_or(0.0, |latency| latency.p99));
    one.rss.push(broker.server.rss()? as f64);
    broker.server.end().await
}

fn section(streams: &[Streams], partitions: &[Partitions]) -> anyhow::Result<Section> {
    let mut by_streams = Table::new(&[
        "streams",
        "ack p50 µs",
        "ack p99 µs",
        "CPU µs a message",
        "RSS MB",
    ]);
    for one in streams {
        let of = |value: fn(&Loaded) -> f64| spread(one.runs.iter().map(value));
        by_streams.row(&[
            one.streams.to_string(),
            of(|run| run.p50),
            of(|run| run.p99),
            of(|run| run.cpu_seconds * 1e6 / run.messages.max(1) as f64),
            of(|run| run.rss_loaded as f64 / 1e6),
        ]);
    }
    let mut by_partitions = Table::new(&["partitions", "messages/s", "ack p99 ms", "RSS MB"]);
    for one in partitions {
        by_partitions.row(&[
            one.partitions.to_string(),
            spread(one.rates.iter().copied()),
            spread(one.p99.iter().map(|micros| micros / 1000.0)),
            spread(one.rss.iter().map(|bytes| bytes / 1e6)),
        ]);
    }
    let text = format!(
        "### Growth\n\nDurability Memory, 10,000 messages/s of 256 B over so many streams, up to {STREAMS} on a \
         connection:\n\n{}\nDurable, as fast as it goes, 4 publishers, 256 B:\n\n{}",
        by_streams.text(),
        by_partitions.text()
    );
    let median = |values: Vec<f64>| Spread::of(values).map_or(0.0, |spread| spread.median);
    let plot = |name: &str, title: &str, x, y, points| Plot {
        name: name.to_owned(),
        title: title.to_owned(),
        x,
        y,
        series: vec![("Sluice".to_owned(), points)],
    };
    let p99s = streams.iter().map(|one| {
        (
            one.streams as f64,
            median(one.runs.iter().map(|run| run.p99).collect()),
        )
    });
    let rates = partitions
        .iter()
        .map(|one| (f64::from(one.partitions), median(one.rates.clone())));
    Section::new(text)
        .plot(plot(
            "growth-streams",
            "Ack p99 by streams",
            "streams",
            "µs",
            p99s.collect(),
        ))
        .plot(plot(
            "growth-partitions",
            "Durable rate by partitions",
            "partitions",
            "messages/s",
            rates.collect(),
        ))
        .figures(&(streams, partitions))
}
