//! What one broker can do.
//!
//! Group commit makes busy time lie: a writer that commits whatever waits is busy in fdatasync at a fraction
//! of its capacity, because a bigger batch costs almost the same. So the capacity is a model of what commits,
//! messages and bytes cost, bounded by the CPU, with a correction learned where the truth shows: while publishers are
//! blocked throughout, the acknowledged rate is the capacity.

use serde::{Deserialize, Serialize};

use super::counters::{BrokerGauges, Interval};
use super::policy::ChannelPolicy;
use super::processor::Processor;
use super::window::{History, Sample};

/// The part of publishers' time without credit from which they count as blocked throughout.
const THROUGHOUT: f64 = 0.9;
/// How much of the way to a newly seen correction one interval goes.
const SMOOTHING: f64 = 0.3;
/// How often the range of a request's messages is halved, by its logarithm: from 65,536 down to less than a tenth of a percent.
const HALVINGS: usize = 14;
/// The bounds of the correction, in thousandths.
const CORRECTION: std::ops::RangeInclusive<u32> = 200..=3_000;

/// What things cost in the log and on the CPU, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// `a`: a commit (fdatasync).
    pub commit: f64,
    /// `b`: a message (encoding and writing).
    pub message: f64,
    /// `c`: a byte (encoding and writing).
    pub byte: f64,
    /// Bytes of a message, on average.
    pub bytes_per_message: f64,
    /// CPU of a message, everything included, at the load that it was measured at.
    pub cpu: f64,
}

