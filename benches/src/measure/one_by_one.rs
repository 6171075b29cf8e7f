//! From publish to delivery with one message on its way at a time, as Kafka's own EndToEndLatency measures it.

use std::time::Duration;

use serde::Serialize;

use super::contenders::Peers;
use super::{Bench, settle};
use crate::peers::kafka;
use crate::peers::sluice::{self, Settings};
use crate::report::{Section, Table, spread};

const SIZE: u32 = 256;

#[derive(Debug, Default, Serialize)]
struct Runs {
    p50_millis: Vec<f64>,
    p99_millis: Vec<f64>,
}

impl Runs {
    fn push(&mut self, (p50, p99): (f64, f64)) {
        self.p50_millis.push(p50);
        self.p99_millis.push(p99);
    }
}

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Section> {
    let messages = bench.either(500, 2000);
    let mut peers = Peers::start(bench).await?;
    let topics = [("end-to-end-flushed", true), ("end-to-end-default", false)];
    for (name, is_flushed) in topics {
        peers.create(name, 1, is_flushed).await?;
    }
    let (mut ours, mut flushed, mut by_default) = (Runs::default(), Runs::default(), Runs::default());
    for _ in bench.rounds() {
        ours.push(run(bench, messages).await?);
        for ((name, _), runs) in topics.iter().zip([&mut flushed, &mut by_default]) {
            settle().await?;
            runs.push(kafka::end_to_end(&bench.programs, &peers.kafka, name, messages, SIZE).await?);
        }
    }
    peers.end().await?;
    let rows = [
        ("Sluice", &ours),
        ("Kafka flush.messages=1", &flushed),
        ("Kafka default (no fsync)", &by_default),
    ];
    let mut table = Table::new(&["", "p50 ms", "p99 ms"]);
    for (name, runs) in rows {
        table.row(&[
            name.to_owned(),
            spread(runs.p50_millis.iter().copied()),
            spread(runs.p99_millis.iter().copied()),
        ]);
    }
    let text = format!(
        "### From publish to delivery, one message at a time\n\n{messages} messages of {SIZE} B, one partition. Sluice sends the next \
         one when the one before is acknowledged, Kafka when it has arrived as well. Kafka's EndToEndLatency prints whole milliseconds.\n\n{}",
        table.text()
    );
    Section::new(text).figures(&rows)
}

/// p50 and p99 in milliseconds.
async fn run(bench: &Bench, messages: u64) -> anyhow::Result<(f64, f64)> {
    settle().await?;
    let folder = bench.folder()?;
    let settings = Settings {
        partitions: 1,
        is_memory: false,
    };
    let broker = sluice::start(&bench.programs, folder.path(), settings).await?;
    let arguments = [
        "--rate=0".to_owned(),
        "--publishers=1".to_owned(),
        "--window=1".to_owned(),
        "--batch=1".to_owned(),
        format!("--size={SIZE}"),
        format!("--messages={messages}"),
        "--duration=30s".to_owned(),
    ];
    let summary = sluice::bench(
        &bench.programs,
        broker.address,
        &arguments,
        Duration::from_secs(90),
    )
    .await?;
    broker.server.end().await?;
    anyhow::ensure!(summary.delivered > 0, "nothing was delivered");
    let latency = summary.delivery_latency;
    Ok(latency.map_or((0.0, 0.0), |latency| (latency.p50 / 1000.0, latency.p99 / 1000.0)))
}
