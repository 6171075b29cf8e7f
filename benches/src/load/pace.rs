//! When each message is due. Message `k` of the load goes to stream `k` modulo the number of streams, at an even pace.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Load;
use super::latency::Latencies;
use super::stream::Stream;

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

    /// Has every message sent when it is due; says how late that was.
    ///
    /// It looks at the clock and at the sockets without end and never sleeps: on a virtual machine a thread that is
    /// woken is tens of microseconds late, which would be a large part of every latency.
    pub(super) async fn run(&self, streams: &[Arc<Mutex<Stream>>]) -> anyhow::Result<Latencies> {
        let lags = Latencies::new()?;
        for message in 0..self.messages {
            let due = self.due(message);
            // What is sent goes out, and answers come in, also when this is late.
            tokio::task::yield_now().await;
            while Instant::now() < due {
                tokio::task::yield_now().await;
            }
            if message >= self.unmeasured {
                lags.record(due.elapsed());
            }
            let number = message / self.streams + 1;
            if let Some(stream) = streams.get((message % self.streams) as usize) {
                stream.lock().due(number);
            }
        }
        Ok(lags)
    }
}
