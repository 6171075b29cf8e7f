//! Time that streams spend in a state, summed over streams. Exact at any moment, also while a span lasts, without
//! a timer a stream: the sum over open spans of (now - start) is (spans * now - sum of starts).

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A clock that runs once for each span that is open.
#[derive(Debug)]
pub struct SpanClock {
    origin: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: u64,
    starts: u128,
    closed: u128,
    reported: u64,
}

impl SpanClock {
    /// A clock that stands at zero.
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            state: Mutex::default(),
        }
    }

    fn nanos(&self, at: Instant) -> u128 {
        at.saturating_duration_since(self.origin).as_nanos()
    }

    /// A span begins.
    pub fn start(&self, at: Instant) {
        let start = self.nanos(at);
        let mut state = self.state.lock();
        state.open += 1;
        state.starts += start;
    }

    /// A span that began at `start` ends at `at`.
    pub fn stop(&self, start: Instant, at: Instant) {
        let (start, end) = (self.nanos(start), self.nanos(at.max(start)));
        let mut state = self.state.lock();
        state.open -= 1;
        state.starts -= start;
        state.closed += end - start;
    }

    /// Adds time that was not measured here.
    pub fn add(&self, time: Duration) {
        self.state.lock().closed += time.as_nanos();
    }

    /// Nanoseconds that passed since the last call; never negative.
    pub fn take(&self) -> u64 {
        let now = self.nanos(Instant::now());
        let mut state = self.state.lock();
        let total = state.closed + (u128::from(state.open) * now).saturating_sub(state.starts);
        let total = u64::try_from(total).unwrap_or(u64::MAX).max(state.reported);
        let news = total - state.reported;
        state.reported = total;
        news
    }
}

impl Default for SpanClock {
    fn default() -> Self {
        Self::new()
    }
}

/// The two clocks of publishing, over all streams.
#[derive(Debug, Default)]
pub struct PublishClocks {
    /// All credit used.
    pub blocked: SpanClock,
    /// Anything unacknowledged.
    pub active: SpanClock,
}

/// One publish stream's part in them. Dropping it ends its spans.
#[derive(Debug)]
pub struct StreamClock {
    clocks: std::sync::Arc<PublishClocks>,
    blocked_since: Option<Instant>,
    active_since: Option<Instant>,
    last_batch: Instant,
    /// Measured here since the last batch, not counting the spans that are open.
    blocked: Duration,
    active: Duration,
}

impl StreamClock {
    /// Neither blocked nor active.
    pub fn new(clocks: std::sync::Arc<PublishClocks>) -> Self {
        Self {
            clocks,
            blocked_since: None,
            active_since: None,
            last_batch: Instant::now(),
            blocked: Duration::ZERO,
            active: Duration::ZERO,
        }
    }

    /// Says how it is from now on.
    pub fn update(&mut self, now: Instant, active: bool, blocked: bool) {
        turn(
            &self.clocks.active,
            &mut self.active_since,
            &mut self.active,
            now,
            active,
        );
        turn(
            &self.clocks.blocked,
            &mut self.blocked_since,
            &mut self.blocked,
            now,
            active && blocked,
        );
    }

    /// A batch came, before which messages waited in the client for `waited`. Where that is longer than what was
    /// measured here since the last batch, it counts instead; it cannot be longer than the time since then.
    pub fn batch(&mut self, now: Instant, waited: Duration) {
        if !waited.is_zero() {
            let open = |since: Option<Instant>| {
                since.map_or(Duration::ZERO, |since| now - since.max(self.last_batch).min(now))
            };
            let blocked = self.blocked + open(self.blocked_since);
            let active = self.active + open(self.active_since);
            let waited = waited.min(now.saturating_duration_since(self.last_batch));
            self.clocks.blocked.add(waited.saturating_sub(blocked));
            self.clocks.active.add(waited.saturating_sub(active));
        }
        self.last_batch = now;
        self.blocked = Duration::ZERO;
        self.active = Duration::ZERO;
    }
}

fn turn(clock: &SpanClock, since: &mut Option<Instant>, sum: &mut Duration, now: Instant, on: bool) {
    match *since {
        None if on => {
            clock.start(now);
            *since = Some(now);
        }
        Some(start) if !on => {
            clock.stop(start, now);
            *sum += now.saturating_duration_since(start);
            *since = None;
        }
        _ => {}
    }
}

impl Drop for StreamClock {
    fn drop(&mut self) {
        self.update(Instant::now(), false, false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn open_spans_count_while_they_last_and_no_time_twice() {
        let clock = SpanClock::new();
        let start = Instant::now();
        clock.start(start);
        std::thread::sleep(Duration::from_millis(5));
        let first = clock.take();
        assert!(first >= 5_000_000);
        let end = Instant::now();
        clock.stop(start, end);
        let total = (end - start).as_nanos() as u64;
        assert_eq!(first + clock.take(), total);
        assert_eq!(clock.take(), 0);
    }

    #[test]
    fn what_the_client_waited_counts_where_it_is_more_and_active_is_never_less_than_blocked() {
        let clocks = Arc::new(PublishClocks::default());
        let mut stream = StreamClock::new(Arc::clone(&clocks));
        std::thread::sleep(Duration::from_millis(4));
        stream.batch(Instant::now(), Duration::from_millis(3));
        assert_eq!(clocks.blocked.take(), 3_000_000);
        assert_eq!(clocks.active.take(), 3_000_000);
        stream.batch(Instant::now(), Duration::from_secs(3600));
        assert!(
            clocks.blocked.take() < 1_000_000_000,
            "no longer than the time that passed"
        );
    }

    #[test]
    fn a_stream_that_goes_away_stops_both_clocks() {
        let clocks = Arc::new(PublishClocks::default());
        let mut stream = StreamClock::new(Arc::clone(&clocks));
        stream.update(Instant::now(), true, true);
        drop(stream);
        clocks.blocked.take();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clocks.blocked.take(), 0);
    }
}
