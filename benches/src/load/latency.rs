//! Latencies of all streams, in nanoseconds.

use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// The longest latency that is told apart: a minute.
const HIGHEST: u64 = 60_000_000_000;

pub(super) struct Latencies(Mutex<Histogram<u64>>);

impl Latencies {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(Mutex::new(Histogram::new_with_bounds(1, HIGHEST, 3)?)))
    }

    pub(super) fn record(&self, latency: Duration) {
        self.0.lock().saturating_record(latency.as_nanos() as u64);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.lock().len()
    }

    pub(super) fn micros(&self, quantile: f64) -> f64 {
        self.0.lock().value_at_quantile(quantile) as f64 / 1000.0
    }
}
