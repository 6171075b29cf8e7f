//! Latencies: of the whole run, and of the time since the last line.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// An hour, in microseconds: longer ones count as this.
const LONGEST: u64 = 3_600_000_000;

/// Microseconds, to three digits.
#[derive(Debug)]
pub(super) struct Latencies {
    total: Histogram<u64>,
    interval: Histogram<u64>,
}

/// Percentiles in microseconds; `None` where nothing was measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    #[serde(rename = "p99.9")]
    pub(super) p999: u64,
    pub(super) max: u64,
    pub(super) count: u64,
}

impl Latencies {
    pub(super) fn new() -> Result<Self, String> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST, 3).map_err(|error| error.to_string());
        Ok(Self {
            total: histogram()?,
            interval: histogram()?,
        })
    }

    /// The total is only of messages after the warm-up.
    pub(super) fn record(&mut self, latency: Duration, is_warm: bool) {
        let micros = (latency.as_micros() as u64).max(1);
        if is_warm {
            self.total.saturating_record(micros);
        }
        self.interval.saturating_record(micros);
    }

    pub(super) fn total(&self) -> Option<Percentiles> {
        percentiles(&self.total)
    }

    /// Those since the last call.
    pub(super) fn take_interval(&mut self) -> Option<Percentiles> {
        let taken = percentiles(&self.interval);
        self.interval.reset();
        taken
    }
}

fn percentiles(histogram: &Histogram<u64>) -> Option<Percentiles> {
    (!histogram.is_empty()).then(|| Percentiles {
        p50: histogram.value_at_quantile(0.5),
        p90: histogram.value_at_quantile(0.9),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
        count: histogram.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_start_over_and_the_total_goes_on() {
        let mut latencies = Latencies::new().unwrap();
        assert!(latencies.take_interval().is_none());
        (1..=1000).for_each(|micros| latencies.record(Duration::from_micros(micros), true));
        let first = latencies.take_interval().unwrap();
        assert_eq!(
            (first.p50, first.p99, first.max, first.count),
            (500, 990, 1000, 1000)
        );
        latencies.record(Duration::from_secs(10_000), true);
        latencies.record(Duration::from_secs(10_000), false);
        assert_eq!(latencies.take_interval().map(|interval| interval.count), Some(2));
        assert_eq!(latencies.total().map(|total| total.count), Some(1001));
    }
}
