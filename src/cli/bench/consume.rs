//! Receiving, and checking every message.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::body::{self, Read};
use super::ledger::Verdict;
use super::run::Run;
use crate::client::{Delivery, SubscribeError, Subscriber, SubscriberStats};

/// Messages that are checked together.
const BATCH: usize = 1024;
/// When a message that was given back on purpose comes again.
const NACK_DELAY: Duration = Duration::from_millis(10);

/// Receives until it is told to stop; returns what happened.
pub(super) async fn consume(
    run: Arc<Run>,
    mut subscriber: Subscriber,
    stop: CancellationToken,
) -> Result<SubscriberStats, SubscribeError> {
    loop {
        let batch = tokio::select! {
            batch = subscriber.next_batch(BATCH) => batch?,
            () = stop.cancelled() => break,
        };
        check(&run, batch);
    }
    let stats = subscriber.stats();
    subscriber.close().await;
    Ok(stats)
}

fn check(run: &Run, batch: Vec<Delivery>) {
    let now = run.clock.unix_nanos(run.clock.elapsed());
    let warm = run.clock.unix_nanos(run.arguments.warm_up);
    let nack_every = run.arguments.nack_every;
    // Subscribing alone, without a run to look for, every run is ours.
    let any_run = !run.arguments.publishes() && run.arguments.run_id.is_none();
    let mut ledger = run.ledger.lock();
    let mut latencies = run.deliver_latency.lock();
    for delivery in batch {
        let header = match body::read(&delivery.body) {
            Read::Message(header) if any_run || header.run == run.id => header,
            Read::Damaged => {
                run.counts.damaged.add(1);
                delivery.ack();
                continue;
            }
            Read::Message(_) | Read::Foreign => {
                run.counts.foreign.add(1);
                delivery.ack();
                continue;
            }
        };
        if nack_every > 0 && header.number % nack_every == 0 && delivery.delivery_count == 1 {
            run.counts.nacked.add(1);
            delivery.nack(NACK_DELAY);
            continue;
        }
        let verdict = ledger.enter(
            &header,
            delivery.partition,
            delivery.offset,
            delivery.delivery_count,
        );
        if verdict == Verdict::New {
            run.counts.received.add(1);
            let latency = Duration::from_nanos(now.saturating_sub(header.intended));
            latencies.record(latency, header.intended >= warm);
        }
        delivery.ack();
    }
}
