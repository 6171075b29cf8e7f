//! `sluice bench`: a load of known content, every message of which is checked.

mod arguments;
mod bits;
mod body;
mod consume;
mod latency;
mod ledger;
mod load;
mod record;
mod report;
mod run;
mod schedule;
mod summary;
mod ticks;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use arguments::{Arguments, Mode};
pub use schedule::Step;

use self::report::{Reporter, Trouble};
use self::run::{Clock, Run};
use self::summary::Summary;
use super::Failure;
use crate::client::{Client, SubscribeError, Subscriber, SubscriberStats};
use crate::shutdown;

/// How often it is looked whether everything has been delivered.
const DRAINED: Duration = Duration::from_millis(100);

type Consumers = JoinSet<Result<SubscriberStats, SubscribeError>>;

/// Runs the load.
///
/// # Errors
/// The arguments make no sense, no broker answers, or what must not happen to a message did happen.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut run = Run::new(arguments)?;
    let stop = shutdown::on_signals().map_err(|error| Failure::of("listening to signals", error))?;
    let connections = (0..run.arguments.connections()).map(|_| run.arguments.connection.connect());
    let clients = try_join_all(connections).await?;
    let subscribers = subscribe(&run, &clients).await?;
    run.clock = Clock::start();
    let run = Arc::new(run);

    let consuming = CancellationToken::new();
    let mut consumers = JoinSet::new();
    for subscriber in subscribers {
        consumers.spawn(consume::consume(run.clone(), subscriber, consuming.clone()));
    }
    let publishers = if run.arguments.publishes() {
        run.arguments.publishers
    } else {
        0
    };
    let publishers = (0..publishers).zip(clients.iter().cycle());
    let publishers: Arc<Vec<_>> = Arc::new(
        publishers
            .map(|(index, client)| load::publisher(&run, client, index))
            .collect(),
    );
    let mut reporter = Reporter::new(run.clone(), publishers.clone());

    let mut loads = JoinSet::new();
    for index in 0..publishers.len() as u32 {
        loads.spawn(load::load(run.clone(), publishers.clone(), index, stop.clone()));
    }
    let mut stats = Vec::new();
    let loading = async {
        if publishers.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(run.schedule.duration()) => {}
                () = stop.cancelled() => {}
            }
        }
        while loads.join_next().await.is_some() {}
    };
    reporter
        .until(watched(loading, &mut consumers, &mut stats))
        .await?;
    let flush = async {
        let flushes = join_all(publishers.iter().map(crate::client::Publisher::flush));
        // What is not acknowledged by then is unknown, and said to be.
        let _ = tokio::time::timeout(run.arguments.drain_timeout, flushes).await;
    };
    reporter.until(watched(flush, &mut consumers, &mut stats)).await?;
    let seconds = run.clock.elapsed().as_secs_f64();
    if run.arguments.publishes() && run.arguments.subscribes() {
        let drained = tokio::time::timeout(run.arguments.drain_timeout, drained(&run));
        // What is not delivered by then is lost, and said to be.
        let _ = reporter
            .until(watched(drained, &mut consumers, &mut stats))
            .await?;
    }
    consuming.cancel();
    while let Some(ended) = consumers.join_next().await {
        stats.push(ended_well(ended)?);
    }
    if let Some(record) = &run.record {
        record.lock().finish()?;
    }
    let summary = Summary::of(&run, seconds, &Trouble::of(&publishers), &stats);
    summary.print(run.arguments.output);
    summary.verdict()
}

async fn subscribe(run: &Run, clients: &[Client]) -> Result<Vec<Subscriber>, Failure> {
    let arguments = &run.arguments;
    let count = if arguments.subscribes() {
        arguments.subscribers
    } else {
        0
    };
    let group = arguments
        .group
        .clone()
        .unwrap_or_else(|| format!("bench-{:016x}", run.id));
    let start = arguments.start();
    let opening = (0..count).zip(clients.iter().cycle()).map(|(index, client)| {
        client
            .subscriber(&arguments.topic, &group)
            .start(start)
            .member(format!("bench-{index}"))
            .credit(4096, 32 << 20)
            .open()
    });
    try_join_all(opening)
        .await
        .map_err(|error| Failure::Failed(error.to_string()))
}

/// Waits for `work`; ends early if a subscriber is refused.
async fn watched<T>(
    work: impl Future<Output = T>,
    consumers: &mut Consumers,
    stats: &mut Vec<SubscriberStats>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            Some(ended) = consumers.join_next() => stats.push(ended_well(ended)?),
        }
    }
}

fn ended_well(
    ended: Result<Result<SubscriberStats, SubscribeError>, tokio::task::JoinError>,
) -> Result<SubscriberStats, Failure> {
    ended
        .map_err(|error| Failure::of("a subscriber", error))?
        .map_err(|error| Failure::of("a subscriber", error))
}

/// Waits until everything that was acknowledged is delivered.
async fn drained(run: &Run) {
    while run.undelivered() > 0 {
        tokio::time::sleep(DRAINED).await;
    }
}
