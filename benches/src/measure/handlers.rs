//! The article's handler: many streams, a connection each, small messages at a fixed rate (P1).

use std::time::Duration;

use serde::Serialize;
use tokio::process::Command;

use super::Bench;
use crate::bars::Bars;
use crate::load::Loaded;
use crate::peers::handlers::Handler;
use crate::processors::{Share, on};
use crate::report::{Plot, Section, Table, spread};
use crate::stats::Spread;
use crate::{proc, process};

/// Files that a server needs besides its connections.
const SPARE: u64 = 1000;
/// Local ports for connections to one address are bounded as well.
const MOST_CONNECTIONS: u64 = 18_000;

type Figure = fn(&Loaded) -> f64;

#[derive(Debug, Serialize)]
struct Point {
    handler: Handler,
    connections: usize,
    rate: u64,
    runs: Vec<Loaded>,
}

/// The most connections that fit.
pub(super) fn most_connections() -> anyhow::Result<usize> {
    Ok((proc::most_open_files()?.saturating_sub(SPARE)).min(MOST_CONNECTIONS) as usize)
}

/// Starts a server, runs a load in a process of its own, and ends the server.
pub(super) async fn run(bench: &Bench, handler: Handler, load: &[(&str, String)]) -> anyhow::Result<Loaded> {
    let folder = bench.folder()?;
    let (server, address) = handler.start(&bench.programs, folder.path()).await?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["load", "--protocol", handler.protocol()])
        .arg(format!("--address={address}"))
        .arg(format!("--pid={}", server.pid));
    for (name, value) in load {
        command.arg(format!("--{name}={value}"));
    }
    let running = on(Share::Load, || {
        Ok(process::output(&mut command, Duration::from_secs(180)))
    })?;
    let text = running.await?;
    server.end().await?;
    Ok(serde_json::from_str(&text)?)
}

pub(super) async fn measure(bench: &Bench, bars: &mut Bars) -> anyhow::Result<Section> {
    let most = most_connections()?;
    let grid: Vec<(usize, u64)> = bench.either(
        vec![(100, 10_000), (most / 6, 10_000)],
        vec![(100, 10_000), (1000, 30_000), (most, 10_000)],
    );
    let seconds = bench.either(2.0, 2.5);
    let mut points: Vec<Point> = Vec::new();
    for &(connections, rate) in &grid {
        for handler in Handler::ALL {
            // What stock tonic shows is what a connection costs.
            if handler == Handler::Tonic && grid.last() != Some(&(connections, rate)) {
                continue;
            }
            points.push(Point {
                handler,
                connections,
                rate,
                runs: Vec::new(),
            });
        }
    }
    for _ in bench.rounds() {
        for point in &mut points {
            // Every stream has sent a message before the measurement begins: the first is not like the others.
            let warm_up = 0.5 + point.connections as f64 / point.rate as f64;
            let load = [
                ("connections", point.connections.to_string()),
                ("rate", point.rate.to_string()),
                ("seconds", seconds.to_string()),
                ("warm-up", warm_up.to_string()),
            ];
            point.runs.push(run(bench, point.handler, &load).await?);
        }
    }
    judge(&points, bars);
    let mut table = Table::new(&[
        "server, connections × messages/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "RSS MB",
        "KB a connection",
        "CPU µs a message",
        "unanswered",
        "generator p50 / p99 µs",
    ]);
    for point in &points {
        let of = |value: fn(&Loaded) -> f64| spread(point.runs.iter().map(value));
        table.row(&[
            format!("{}, {} × {}", point.handler.name(), point.connections, point.rate),
            of(|run| run.p50),
            of(|run| run.p99),
            of(|run| run.p999),
            of(|run| run.rss_loaded as f64 / 1e6),
            of(per_connection),
            of(cpu),
            of(|run| run.missing as f64),
            format!(
                "{} / {}",
                of(|run| run.generator_p50),
                of(|run| run.generator_p99)
            ),
        ]);
    }
    let text = format!(
        "### The article's handler (P1, P2)\n\n256-byte payloads over one stream a connection, each acknowledged. Every stream has sent before the measurement begins. Memory of a connection is that before the load begins.\n\n{}",
        table.text()
    );
    let plot = |name: &str, title: &str, y, value: fn(&Loaded) -> f64| Plot {
        name: name.to_owned(),
        title: title.to_owned(),
        x: "connections",
        y,
        series: Handler::ALL
            .iter()
            .map(|handler| {
                let of_handler = points
                    .iter()
                    .filter(|p| p.handler == *handler && p.rate == 10_000);
                let medians = of_handler.filter_map(|p| {
                    Some((p.connections as f64, Spread::of(p.runs.iter().map(value))?.median))
                });
                (handler.name().to_owned(), medians.collect())
            })
            .collect(),
    };
    let section = Section::new(text)
        .plot(plot(
            "handler-p99",
            "Ack latency, p99, 10,000 messages/s",
            "µs",
            |run| run.p99,
        ))
        .plot(plot("handler-rss", "Memory of the server", "MB", |run| {
            run.rss_loaded as f64 / 1e6
        }));
    section.figures(&points)
}

fn per_connection(run: &Loaded) -> f64 {
    run.rss_open.saturating_sub(run.rss_before) as f64 / 1024.0 / run.connections as f64
}

fn cpu(run: &Loaded) -> f64 {
    run.cpu_seconds * 1e6 / run.messages.max(1) as f64
}

/// The bar is judged at the most connections.
fn judge(points: &[Point], bars: &mut Bars) {
    let Some(last) = points.last() else { return };
    let (connections, rate) = (last.connections, last.rate);
    let median = |handler: Handler, value: fn(&Loaded) -> f64| {
        let point = points
            .iter()
            .find(|p| p.handler == handler && (p.connections, p.rate) == (connections, rate))?;
        Some(Spread::of(point.runs.iter().map(value))?.median)
    };
    let figures: [(&str, f64, Figure); 4] = [
        ("p50", 0.5, |run| run.p50),
        ("p99", 0.6, |run| run.p99),
        ("RSS", 0.3, |run| run.rss_loaded as f64),
        ("CPU", 0.6, |run| run.cpu_seconds),
    ];
    for (name, limit, value) in figures {
        if let (Some(ours), Some(theirs)) = (median(Handler::Sluice, value), median(Handler::Go, value)) {
            bars.at_most(
                "P1",
                &format!("{name} / grpc-go's"),
                ours / theirs.max(1e-9),
                limit,
                "×",
            );
        }
    }
    bars.note("P1", &format!("{connections} connections, {rate} messages/s"));
    bars.whole("P1", 4);
    // Its connections are open before its load begins.
    if let Some(slope) = median(Handler::Sluice, per_connection) {
        bars.at_most("P2", "RSS a connection with one stream", slope, 16.0, " KB");
        bars.note(
            "P2",
            &format!("slope over {connections} connections; the stretch is 8.4 KB"),
        );
        bars.whole("P2", 1);
    }
}
