//! Publishing at the intended times, and entering what was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;

use super::body::{self, Header};
use super::run::Run;
use crate::client::{Client, Message, OnSettled, PublishError, Publisher, Settled, Tagged};

/// A tag is the message's number below and its intended time in microseconds above.
const NUMBER_BITS: u32 = 28;
/// Messages that one publisher can tell apart.
pub(super) const MOST_NUMBERS: u64 = 1 << NUMBER_BITS;
/// The runtime's timers are no finer.
pub(super) const TIMER: Duration = Duration::from_millis(1);

/// Messages that were due and could not be handed over for lack of room are tried for so long after the end.
const GRACE: Duration = Duration::from_secs(1);

/// A publisher of this run, whose acknowledgements are entered.
pub(super) fn publisher(run: &Arc<Run>, client: &Client, index: u32) -> Publisher {
    let arguments = &run.arguments;
    let (window, batch) = (arguments.window(), arguments.batch.min(arguments.window()));
    let share = (256 << 20) / u64::from(arguments.publishers);
    let bytes = share.max(2 * u64::from(batch) * (u64::from(arguments.size) + 128));
    let mut builder = client
        .publisher(&arguments.topic)
        .batch(batch as usize, 1 << 20)
        .linger(arguments.linger)
        .buffer(window, bytes)
        .delivery_timeout(None)
        .on_settled(on_settled(run.clone(), index));
    if let Some(prefix) = &arguments.producer_id {
        builder = builder.producer_id(format!("{prefix}-{:016x}-{index}", run.id));
    }
    builder.open()
}

fn on_settled(run: Arc<Run>, producer: u32) -> OnSettled {
    Box::new(move |settled: &[Settled]| {
        let now = run.clock.elapsed();
        let mut acknowledged = 0;
        let mut acked = run.acked[producer as usize].lock();
        let mut latencies = run.publish_latency.lock();
        let mut record = run.record.as_ref().map(|record| record.lock());
        for one in settled {
            let number = one.tag & (MOST_NUMBERS - 1);
            match &one.result {
                Ok(stored) => {
                    acknowledged += 1;
                    acked.insert(number);
                    let intended = Duration::from_micros(one.tag >> NUMBER_BITS);
                    latencies.record(now.saturating_sub(intended), intended >= run.arguments.warm_up);
                    if let Some(record) = &mut record {
                        record.write(producer, number, stored);
                    }
                }
                // Not acknowledged and not refused: unknown, which is what is neither of them at the end.
                Err(PublishError::TimedOut(_) | PublishError::Closed) => {}
                Err(error) => {
                    run.counts.rejected.add(1);
                    run.first_rejection
                        .lock()
                        .get_or_insert_with(|| error.to_string());
                }
            }
        }
        run.counts.acknowledged.add(acknowledged);
    })
}

/// Publishes one producer's share: every `publishers`th message, from `index` on.
pub(super) async fn load(
    run: Arc<Run>,
    publishers: Arc<Vec<Publisher>>,
    index: u32,
    stop: CancellationToken,
) {
    let mut end = run.schedule.duration();
    if run.schedule.is_paced() {
        end += GRACE;
    }
    let end = run.clock.instant_of(end);
    let publish = publish(&run, &publishers[index as usize], index);
    tokio::select! {
        () = publish => {}
        () = tokio::time::sleep_until(end) => {}
        () = stop.cancelled() => {}
    }
}

async fn publish(run: &Run, publisher: &Publisher, index: u32) {
    let arguments = &run.arguments;
    let (first, step) = (u64::from(index), u64::from(arguments.publishers));
    let keys: Vec<Bytes> = (0..arguments.keys)
        .map(|key| Bytes::from(format!("key-{key}")))
        .collect();
    let most = arguments.batch.min(arguments.window()) as usize;
    let mut slab = BytesMut::new();
    let mut number = 0;
    while number < MOST_NUMBERS && first + number * step < run.schedule.limit() {
        let now = run.clock.elapsed();
        let mut batch = Vec::with_capacity(most.min(64));
        while batch.len() < most && number < MOST_NUMBERS {
            let overall = first + number * step;
            let intended = match run.schedule.time_of(overall) {
                Some(time) if time > now => break,
                Some(time) => time,
                None if run.schedule.is_paced() || overall >= run.schedule.limit() => break,
                None => now,
            };
            let header = Header {
                run: run.id,
                producer: index,
                number,
                intended: run.clock.unix_nanos(intended),
            };
            let body = body::write(&mut slab, &header, arguments.size as usize);
            let key = (keys.get(key_of(number, index, keys.len())))
                .cloned()
                .unwrap_or_default();
            let tag = number | (intended.as_micros() as u64) << NUMBER_BITS;
            batch.push(Tagged {
                tag,
                message: Message {
                    key,
                    headers: Vec::new(),
                    body,
                    partition: None,
                },
            });
            number += 1;
        }
        if batch.is_empty() {
            let Some(next) = run.schedule.time_of(first + number * step) else {
                return;
            };
            let at = next.max(now + arguments.tick());
            match &run.ticks {
                None => tokio::time::sleep_until(run.clock.instant_of(at)).await,
                Some(ticks) => {
                    if at > now + 2 * TIMER {
                        tokio::time::sleep_until(run.clock.instant_of(at - 2 * TIMER)).await;
                    }
                    ticks.next().await;
                }
            }
            continue;
        }
        let count = batch.len() as u64;
        match publisher.enqueue(batch).await {
            Ok(()) => run.counts.published.add(count),
            Err(PublishError::Closed) => return,
            Err(error) => {
                run.counts.published.add(count);
                run.counts.rejected.add(count);
                run.first_rejection
                    .lock()
                    .get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// Spreads messages over the keys without a pattern that partitions could share.
fn key_of(number: u64, producer: u32, keys: usize) -> usize {
    let mixed = (number + (u64::from(producer) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (mixed as usize).checked_rem(keys).unwrap_or(0)
}
