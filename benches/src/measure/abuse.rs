//! A consumer that stalls beside a publisher that floods (P6).

use std::net::SocketAddr;
use std::time::Duration;

use ::sluice::pb::broker_client::BrokerClient;
use ::sluice::pb::subscribe_request::Request;
use ::sluice::pb::{ConsumerCredit, StartPosition, SubscribeOpen, SubscribeRequest, start_position};
use anyhow::Context as _;
use serde::Serialize;
use tonic::transport::Endpoint;

use super::{Bench, settle};
use crate::bars::Bars;
use crate::peers::sluice::{self, Settings};
use crate::proc;
use crate::report::{Section, Table, spread};
use crate::stats::Spread;

/// Of messages that are not committed yet: the broker's default.
const MAX_INFLIGHT: u64 = 256 << 20;
const ROOM: u64 = 64 << 20;
const VICTIM_RATE: u64 = 1000;

#[derive(Debug, Serialize)]
struct Flood {
    size: u32,
    alone_p99: f64,
    beside_p99: f64,
    victim_reconnects: u64,
    flood_rate: f64,
    flood_reconnects: u64,
    peak_rss: u64,
}

pub(super) async fn measure(bench: &Bench, bars: &mut Bars) -> anyhow::Result<Section> {
    let mut floods: Vec<Flood> = Vec::new();
    for _ in bench.rounds() {
        for size in [64, 1024] {
            floods.push(flood(bench, size).await?);
        }
    }
    judge_floods(&floods, bars);
    let mut table = Table::new(&[
        "message size",
        "others' p99 alone ms",
        "others' p99 beside it ms",
        "flood/s",
        "connections lost",
        "peak RSS MB",
    ]);
    for size in [64, 1024] {
        let of = |value: fn(&Flood) -> f64| spread(floods.iter().filter(|one| one.size == size).map(value));
        table.row(&[
            format!("{size} B"),
            of(|one| one.alone_p99 / 1000.0),
            of(|one| one.beside_p99 / 1000.0),
            of(|one| one.flood_rate),
            of(|one| (one.flood_reconnects + one.victim_reconnects) as f64),
            of(|one| one.peak_rss as f64 / 1e6),
        ]);
    }
    let text = format!(
        "### A stalled consumer and a flood (P6)\n\nA consumer grants credit without end and reads nothing; a publisher goes as fast as credit \
         allows; another client publishes and receives {VICTIM_RATE}/s on a topic of its own.\n\n{}",
        table.text()
    );
    Section::new(text).figures(&floods)
}

fn judge_floods(floods: &[Flood], bars: &mut Bars) {
    for size in [64, 1024] {
        let of_size = || floods.iter().filter(move |one| one.size == size);
        let median =
            |values: &mut dyn Iterator<Item = f64>| Spread::of(values).map_or(0.0, |spread| spread.median);
        let p99 = median(&mut of_size().map(|one| one.beside_p99 / one.alone_p99.max(1.0)));
        let most = of_size()
            .map(|one| one.peak_rss as f64 / f64::from(1 << 20))
            .fold(0.0, f64::max);
        let lost: u64 = of_size()
            .map(|one| one.flood_reconnects + one.victim_reconnects)
            .sum();
        bars.at_most("P6", &format!("{size} B, connections lost"), lost as f64, 0.0, "");
        bars.at_most(
            "P6",
            &format!("{size} B, peak RSS"),
            most,
            ((MAX_INFLIGHT + ROOM) >> 20) as f64,
            " MiB",
        );
        bars.at_most("P6", &format!("{size} B, others' p99 / alone"), p99, 2.0, "×");
    }
    bars.whole("P6", 6);
}

async fn flood(bench: &Bench, size: u32) -> anyhow::Result<Flood> {
    settle().await?;
    let folder = bench.folder()?;
    let settings = Settings {
        partitions: 16,
        is_memory: false,
    };
    let broker = sluice::start(&bench.programs, folder.path(), settings).await?;
    let seconds = bench.either(2, 3);
    let limit = Duration::from_secs(90);
    let victim = [
        format!("--topic={}", sluice::OTHER_TOPIC),
        format!("--rate={VICTIM_RATE}"),
        format!("--duration={seconds}s"),
    ];
    let flooding = [
        format!("--topic={}", sluice::TOPIC),
        "--mode=publish".to_owned(),
        "--rate=0".to_owned(),
        format!("--size={size}"),
        format!("--duration={}s", seconds + 1),
    ];
    let alone = sluice::bench(&bench.programs, broker.address, &victim, limit).await?;
    let stalled = stalled_consumer(broker.address).await?;
    let (beside, flood) = tokio::try_join!(
        sluice::bench(&bench.programs, broker.address, &victim, limit),
        sluice::bench(&bench.programs, broker.address, &flooding, limit)
    )?;
    drop(stalled);
    let peak_rss = proc::peak_rss(broker.server.pid)?;
    broker.server.end().await?;
    let p99 = |summary: &sluice::Summary| summary.publish_latency.map(|latency| latency.p99);
    Ok(Flood {
        size,
        alone_p99: p99(&alone).context("nothing was acknowledged")?,
        beside_p99: p99(&beside).context("nothing was acknowledged")?,
        victim_reconnects: beside.reconnects,
        flood_rate: flood.acknowledged_rate,
        flood_reconnects: flood.reconnects,
        peak_rss,
    })
}

/// A consumer that is given everything and reads nothing but the welcome.
async fn stalled_consumer(address: SocketAddr) -> anyhow::Result<impl Sized> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await?;
    let requests = [
        Request::Open(SubscribeOpen {
            topic: sluice::TOPIC.to_owned(),
            group: "stalled".to_owned(),
            start: Some(StartPosition {
                start: Some(start_position::Start::Earliest(true)),
            }),
            direct: true,
            ..SubscribeOpen::default()
        }),
        Request::Credit(ConsumerCredit {
            messages: u64::from(u32::MAX),
            bytes: 1 << 40,
        }),
    ];
    let requests = requests.map(|request| SubscribeRequest {
        request: Some(request),
    });
    let (keep, rest) = tokio::sync::mpsc::channel::<SubscribeRequest>(1);
    let requests = futures::StreamExt::chain(
        futures::stream::iter(requests),
        tokio_stream::wrappers::ReceiverStream::new(rest),
    );
    let mut responses = BrokerClient::new(channel).subscribe(requests).await?.into_inner();
    responses
        .message()
        .await?
        .context("the consumer was not welcomed")?;
    Ok((responses, keep))
}
