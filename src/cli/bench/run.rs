//! What all parts of one run share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::arguments::Arguments;
use super::bits::Bits;
use super::latency::Latencies;
use super::ledger::Ledger;
use super::record::Record;
use super::schedule::Schedule;
use super::ticks::Ticks;
use crate::cli::Failure;

/// One run: its plan, and everything that is counted.
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) arguments: Arguments,
    pub(super) schedule: Schedule,
    pub(super) clock: Clock,
    /// Where `--tick-micros` is finer than the runtime's timers.
    pub(super) ticks: Option<Ticks>,
    pub(super) publish_latency: Mutex<Latencies>,
    pub(super) deliver_latency: Mutex<Latencies>,
    /// Numbers acknowledged, by producer.
    pub(super) acked: Vec<Mutex<Bits>>,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) record: Option<Mutex<Record>>,
    pub(super) first_rejection: Mutex<Option<String>>,
    pub(super) counts: Counts,
}

/// Messages so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) published: Count,
    pub(super) acknowledged: Count,
    pub(super) rejected: Count,
    pub(super) received: Count,
    pub(super) damaged: Count,
    pub(super) foreign: Count,
    pub(super) nacked: Count,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A steady clock that can be read as the time of day, so that two ends on one machine agree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
    start_unix: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        let start_unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            start: Instant::now(),
            start_unix,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn instant_of(&self, elapsed: Duration) -> tokio::time::Instant {
        (self.start + elapsed).into()
    }

    /// Nanoseconds since 1970 at a time of the run.
    pub(super) fn unix_nanos(&self, elapsed: Duration) -> u64 {
        (self.start_unix + elapsed).as_nanos() as u64
    }
}

impl Run {
    pub(super) fn new(arguments: Arguments) -> Result<Self, Failure> {
        let schedule = arguments.schedule()?;
        let publishers = u64::from(arguments.publishers);
        if schedule.is_paced() && schedule.limit().div_ceil(publishers) > super::load::MOST_NUMBERS {
            let most = super::load::MOST_NUMBERS;
            return Err(Failure::Usage(format!(
                "more than {most} messages for one publisher: use more publishers or a shorter load"
            )));
        }
        let record = arguments
            .record
            .as_ref()
            .map(|path| Record::open(path).map(Mutex::new))
            .transpose()?;
        let ticks = (schedule.is_paced() && arguments.tick() < super::load::TIMER)
            .then(|| Ticks::start(arguments.tick()))
            .transpose()
            .map_err(|error| Failure::of("starting a thread", error))?;
        let latencies = || Latencies::new().map(Mutex::new).map_err(Failure::Failed);
        Ok(Self {
            id: arguments.run_id.unwrap_or_else(rand::random),
            schedule,
            clock: Clock::start(),
            ticks,
            publish_latency: latencies()?,
            deliver_latency: latencies()?,
            acked: (0..arguments.publishers).map(|_| Mutex::default()).collect(),
            ledger: Mutex::default(),
            record,
            first_rejection: Mutex::default(),
            counts: Counts::default(),
            arguments,
        })
    }

    /// Messages that were acknowledged and not delivered so far.
    pub(super) fn undelivered(&self) -> u64 {
        if self.counts.acknowledged.get() == 0 {
            return 0;
        }
        let by_producer = self.acked.iter().enumerate().map(|(producer, acked)| {
            let delivered = self.ledger.lock().delivered_of(self.id, producer as u32);
            acked.lock().missing_in(&delivered)
        });
        by_producer.sum()
    }

    /// Some of them, as producer and number.
    pub(super) fn first_undelivered(&self, most: usize) -> Vec<(u32, u64)> {
        let mut found = Vec::new();
        for (producer, acked) in (0..).zip(&self.acked) {
            let delivered = self.ledger.lock().delivered_of(self.id, producer);
            let missing = acked.lock().first_missing_in(&delivered, most - found.len());
            found.extend(missing.into_iter().map(|number| (producer, number)));
            if found.len() == most {
                break;
            }
        }
        found
    }
}
