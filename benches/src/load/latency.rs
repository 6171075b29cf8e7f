//! Latencies of all streams, in nanoseconds, without one lock for all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// The longest latency that is told apart: a minute.
const HIGHEST: u64 = 60_000_000_000;
const SHARDS: usize = 8;

pub(super) struct Latencies {
    shards: Vec<Mutex<Histogram<u64>>>,
    answered: AtomicU64,
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, HIGHEST, 3)?)
}

impl Latencies {
    pub(super) fn new(streams: usize) -> anyhow::Result<Self> {
        let shards = (0..streams.clamp(1, SHARDS)).map(|_| histogram().map(Mutex::new));
        Ok(Self {
            shards: shards.collect::<anyhow::Result<_>>()?,
            answered: AtomicU64::new(0),
        })
    }

    pub(super) fn record(&self, stream: usize, latency: Duration) {
        if let Some(shard) = self.shards.get(stream % self.shards.len()) {
            shard.lock().saturating_record(latency.as_nanos() as u64);
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn total(&self) -> anyhow::Result<Histogram<u64>> {
        let mut total = histogram()?;
        for shard in &self.shards {
            total.add(&*shard.lock())?;
        }
        Ok(total)
    }
}

/// How late the generator was.
#[derive(Default)]
pub(super) struct Lags(Option<Histogram<u64>>);

impl Lags {
    pub(super) fn record(&mut self, lag: Duration) {
        if self.0.is_none() {
            self.0 = histogram().ok();
        }
        if let Some(lags) = &mut self.0 {
            lags.saturating_record(lag.as_nanos() as u64);
        }
    }

    pub(super) fn micros(&self, quantile: f64) -> f64 {
        let value = self.0.as_ref().map_or(0, |lags| lags.value_at_quantile(quantile));
        value as f64 / 1000.0
    }
}
