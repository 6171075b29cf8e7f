//! Reading a backlog while publishing goes on, and starting again with a log of some size.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Bench, settle};
use crate::peers::sluice::{self, Settings};
use crate::report::{Plot, Section, Table, spread};
use crate::stats::Spread;

const SIZE: u64 = 1024;
const SETTINGS: Settings = Settings {
    partitions: 16,
    is_memory: false,
};

#[derive(Debug, Serialize)]
struct Recovery {
    messages: u64,
    seconds: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct CatchUp {
    backlog: u64,
    publish_rate: u64,
    delivered_a_second: f64,
    published_a_second: f64,
    publish_p99: f64,
}

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Section> {
    let sizes: &[u64] = bench.either(&[0, 100_000], &[0, 10_000, 100_000, 500_000]);
    let mut recoveries = Vec::new();
    for &messages in sizes {
        recoveries.push(recovery(bench, messages).await?);
    }
    let mut caught = Vec::new();
    for _ in bench.rounds() {
        caught.push(catch_up(bench, bench.either(200_000, 400_000)).await?);
    }
    let mut table = Table::new(&[
        "messages of 1 KB in the log",
        "seconds from start to first connection, after kill -9",
    ]);
    for one in &recoveries {
        table.row(&[one.messages.to_string(), spread(one.seconds.iter().copied())]);
    }
    let mut reading = Table::new(&[
        "backlog of 1 KB messages",
        "read/s",
        "published meanwhile/s",
        "its ack p99 ms",
    ]);
    let of = |value: fn(&CatchUp) -> f64| spread(caught.iter().map(value));
    reading.row(&[
        of(|one| one.backlog as f64),
        of(|one| one.delivered_a_second),
        of(|one| one.published_a_second),
        of(|one| one.publish_p99 / 1000.0),
    ]);
    let plot = Plot {
        name: "recovery".to_owned(),
        title: "Start after kill -9".to_owned(),
        x: "messages of 1 KB in the log",
        y: "seconds",
        series: vec![(
            "Sluice".to_owned(),
            recoveries
                .iter()
                .filter(|one| one.messages > 0)
                .filter_map(|one| {
                    Some((
                        one.messages as f64,
                        Spread::of(one.seconds.iter().copied())?.median,
                    ))
                })
                .collect(),
        )],
    };
    let text = format!(
        "### Recovery\n\n{}\n### Catching up while publishing goes on\n\nA new group reads from the beginning.\n\n{}",
        table.text(),
        reading.text()
    );
    Section::new(text).plot(plot).figures(&(recoveries, caught))
}

fn fill(messages: u64) -> Vec<String> {
    vec![
        "--mode=publish".to_owned(),
        "--rate=0".to_owned(),
        "--publishers=4".to_owned(),
        "--duration=120s".to_owned(),
        format!("--size={SIZE}"),
        format!("--messages={messages}"),
    ]
}

async fn recovery(bench: &Bench, messages: u64) -> anyhow::Result<Recovery> {
    let folder = bench.folder()?;
    let mut broker = sluice::start(&bench.programs, folder.path(), SETTINGS).await?;
    if messages > 0 {
        let limit = Duration::from_secs(180);
        let filled = sluice::bench(&bench.programs, broker.address, &fill(messages), limit).await?;
        anyhow::ensure!(
            filled.acknowledged == messages,
            "only {} were acknowledged",
            filled.acknowledged
        );
    }
    let mut seconds = Vec::new();
    for _ in 0..bench.either(3, 5) {
        broker.server.end().await?;
        let start = Instant::now();
        broker = sluice::start(&bench.programs, folder.path(), SETTINGS).await?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    broker.server.end().await?;
    Ok(Recovery { messages, seconds })
}

async fn catch_up(bench: &Bench, backlog: u64) -> anyhow::Result<CatchUp> {
    const RATE: u64 = 5000;
    settle().await?;
    let folder = bench.folder()?;
    let broker = sluice::start(&bench.programs, folder.path(), SETTINGS).await?;
    let limit = Duration::from_secs(180);
    sluice::bench(&bench.programs, broker.address, &fill(backlog), limit).await?;
    let seconds = bench.either(2, 3);
    let publishing = [
        "--mode=publish".to_owned(),
        format!("--rate={RATE}"),
        format!("--size={SIZE}"),
        format!("--duration={seconds}s"),
    ];
    let reading = [
        "--mode=subscribe".to_owned(),
        "--from=earliest".to_owned(),
        format!("--size={SIZE}"),
        format!("--duration={seconds}s"),
    ];
    let (published, read) = tokio::try_join!(
        sluice::bench(&bench.programs, broker.address, &publishing, limit),
        sluice::bench(&bench.programs, broker.address, &reading, limit)
    )?;
    broker.server.end().await?;
    Ok(CatchUp {
        backlog,
        publish_rate: RATE,
        // A lower bound, if it had read everything before the time was over.
        delivered_a_second: read.delivered as f64 / f64::from(seconds),
        published_a_second: published.acknowledged_rate,
        publish_p99: published.publish_latency.map_or(0.0, |latency| latency.p99),
    })
}
