//! From publish to delivery, at parts of the highest rate (P5).

use std::time::Duration;

use serde::Serialize;

use super::{Bench, settle};
use crate::bars::{Bars, figure};
use crate::peers::sluice::{self, Settings, Summary};
use crate::processors::{Share, on};
use crate::report::{Plot, Section, Table, spread};
use crate::stats::Spread;

/// What is opened and joined in this time is not what is asked here.
const WARM_UP: Duration = Duration::from_millis(500);
const PARTS: [f64; 3] = [0.2, 0.5, 0.8];

#[derive(Debug, Serialize)]
struct Run {
    maximum: f64,
    rate: f64,
    publish_p50: f64,
    publish_p99: f64,
    delivery_p50: f64,
    delivery_p99: f64,
}

#[derive(Debug, Serialize)]
struct Point {
    is_memory: bool,
    part: f64,
    runs: Vec<Run>,
}

async fn load(bench: &Bench, is_memory: bool, rate: u64, seconds: f64) -> anyhow::Result<Summary> {
    settle().await?;
    let folder = bench.folder()?;
    let settings = Settings {
        partitions: 16,
        is_memory,
    };
    let broker = sluice::start_apart(&bench.programs, folder.path(), settings).await?;
    let arguments = [
        "--publishers=4".to_owned(),
        format!("--rate={rate}"),
        format!("--duration={}ms", (seconds * 1000.0) as u64),
        format!("--warm-up={}ms", WARM_UP.as_millis()),
        sluice::FINE_TICK.to_owned(),
    ];
    let limit = Duration::from_secs_f64(seconds + 90.0);
    let running = on(Share::Load, || {
        Ok(sluice::bench(&bench.programs, broker.address, &arguments, limit))
    })?;
    let summary = running.await?;
    broker.server.end().await?;
    Ok(summary)
}

pub(super) async fn measure(bench: &Bench, bars: &mut Bars) -> anyhow::Result<Section> {
    let seconds = bench.either(2.0, 2.5);
    let mut points = Vec::new();
    for is_memory in [false, true] {
        for part in PARTS {
            points.push(Point {
                is_memory,
                part,
                runs: Vec::new(),
            });
        }
    }
    for _ in bench.rounds() {
        for is_memory in [false, true] {
            let fastest = load(bench, is_memory, 0, seconds).await?;
            // Delivered as well as published: what both keep up with.
            let maximum = fastest.acknowledged_rate;
            for point in points.iter_mut().filter(|point| point.is_memory == is_memory) {
                let rate = (maximum * point.part) as u64;
                let summary = load(bench, is_memory, rate.max(1), seconds).await?;
                let of =
                    |latency: Option<sluice::Percentiles>| latency.map_or((0.0, 0.0), |l| (l.p50, l.p99));
                let (publish, delivery) = (of(summary.publish_latency), of(summary.delivery_latency));
                anyhow::ensure!(summary.delivered > 0, "nothing was delivered");
                point.runs.push(Run {
                    maximum,
                    rate: summary.acknowledged_rate,
                    publish_p50: publish.0,
                    publish_p99: publish.1,
                    delivery_p50: delivery.0,
                    delivery_p99: delivery.1,
                });
            }
        }
    }
    for point in points.iter().filter(|point| (point.part - 0.5).abs() < 1e-9) {
        if let Some(p99) = Spread::of(point.runs.iter().map(|run| run.delivery_p99 / 1000.0)) {
            let (name, limit) = if point.is_memory {
                ("memory", 2.0)
            } else {
                ("durable", 10.0)
            };
            bars.at_most(
                "P5",
                &format!("publish→deliver p99 at half load, {name}"),
                p99.median,
                limit,
                " ms",
            );
        }
    }
    bars.whole("P5", 2);
    let mut table = Table::new(&[
        "durability, part of the maximum",
        "maximum/s",
        "messages/s",
        "ack p50 ms",
        "ack p99 ms",
        "delivery p50 ms",
        "delivery p99 ms",
    ]);
    for point in &points {
        let of = |value: fn(&Run) -> f64| spread(point.runs.iter().map(value));
        table.row(&[
            format!("{}, {} %", name(point.is_memory), figure(point.part * 100.0)),
            of(|run| run.maximum),
            of(|run| run.rate),
            of(|run| run.publish_p50 / 1000.0),
            of(|run| run.publish_p99 / 1000.0),
            of(|run| run.delivery_p50 / 1000.0),
            of(|run| run.delivery_p99 / 1000.0),
        ]);
    }
    let series = |is_memory: bool| {
        let of = points.iter().filter(|point| point.is_memory == is_memory);
        let medians = of.filter_map(|point| {
            let p99 = Spread::of(point.runs.iter().map(|run| run.delivery_p99 / 1000.0))?;
            Some((point.part * 100.0, p99.median))
        });
        (name(is_memory).to_owned(), medians.collect())
    };
    let plot = Plot {
        name: "delivery-p99".to_owned(),
        title: "From publish to delivery, p99".to_owned(),
        x: "% of the maximum rate",
        y: "ms",
        series: [false, true].map(series).into(),
    };
    let text = format!(
        "### From publish to delivery (P5)\n\n256 B, 4 publishers, one subscriber that checks every message, 16 partitions; the broker and the load each \
         have processors of their own (the load the last one); the maximum is what is published and delivered as fast as it goes. Messages are handed over every 500 µs. The first {} ms of each run are left out.\n\n{}",
        WARM_UP.as_millis(),
        table.text()
    );
    Section::new(text).plot(plot).figures(&points)
}

fn name(is_memory: bool) -> &'static str {
    if is_memory { "memory" } else { "durable" }
}
