//! The time of day, as it is written into the log, and the time that deadlines go by.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// What deadlines are counted from.
pub(crate) fn now() -> Instant {
    #[cfg(test)]
    if let Some(instant) = stopped::instant() {
        return instant;
    }
    Instant::now()
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_millis() -> u64 {
    #[cfg(test)]
    if let Some(millis) = stopped::millis() {
        return millis;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64)
}

/// A time that goes on in one thread only when it is told to, for what must be the same whenever it runs.
#[cfg(test)]
pub(crate) mod stopped {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::time::Instant;

    thread_local! {
        static CLOCK: Cell<Option<Clock>> = const { Cell::new(None) };
    }

    #[derive(Clone, Copy)]
    struct Clock {
        stopped_at: Instant,
        millis: u64,
        /// Since it was stopped.
        later: u64,
    }

    pub(super) fn millis() -> Option<u64> {
        CLOCK.get().map(|clock| clock.millis + clock.later)
    }

    pub(super) fn instant() -> Option<Instant> {
        CLOCK
            .get()
            .map(|clock| clock.stopped_at + Duration::from_millis(clock.later))
    }

    /// Goes on when this is dropped: the thread may run other tests.
    pub(crate) struct Stopped(());

    /// Stops it.
    pub(crate) fn stop(millis: u64) -> Stopped {
        CLOCK.set(Some(Clock {
            stopped_at: Instant::now(),
            millis,
            later: 0,
        }));
        Stopped(())
    }

    /// So much later.
    pub(crate) fn advance(millis: u64) {
        let later = |clock: Clock| Clock {
            later: clock.later + millis,
            ..clock
        };
        CLOCK.set(CLOCK.get().map(later));
    }

    impl Drop for Stopped {
        fn drop(&mut self) {
            CLOCK.set(None);
        }
    }
}