impl Costs {
    /// The costs over some intervals; `None` where nothing was acknowledged.
    ///
    /// `b` and `c` come apart by least squares over the intervals where the message sizes differ enough between
    /// them; else all of it counts as `b`. Either way they add up to what was spent.
    pub fn measure<'a>(intervals: impl Iterator<Item = &'a Interval>) -> Option<Self> {
        Self::measure_with_sum(intervals).map(|(costs, _)| costs)
    }

    /// The same, and the sum of the intervals.
    fn measure_with_sum<'a>(intervals: impl Iterator<Item = &'a Interval>) -> Option<(Self, Interval)> {
        let mut total = Interval::default();
        let mut squares = Squares::default();
        for interval in intervals {
            total += interval;
            squares.add(interval);
        }
        if total.nanos == 0 || total.acked == 0 {
            return None;
        }
        let acked = total.acked as f64;
        let bytes_per_message = total.acked_bytes as f64 / acked;
        let commit = if total.commits == 0 {
            0.0
        } else {
            seconds(total.commit_nanos) / total.commits as f64
        };
        let per_message = seconds(total.append_nanos) / acked;
        let byte_share = squares.byte_share(bytes_per_message);
        let costs = Self {
            commit,
            message: per_message * (1.0 - byte_share),
            byte: if bytes_per_message > 0.0 {
                per_message * byte_share / bytes_per_message
            } else {
                0.0
            },
            bytes_per_message,
            cpu: seconds(total.cpu_nanos) / acked,
        };
        Some((costs, total))
    }

    /// `b + c * bytesPerMessage`: what writing a message of average size costs, in seconds.
    pub fn append(&self) -> f64 {
        self.message + self.byte * self.bytes_per_message
    }

    /// The largest batch that the queue delay allows: `(targetQueueDelay - a) / (b + c * bytesPerMessage)`, at
    /// most what the channel may ever hold.
    ///
    /// Where a commit alone takes most of the target delay, the time for writing is taken to be as long as the commit: a
    /// slow disk is no reason to think that a batch is one message.
    pub fn largest_batch(&self, channel: &ChannelPolicy) -> f64 {
        let most = f64::from(channel.largest_batch());
        let time = (channel.target_queue_delay.as_secs_f64() - self.commit).max(self.commit);
        let batch = time / self.append();
        if batch.is_finite() {
            batch.clamp(1.0, most)
        } else {
            most
        }
    }

    /// `n / (a + n * (b + c * bytesPerMessage))`: messages a second at batches of `n`; infinite where neither
    /// commits nor writing take any time.
    pub fn log_rate(&self, batch: f64) -> f64 {
        batch / (self.commit + batch * self.append())
    }

    /// Messages a second that the CPU quota (in cores) allows; infinite where either is unknown.
    pub fn cpu_rate(&self, cores: f64) -> f64 {
        if cores > 0.0 {
            cores / self.cpu
        } else {
            f64::INFINITY
        }
    }

    /// The same, with the CPU of a message in requests as large as they get: the credit of a publish stream, which is its part
    /// of a channel that holds as much as the target delay allows.
    fn batched(self, processor: &Processor, channel: &ChannelPolicy, gauges: &BrokerGauges) -> Self {
        let most = f64::from(channel.largest_batch());
        let streams = gauges.publish_streams.max(1) as f64;
        let with_requests_of = |messages: f64| Self {
            cpu: processor.of_a_message(messages),
            ..self
        };
        // Smaller requests make for a lower rate, and that for less credit: sought is where the credit is a request.
        let (mut low, mut high) = (1.0, (most / streams).max(1.0));
        for _ in 0..HALVINGS {
            let middle = f64::sqrt(low * high);
            let rate = with_requests_of(middle).cpu_rate(cores(gauges.cpu_quota_nanos));
            let credit = (rate * channel.target_queue_delay.as_secs_f64()).min(most) / streams;
            if credit < middle {
                high = middle;
            } else {
                low = middle;
            }
        }
        with_requests_of(high)
    }

    /// The smaller of both rates; `None` where neither says anything.
    pub fn rate(&self, batch: f64, cores: f64) -> Option<f64> {
        let rate = self.log_rate(batch).min(self.cpu_rate(cores));
        (rate.is_finite() && rate > 0.0).then_some(rate)
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn cores(quota_nanos: u64) -> f64 {
    seconds(quota_nanos)
}

/// Sums for least squares of `append = b * messages + c * bytes`: x is messages, y bytes, z seconds.
#[derive(Clone, Copy, Default)]
struct Squares {
    xx: f64,
    xy: f64,
    yy: f64,
    xz: f64,
    yz: f64,
}

impl Squares {
    fn add(&mut self, interval: &Interval) {
        let x = interval.acked as f64;
        let y = interval.acked_bytes as f64;
        let z = seconds(interval.append_nanos);
        self.xx += x * x;
        self.xy += x * y;
        self.yy += y * y;
        self.xz += x * z;
        self.yz += y * z;
    }

    /// The part of the time for writing that goes with the bytes, 0 to 1; 0 where bytes and messages go together too closely
    /// to tell.
    fn byte_share(&self, bytes_per_message: f64) -> f64 {
        let Self { xx, xy, yy, xz, yz } = *self;
        let determinant = xx * yy - xy * xy;
        if determinant.is_nan() || determinant <= 0.01 * xx * yy {
            return 0.0;
        }
        let message = ((xz * yy - yz * xy) / determinant).max(0.0);
        let bytes = ((yz * xx - xz * xy) / determinant).max(0.0) * bytes_per_message;
        let share = bytes / (message + bytes);
        if share.is_finite() { share } else { 0.0 }
    }
}

/// `k`: what was seen over what was modelled, smoothed and bounded, in thousandths so that it is the same when
/// it is read back.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Correction(u32);

impl Default for Correction {
    fn default() -> Self {
        Self(1_000)
    }
}

impl Correction {
    /// The factor.
    pub fn factor(self) -> f64 {
        f64::from(self.0.clamp(*CORRECTION.start(), *CORRECTION.end())) / 1_000.0
    }

    /// Learns from an interval in which publishers were blocked throughout; any other says nothing.
    ///
    /// What was seen is held against the model at the batch size of that interval, and only where the broker was what
    /// publishers waited for: else what was acknowledged was not all that it can do.
    pub fn learn(&mut self, sample: &Sample) {
        let interval = &sample.interval;
        let quota = cores(sample.gauges.cpu_quota_nanos);
        if interval.blocked_fraction() < THROUGHOUT || !sample.is_at_its_limit() {
            return;
        }
        let batch = interval.batch().max(1.0);
        let modelled = Costs::measure(std::iter::once(interval)).and_then(|costs| costs.rate(batch, quota));
        let Some(modelled) = modelled else { return };
        let seen = (interval.acked_rate() / modelled * 1_000.0)
            .clamp(f64::from(*CORRECTION.start()), f64::from(*CORRECTION.end()));
        let smoothed = f64::from(self.0) + SMOOTHING * (seen - f64::from(self.0));
        self.0 = smoothed.round() as u32;
    }
}

/// What one broker can do, from its own intervals.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// `mu`, messages a second: the mean over the brokers, weighted by what they carried, since the estimate of a
    /// broker that carries little is the least certain.
    pub per_broker: f64,
    /// The highest over the lowest estimate among the brokers; at least 1.
    pub spread: f64,
}

