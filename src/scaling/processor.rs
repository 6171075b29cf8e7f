//! What a broker's CPU does for messages when they come in batches, seen while they do not.
//!
//! Most of what a message costs at a small load is the request that it came in, the commit that it went out with, and that a
//! thread which slept had to be woken for it. Under more load requests and commits carry more messages each, and nothing sleeps. So
//! CPU time is divided among wakes, requests, commits, messages and bytes, and each message is charged its part of a full request.

use super::counters::Interval;

/// What a request, a commit, a message, its delivery, a byte and a wake cost, in messages, where nothing tells better: as measured
/// with `cargo run --release --example capacity`. Only the proportions count; the machine's speed comes from what it uses.
pub(super) const PRIOR: [f64; UNITS] = [200.0, 600.0, 1.0, 8.0, 0.022, 3_100.0];
const UNITS: usize = 6;
/// What delivering a byte costs of what storing one does.
pub(super) const DELIVERED_BYTE: f64 = 0.3;
pub(super) const REQUEST: usize = 0;
pub(super) const COMMIT: usize = 1;
pub(super) const MESSAGE: usize = 2;
pub(super) const DELIVERY: usize = 3;
pub(super) const BYTE: usize = 4;
pub(super) const WAKE: usize = 5;

/// Requests a second that find an idle broker asleep, at most: a second with more of them has hardly a longer pause. Of one that
/// is busy for a part of the time, the rest of them.
pub(super) const WAKES_PER_SECOND: f64 = 100.0;

/// How much the proportions are trusted against what was seen (ridge regression towards them), in parts of the mean load's
/// square. A load that hardly changes tells nothing of them.
const TRUST: f64 = 0.03;
/// How far each cost may be from its proportion.
const BOUNDS: std::ops::RangeInclusive<f64> = 0.3..=3.0;
/// Rounds of Gauss-Seidel; the system is small and well conditioned.
const ROUNDS: usize = 12;
/// The largest request, in messages and bytes: what clients send at most.
pub(super) const REQUEST_MESSAGES: f64 = 512.0;
pub(super) const REQUEST_BYTES: f64 = (1 << 20) as f64;

/// CPU seconds of each unit of work, and how much of each a message takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Processor {
    costs: [f64; UNITS],
    per_message: [f64; UNITS],
    /// Bytes of a message.
    bytes: f64,
}

impl Processor {
    /// From some intervals and their sum, of a broker with so many `cores` (0 where unknown). `None` where it does not count
    /// requests, or did nothing.
    pub fn measure<'a>(
        intervals: impl Iterator<Item = &'a Interval>,
        total: &Interval,
        cores: f64,
    ) -> Option<Self> {
        if total.requests == 0 || total.acked == 0 || total.cpu_nanos == 0 {
            return None;
        }
        let of_all = work(total, cores);
        let expected: f64 = of_all.iter().zip(PRIOR).map(|(units, cost)| units * cost).sum();
        let scale = total.cpu_nanos as f64 / 1e9 / expected;
        let prior = PRIOR.map(|cost| cost * scale);
        let factors = factors(intervals, cores, &prior);
        let mut costs = prior;
        for (cost, factor) in costs.iter_mut().zip(factors) {
            *cost *= factor;
        }
        let acked = total.acked as f64;
        Some(Self {
            costs,
            per_message: of_all.map(|units| units / acked),
            bytes: total.acked_bytes as f64 / acked,
        })
    }

    /// CPU seconds of a message where requests hold up to `messages` of them: more than they did, never fewer. A broker that is
    /// busy all the time is not woken.
    pub fn of_a_message(&self, messages: f64) -> f64 {
        let most = messages
            .min(REQUEST_MESSAGES)
            .min(REQUEST_BYTES / self.bytes.max(1.0))
            .max(1.0);
        // As many commits to a request as there were.
        let fewer = (1.0 / (self.per_message[REQUEST] * most)).min(1.0);
        let part = |unit: usize| self.costs[unit] * self.per_message[unit];
        (part(REQUEST) + part(COMMIT)) * fewer + part(MESSAGE) + part(DELIVERY) + part(BYTE)
    }
}

fn work(interval: &Interval, cores: f64) -> [f64; UNITS] {
    let mut work = [0.0; UNITS];
    work[REQUEST] = interval.requests as f64;
    work[COMMIT] = interval.commits as f64;
    work[MESSAGE] = interval.acked as f64;
    work[DELIVERY] = interval.delivered as f64;
    let bytes_per_message = interval.acked_bytes as f64 / interval.acked.max(1) as f64;
    work[BYTE] = interval.acked_bytes as f64 + DELIVERED_BYTE * work[DELIVERY] * bytes_per_message;
    let idle = (1.0 - interval.utilization(cores)).max(0.0);
    work[WAKE] = work[REQUEST].min(WAKES_PER_SECOND * interval.seconds()) * idle;
    work
}

