//! The time of day, as it is written into the log.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub(crate) fn now_millis() -> u64 {
    #[cfg(test)]
    if let Some(millis) = stopped::now() {
        return millis;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64)
}

/// A time that stands still in one thread, for what must be the same whenever it runs.
#[cfg(test)]
pub(crate) mod stopped {
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<Option<u64>> = const { Cell::new(None) };
    }

    pub(super) fn now() -> Option<u64> {
        NOW.get()
    }

    /// Goes on when this is dropped: the thread may run other tests.
    pub(crate) struct Stopped(());

    /// Stops it.
    pub(crate) fn stop(millis: u64) -> Stopped {
        NOW.set(Some(millis));
        Stopped(())
    }

    impl Drop for Stopped {
        fn drop(&mut self) {
            NOW.set(None);
        }
    }
}
