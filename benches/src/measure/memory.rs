//! What streams that are open and say nothing cost (P3).

use serde::Serialize;

use super::{Bench, handlers};
use crate::bars::Bars;
use crate::load::Loaded;
use crate::peers::handlers::Handler;
use crate::report::{Section, Table, spread};
use crate::stats::Spread;

const P3_CONNECTIONS: usize = 500;
const P3_STREAMS: usize = 100;

#[derive(Debug, Serialize)]
struct Point {
    handler: Handler,
    connections: usize,
    streams: usize,
    runs: Vec<Loaded>,
}

pub(super) async fn measure(bench: &Bench, bars: &mut Bars) -> anyhow::Result<Section> {
    let mut points = [Handler::Sluice, Handler::Go].map(|handler| Point {
        handler,
        connections: P3_CONNECTIONS,
        streams: P3_STREAMS,
        runs: Vec::new(),
    });
    for _ in bench.rounds() {
        for point in &mut points {
            let load = [
                ("connections", point.connections.to_string()),
                ("streams", point.streams.to_string()),
                ("rate", "0".to_owned()),
            ];
            point.runs.push(handlers::run(bench, point.handler, &load).await?);
        }
    }
    let mut table = Table::new(&[
        "server, connections × streams",
        "RSS MB before",
        "RSS MB open",
        "KB a connection",
        "KB a stream",
    ]);
    for point in &points {
        let of = |value: &dyn Fn(&Loaded) -> f64| spread(point.runs.iter().map(value));
        let kilobytes = |run: &Loaded| run.rss_open.saturating_sub(run.rss_before) as f64 / 1024.0;
        table.row(&[
            format!(
                "{}, {} × {}",
                point.handler.name(),
                point.connections,
                point.streams
            ),
            of(&|run| run.rss_before as f64 / 1e6),
            of(&|run| run.rss_open as f64 / 1e6),
            of(&|run| kilobytes(run) / run.connections as f64),
            of(&|run| kilobytes(run) / run.streams as f64),
        ]);
    }
    let ours = points.iter().find(|point| point.handler == Handler::Sluice);
    if let Some(one) =
        ours.and_then(|point| Spread::of(point.runs.iter().map(|run| run.rss_open as f64 / 1e6)))
    {
        bars.at_most(
            "P3",
            "RSS with 50,000 streams over 500 connections",
            one.median,
            300.0,
            " MB",
        );
        bars.whole("P3", 1);
    }
    let text = format!(
        "### Memory of open streams (P3)\n\nPublish streams that are open and idle.\n\n{}",
        table.text()
    );
    Section::new(text).figures(&points)
}
