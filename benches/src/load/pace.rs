//! When each message is due. Message `k` of the load goes to stream `k` modulo the number of streams, at an even pace;
//! a thread of its own hands them over, since timers of an async runtime tick in whole milliseconds.

use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::latency::Lags;
use super::{Due, Load};

/// From the start of the pace to the first message.
const LEAD: Duration = Duration::from_millis(20);

pub(super) struct Pace {
    started: OnceLock<Instant>,
    streams: u64,
    rate: u64,
    unmeasured: u64,
    messages: u64,
    warm_up: Duration,
    measured: Duration,
}

impl Pace {
    pub(super) fn new(load: &Load, streams: usize) -> Self {
        let rate = load.rate as f64;
        let unmeasured = (rate * load.warm_up) as u64;
        Self {
            started: OnceLock::new(),
            streams: streams as u64,
            rate: load.rate.max(1),
            unmeasured,
            messages: unmeasured + (rate * load.seconds) as u64,
            warm_up: Duration::from_secs_f64(load.warm_up),
            measured: Duration::from_secs_f64(load.seconds),
        }
    }

    pub(super) fn start(&self) {
        self.started.get_or_init(|| Instant::now() + LEAD);
    }

    fn started(&self) -> Instant {
        *self.started.get_or_init(Instant::now)
    }

    pub(super) fn measured_from(&self) -> Instant {
        self.started() + self.warm_up
    }

    pub(super) fn ends(&self) -> Instant {
        self.measured_from() + self.measured
    }

    pub(super) fn measured_messages(&self) -> u64 {
        self.messages - self.unmeasured
    }

    fn due(&self, message: u64) -> Instant {
        let nanos = u128::from(message) * 1_000_000_000 / u128::from(self.rate);
        self.started() + Duration::from_nanos(nanos as u64)
    }

    /// The latency of a stream's message that is answered now, numbered from one; `None` if it is of the warm-up.
    pub(super) fn latency(&self, stream: usize, number: u64) -> Option<Duration> {
        let message = (number - 1) * self.streams + stream as u64;
        (message >= self.unmeasured).then(|| Instant::now().saturating_duration_since(self.due(message)))
    }

    /// Hands every message over when it is due. Returns how late that was.
    pub(super) fn run(&self, streams: &[Due]) -> (Lags, Vec<Due>) {
        // Else the kernel may wake it 50 µs late, which would be part of every latency.
        if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
            eprintln!("the timer's slack stays as it is: {error}");
        }
        let mut lags = Lags::default();
        for message in 0..self.messages {
            let due = self.due(message);
            let mut now = Instant::now();
            if due > now {
                std::thread::sleep(due - now);
                now = Instant::now();
            }
            if message >= self.unmeasured {
                lags.record(now.saturating_duration_since(due));
            }
            let number = message / self.streams + 1;
            if let Some(stream) = streams.get((message % self.streams) as usize) {
                // A stream that has failed is reported by its task.
                let _ = stream.send(number);
            }
        }
        (lags, streams.to_vec())
    }
}
