//! What connections and streams that are open and say nothing cost (P2, P3).

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
    let most = handlers::most_connections()?;
    let many = bench.either(most / 4, most);
    let shapes = [(many, 1), (P3_CONNECTIONS, P3_STREAMS)];
    let mut points = Vec::new();
    for (connections, streams) in shapes {
        for handler in Handler::ALL {
            let mut point = Point {
                handler,
                connections,
                streams,
                runs: Vec::new(),
            };
            for _ in 0..bench.either(1, 3) {
                let load = [
                    ("connections", connections.to_string()),
                    ("streams", streams.to_string()),
                    ("rate", "0".to_owned()),
                ];
                point.runs.push(handlers::run(bench, handler, &load).await?);
            }
            points.push(point);
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
    let of_sluice = |streams: usize| {
        points
            .iter()
            .find(move |p| p.handler == Handler::Sluice && p.streams == streams)
    };
    if let Some(one) = of_sluice(1).and_then(|point| {
        let slope = |run: &Loaded| {
            run.rss_open.saturating_sub(run.rss_before) as f64 / 1024.0 / run.connections as f64
        };
        Spread::of(point.runs.iter().map(slope))
    }) {
        bars.at_most("P2", "RSS a connection with one stream", one.median, 16.0, " KB");
        bars.note(
            "P2",
            &format!("slope over {many} connections; the stretch is 8.4 KB"),
        );
        bars.whole("P2", 1);
    }
    if let Some(one) = of_sluice(P3_STREAMS)
        .and_then(|point| Spread::of(point.runs.iter().map(|run| run.rss_open as f64 / 1e6)))
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
        "### Memory of open streams (P2, P3)\n\nPublish streams that are open and idle.\n\n{}",
        table.text()
    );
    Section::new("memory", text).figures(&points)
}