/// By what each cost differs from `prior`: least squares over the intervals, each as a part of their mean.
fn factors<'a>(
    intervals: impl Iterator<Item = &'a Interval>,
    cores: f64,
    prior: &[f64; UNITS],
) -> [f64; UNITS] {
    let (mut squares, mut products) = ([[0.0; UNITS]; UNITS], [0.0; UNITS]);
    let (mut mean, mut count) = (0.0, 0.0);
    for interval in intervals {
        let mut parts = work(interval, cores);
        for (part, cost) in parts.iter_mut().zip(prior) {
            *part *= cost;
        }
        let used = interval.cpu_nanos as f64 / 1e9;
        mean += used;
        count += 1.0;
        for (row, a) in parts.iter().enumerate() {
            products[row] += a * used;
            for (column, b) in parts.iter().enumerate() {
                squares[row][column] += a * b;
            }
        }
    }
    let trust = TRUST * mean * mean / f64::max(count, 1.0);
    let mut factors = [1.0; UNITS];
    for _ in 0..ROUNDS {
        for unit in 0..UNITS {
            let others: f64 = (0..UNITS)
                .filter(|other| *other != unit)
                .map(|other| squares[unit][other] * factors[other])
                .sum();
            let factor = (products[unit] + trust - others) / (squares[unit][unit] + trust);
            if factor.is_finite() {
                factors[unit] = factor.clamp(*BOUNDS.start(), *BOUNDS.end());
            }
        }
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nanoseconds of what a message alone costs.
    const MESSAGE_NANOS: f64 = 300.0;
    /// Requests to a commit.
    const TOGETHER: u64 = 4;

    /// A second in which each request holds `batch` messages, by the usual proportions but for what a request costs.
    fn second(acked: u64, batch: u64, bytes: u64, requests_cost: f64) -> Interval {
        let requests = acked / batch;
        let interval = Interval {
            nanos: 1_000_000_000,
            acked,
            acked_bytes: acked * bytes,
            requests,
            commits: requests / TOGETHER,
            ..Interval::default()
        };
        let mut costs = PRIOR;
        costs[REQUEST] *= requests_cost;
        let used: f64 = work(&interval, 0.0)
            .iter()
            .zip(costs)
            .map(|(units, cost)| units * cost * MESSAGE_NANOS)
            .sum();
        Interval {
            cpu_nanos: used as u64,
            ..interval
        }
    }

    /// CPU seconds of a message in requests of `batch` of them, at a broker that never sleeps.
    fn of_a_busy_second(batch: u64, bytes: u64, requests_cost: f64) -> f64 {
        let request = PRIOR[REQUEST] * requests_cost + PRIOR[COMMIT] / TOGETHER as f64;
        (request / batch as f64 + PRIOR[MESSAGE] + PRIOR[BYTE] * bytes as f64) * MESSAGE_NANOS / 1e9
    }

    fn of_a_message(intervals: &[Interval], messages: f64) -> f64 {
        let total = Interval::sum(intervals).unwrap();
        Processor::measure(intervals.iter(), &total, 0.0)
            .unwrap()
            .of_a_message(messages)
    }

    #[test]
    fn a_small_load_tells_what_a_message_costs_in_a_full_request() {
        for (bytes, small, large) in [(64, 1, 128), (1_024, 2, 64), (64, 4, 512)] {
            let expected = of_a_busy_second(large, bytes, 1.0);
            let seen = of_a_message(&[second(4_000, small, bytes, 1.0); 30], large as f64);
            assert!((seen / expected - 1.0).abs() < 0.02, "{seen} for {expected}");
        }
    }

    #[test]
    fn loads_that_differ_tell_where_the_proportions_are_others() {
        let loads = [
            second(2_000, 1, 64, 2.0),
            second(30_000, 8, 64, 2.0),
            second(300_000, 256, 64, 2.0),
        ];
        let expected = of_a_busy_second(128, 64, 2.0);
        let steady = of_a_message(&loads[..1], 128.0);
        let seen = of_a_message(&loads, 128.0);
        let (off, steady_off) = ((seen - expected).abs(), (steady - expected).abs());
        assert!(off < 0.5 * steady_off, "{seen}, {steady} for {expected}");
    }

    #[test]
    fn requests_never_get_smaller_and_large_messages_fill_them_sooner() {
        let batched = [second(100_000, 64, 64, 1.0)];
        assert!((of_a_message(&batched, 1.0) - of_a_message(&batched, 64.0)).abs() < 1e-12);
        let large = [second(100, 1, 1 << 19, 1.0)];
        assert!((of_a_message(&large, 2.0) - of_a_message(&large, 512.0)).abs() < 1e-12);
    }

    #[test]
    fn a_broker_that_does_not_count_requests_says_nothing() {
        let silent = Interval {
            requests: 0,
            ..second(1_000, 1, 64, 1.0)
        };
        assert_eq!(Processor::measure([silent].iter(), &silent, 0.0), None);
        assert_eq!(
            Processor::measure(std::iter::empty(), &Interval::default(), 0.0),
            None
        );
    }
}