/// The capacity of a broker over what `samples` picks of each history: `min(mu_log, mu_cpu) * k`. `None` where
/// nothing was acknowledged.
pub fn estimate<'a, S, I>(
    histories: &[&'a History],
    samples: S,
    channel: &ChannelPolicy,
    correction: Correction,
) -> Option<Capacity>
where
    S: Fn(&'a History) -> I,
    I: Iterator<Item = &'a Sample> + Clone,
{
    let (mut weighted, mut weight) = (0.0, 0.0);
    let (mut lowest, mut highest) = (f64::INFINITY, 0.0_f64);
    for &history in histories {
        let intervals = samples(history).map(|sample| &sample.interval);
        let Some((costs, total)) = Costs::measure_with_sum(intervals.clone()) else {
            continue;
        };
        let gauges = history.latest(0).map(|sample| sample.gauges).unwrap_or_default();
        let quota = cores(gauges.cpu_quota_nanos);
        let costs = match Processor::measure(intervals, &total, quota) {
            Some(processor) => costs.batched(&processor, channel, &gauges),
            None => costs,
        };
        let Some(rate) = costs.rate(costs.largest_batch(channel), quota) else {
            continue;
        };
        let acked = total.acked as f64;
        weighted += rate * acked;
        weight += acked;
        lowest = lowest.min(rate);
        highest = highest.max(rate);
    }
    let per_broker = weighted / weight * correction.factor();
    (per_broker.is_finite() && per_broker > 0.0).then_some(Capacity {
        per_broker,
        spread: highest / lowest,
    })
}

/// How busy a broker was, 0 to 1 and more: by what it acknowledged of what it can, or by its CPU.
pub fn busy(interval: &Interval, gauges_quota_nanos: u64, capacity: Option<f64>) -> f64 {
    let by_rate = capacity.map_or(0.0, |capacity| interval.acked_rate() / capacity);
    by_rate.max(interval.utilization(cores(gauges_quota_nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::processor::{COMMIT, PRIOR, REQUEST, WAKE};
    use crate::scaling::time::Time;

    /// A second at `rate` messages of `bytes` in batches of `batch`: a commit takes 1 ms, a message 10 µs and 5 ns a
    /// byte, and 50 µs of CPU.
    fn second(rate: u64, bytes: u64, batch: u64) -> Interval {
        Interval {
            nanos: 1_000_000_000,
            accepted: rate,
            acked: rate,
            acked_bytes: rate * bytes,
            commits: rate / batch,
            commit_nanos: rate / batch * 1_000_000,
            append_nanos: rate * (10_000 + 5 * bytes),
            cpu_nanos: rate * 50_000,
            ..Interval::default()
        }
    }

    fn near(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= expected * 1e-6
    }

    #[test]
    fn costs_of_messages_and_bytes_come_apart_where_sizes_differ() {
        let intervals = [
            second(1_000, 100, 1),
            second(2_000, 1_000, 2),
            second(500, 10_000, 1),
        ];
        let costs = Costs::measure(intervals.iter()).unwrap();
        assert!(near(costs.commit, 0.001));
        assert!(near(costs.message, 10e-6), "{costs:?}");
        assert!(near(costs.byte, 5e-9), "{costs:?}");
        assert!(near(costs.cpu, 50e-6));
    }

    #[test]
    fn costs_of_messages_of_one_size_add_up_to_what_was_spent() {
        let costs = Costs::measure([second(1_000, 256, 1), second(2_000, 256, 1)].iter()).unwrap();
        assert!(near(costs.append(), 10e-6 + 256.0 * 5e-9), "{costs:?}");
    }

    #[test]
    fn the_rate_is_what_the_largest_allowed_batch_makes_of_the_costs() {
        let costs = Costs::measure([second(1_000, 0, 1)].iter()).unwrap();
        let channel = ChannelPolicy::default();
        // (100 ms - 1 ms) / 10 µs = 9900; 9900 / (1 ms + 99 ms) = 99,000/s.
        let batch = costs.largest_batch(&channel);
        assert!(near(batch, 9_900.0), "{batch}");
        assert!(near(costs.log_rate(batch), 99_000.0));
        assert!(near(costs.rate(batch, 2.0).unwrap(), 40_000.0));
        assert!(near(costs.rate(batch, 0.2).unwrap(), 4_000.0));
        assert!(near(costs.rate(batch, 0.0).unwrap(), 99_000.0));
    }

    #[test]
    fn the_estimate_is_the_same_at_any_batch_size_while_busy_time_is_not() {
        let channel = ChannelPolicy::default();
        let rates = [1, 4, 64].map(|batch| {
            let costs = Costs::measure([second(640, 0, batch)].iter()).unwrap();
            costs.rate(costs.largest_batch(&channel), 0.0).unwrap()
        });
        assert!(rates.iter().all(|rate| near(*rate, 99_000.0)), "{rates:?}");
    }

    #[test]
    fn a_disk_slower_than_the_target_delay_still_has_a_sensible_rate() {
        let slow = Interval {
            commit_nanos: 300_000_000,
            commits: 1,
            ..second(1_000, 0, 1_000)
        };
        let costs = Costs::measure([slow].iter()).unwrap();
        let rate = costs
            .rate(costs.largest_batch(&ChannelPolicy::default()), 0.0)
            .unwrap();
        assert!(rate > 40_000.0, "{rate}");
    }

    #[test]
    fn nothing_acknowledged_or_nothing_spent_says_nothing() {
        assert_eq!(Costs::measure([Interval::default()].iter()), None);
        assert_eq!(Costs::measure(std::iter::empty()), None);
        let free = Interval {
            nanos: 1_000_000_000,
            acked: 10,
            ..Interval::default()
        };
        let costs = Costs::measure([free].iter()).unwrap();
        assert_eq!(
            costs.rate(costs.largest_batch(&ChannelPolicy::default()), 1.0),
            None
        );
    }

    #[test]
    fn at_the_rate_that_is_told_requests_as_large_as_the_credit_use_up_the_quota() {
        let channel = ChannelPolicy::default();
        // A message costs 200 ns.
        let request = PRIOR[REQUEST] + PRIOR[COMMIT];
        let loaded = |rate: f64, batch: f64, wakes: f64| Interval {
            requests: (rate / batch) as u64,
            commits: (rate / batch) as u64,
            commit_nanos: 0,
            cpu_nanos: ((rate / batch * request + rate + wakes * PRIOR[WAKE]) * 200.0) as u64,
            ..second(rate as u64, 0, 1)
        };
        for (quota, streams) in [(0.2, 1), (0.2, 8), (0.18, 8), (2.0, 8), (2.0, 60)] {
            let gauges = BrokerGauges {
                cpu_quota_nanos: (quota * 1e9) as u64,
                publish_streams: streams,
                ..BrokerGauges::default()
            };
            let small = loaded(100.0, 1.0, 100.0);
            let processor = Processor::measure([small].iter(), &small, 0.0).unwrap();
            let costs = Costs::measure([small].iter()).unwrap();
            let told = costs.batched(&processor, &channel, &gauges).cpu_rate(quota);
            let credit = told * channel.target_queue_delay.as_secs_f64() / streams as f64;
            let used = loaded(told, credit.min(512.0), 0.0).cores();
            assert!((used / quota - 1.0).abs() < 0.02, "{used} of {quota} at {told}/s");
        }
    }

    fn saturated(rate: u64, queued: u64) -> Sample {
        Sample {
            end: Time::default(),
            interval: Interval {
                blocked_nanos: 4_000_000_000,
                active_nanos: 4_000_000_000,
                ..second(rate, 0, 1)
            },
            gauges: BrokerGauges {
                channel_messages: queued,
                channel_capacity: 128,
                ..BrokerGauges::default()
            },
        }
    }

    #[test]
    fn the_correction_learns_from_intervals_blocked_throughout_and_no_others() {
        let mut correction = Correction::default();
        // The model says 1 / (1 ms + 10 µs) = 990/s at that batch size; half of that is seen.
        for _ in 0..30 {
            correction.learn(&saturated(495, 128));
        }
        assert!((0.49..=0.51).contains(&correction.factor()), "{correction:?}");
        let learned = correction;
        correction.learn(&saturated(900, 0));
        let mut free = saturated(900, 128);
        free.interval.blocked_nanos = 0;
        correction.learn(&free);
        assert_eq!(
            correction, learned,
            "an empty channel or free publishers say nothing"
        );
    }

    #[test]
    fn the_correction_is_bounded_whatever_is_seen_or_read_back() {
        let mut correction = Correction::default();
        for _ in 0..100 {
            correction.learn(&saturated(1, 128));
        }
        assert!((0.2..0.21).contains(&correction.factor()));
        for written in ["0", "4000000000"] {
            let read: Correction = serde_json::from_str(written).unwrap();
            assert!((0.2..=3.0).contains(&read.factor()), "{written}");
        }
    }
}
