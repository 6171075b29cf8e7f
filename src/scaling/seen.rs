//! What a broker was seen to do.
//!
//! At small loads nearly every message is a frame and a commit of its own, so that it costs several times the CPU that it
//! costs in a batch: a model of costs then says far too little. What was carried for some seconds is a lower bound
//! whatever the model says, and where publishers were held back meanwhile it is what a broker can do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::demand::{MOSTLY, SATURATED};
use super::policy::{ChannelMode, ChannelPolicy};
use super::time::Time;
use super::window::{History, Sample};

/// How long a rate must last to count.
const SUSTAINED_NANOS: u64 = 5_000_000_000;
/// The part of publishers' time without credit from which they count as blocked throughout.
const THROUGHOUT: f64 = 0.9;
/// Changes smaller than this are not worth writing down.
const NOTABLE: f64 = 0.02;
/// How much more than a limit must be carried with nobody held back to show that it was none.
const BEYOND: f64 = 0.1;
/// The part of what the target delay allows below which a channel is small.
const SMALL: f64 = 0.5;
/// How far a CPU quota must move for what was seen to count no more.
const OTHER_QUOTA: f64 = 0.1;
/// In what time the excess over the model halves, and in what steps.
const HALF_LIFE: Duration = Duration::from_secs(3_600);
const FADING: Duration = Duration::from_secs(300);

/// The highest rate that a broker kept up, and whether that was its limit.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct Seen {
    /// Messages a second.
    rate: u64,
    /// Publishers were held back at this rate: it is what a broker can do, not only something that it can do.
    limit: bool,
    /// They were held back most of the time, or messages waited: not only by small requests that used up the CPU.
    firm: bool,
    /// CPU nanoseconds a second that the container could use then; 0 where unknown.
    cpu_quota_nanos: u64,
    /// When it last faded.
    faded: Time,
}

impl Seen {
    /// Messages a second that a broker can do at least; 0 where nothing was seen yet.
    pub fn rate(&self) -> f64 {
        self.rate as f64
    }

    /// Whether that is also what a broker can do at most.
    pub fn is_limit(&self) -> bool {
        self.limit
    }

    /// Whether it is what a broker can do at most even in larger requests: publishers that are held back a little send
    /// small ones, which cost a broker several times the CPU for a message.
    pub fn is_firm(&self) -> bool {
        self.firm
    }

    /// Takes in a broker's newest sample.
    ///
    /// A channel that may grow by much holds publishers to small requests, with which a broker does less than it can: then
    /// nothing is learned of its limit.
    pub fn learn(&mut self, history: &History, channel: &ChannelPolicy) {
        let Some(newest) = history.latest(0) else { return };
        let quota = newest.gauges.cpu_quota_nanos;
        if quota > 0 && self.cpu_quota_nanos > 0 && !near(quota, self.cpu_quota_nanos) {
            *self = Self {
                faded: self.faded,
                ..Self::default()
            };
        }
        if quota > 0 && self.cpu_quota_nanos == 0 {
            self.cpu_quota_nanos = quota;
        }
        if let Some(lately) = Lately::of(history, channel) {
            let held_back = lately.held_back;
            self.limit |= held_back;
            self.firm |= lately.firmly;
            if lately.rate > self.rate() * (1.0 + BEYOND) {
                self.limit = held_back;
                self.firm = lately.firmly;
            }
            let higher = lately.rate > self.rate() * (1.0 + NOTABLE);
            let lower = held_back && lately.highest < self.rate() * (1.0 - NOTABLE);
            if higher {
                self.rate = lately.rate as u64;
            } else if lower {
                self.rate = lately.highest as u64;
            }
        }
        // Blocked throughout: no need to wait for as long. A bound that no longer holds must not hold back brokers.
        let blocked = |sample: &Sample| {
            sample.is_at_its_limit()
                && sample.interval.blocked_fraction() >= THROUGHOUT
                && sample.interval.acked > 0
                && !is_small(channel, sample)
        };
        let two = history
            .newest(2)
            .filter(|sample| near(quota, sample.gauges.cpu_quota_nanos));
        if two.clone().filter(|sample| blocked(sample)).count() == 2 {
            let highest = two.map(|sample| sample.interval.acked_rate()).fold(0.0, f64::max);
            self.limit = true;
            self.firm = true;
            if highest < self.rate() * (1.0 - NOTABLE) {
                self.rate = highest as u64;
            }
        }
    }

    /// Halves the excess over the model in an hour. `model` is only asked when there is something to do.
    pub fn fade(&mut self, now: Time, model: impl FnOnce() -> Option<f64>) {
        self.faded = self.faded.min(now);
        if self.rate == 0 || self.faded == Time::default() {
            self.faded = now;
        }
        let passed = now.since(self.faded);
        if passed < FADING {
            return;
        }
        self.faded = now;
        let excess = model().map_or(0.0, |model| self.rate() - model).max(0.0);
        let left = 0.5_f64.powf(passed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.rate = (self.rate() - excess * (1.0 - left)) as u64;
    }
}

/// What a broker carried over the last seconds.
struct Lately {
    /// Messages acknowledged a second, over all of them and in the best interval.
    rate: f64,
    highest: f64,
    /// Publishers were held back in every interval, by the broker.
    held_back: bool,
    /// They were so most of the time, or messages waited.
    firmly: bool,
}

impl Lately {
    /// `None` where there are too few reports with the present CPU quota.
    fn of(history: &History, channel: &ChannelPolicy) -> Option<Self> {
        let (mut nanos, mut acked, mut highest) = (0_u64, 0_u64, 0.0_f64);
        let (mut held_back, mut firmly) = (true, true);
        let quota = history.latest(0)?.gauges.cpu_quota_nanos;
        for sample in history.newest(usize::MAX) {
            if !near(quota, sample.gauges.cpu_quota_nanos) {
                return None;
            }
            let interval = &sample.interval;
            nanos = nanos.saturating_add(interval.nanos);
            acked = acked.saturating_add(interval.acked);
            highest = highest.max(interval.acked_rate());
            let waiting = u128::from(sample.gauges.sojourn_min_nanos) > channel.target_queue_delay.as_nanos();
            let busy = sample.is_at_its_limit() && interval.acked > 0 && !is_small(channel, sample);
            held_back &= busy && (waiting || interval.blocked_fraction() >= SATURATED);
            firmly &= busy && (waiting || interval.blocked_fraction() >= MOSTLY);
            if nanos >= SUSTAINED_NANOS {
                return Some(Self {
                    rate: acked as f64 / nanos as f64 * 1e9,
                    highest,
                    held_back,
                    firmly,
                });
            }
        }
        None
    }
}

/// Whether the channel may grow to far more than it is: to what is acknowledged within the target delay, as far as `max` and the
/// memory allow. Only of brokers that count requests is it known what that does for them.
fn is_small(channel: &ChannelPolicy, sample: &Sample) -> bool {
    let interval = &sample.interval;
    let by_delay = interval.acked_rate() * channel.target_queue_delay.as_secs_f64();
    let by_memory = channel.max_inflight_bytes as f64 * interval.acked as f64 / interval.acked_bytes as f64;
    let largest = by_delay.min(f64::from(channel.largest_batch())).min(by_memory);
    channel.mode == ChannelMode::Auto
        && interval.requests > 0
        && (sample.gauges.channel_capacity as f64) < SMALL * largest
}

fn near(quota: u64, before: u64) -> bool {
    quota.abs_diff(before) as f64 <= OTHER_QUOTA * before as f64
}
