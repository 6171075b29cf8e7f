//! Wakes publishers more often than the runtime's timers can, which tick in whole milliseconds: from a thread that
//! sleeps.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// A thread that ticks until this is dropped.
pub(super) struct Ticks {
    tick: Arc<Notify>,
    is_over: Arc<AtomicBool>,
}

impl Ticks {
    /// Ticks every `period`, or as soon after it as the system wakes the thread.
    pub(super) fn start(period: Duration) -> io::Result<Self> {
        let ticks = Self {
            tick: Arc::default(),
            is_over: Arc::default(),
        };
        let (tick, is_over) = (Arc::clone(&ticks.tick), Arc::clone(&ticks.is_over));
        std::thread::Builder::new()
            .name("ticks".to_owned())
            .spawn(move || {
                // Else the kernel may wake it 50 µs late.
                if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
                    tracing::debug!(%error, "the timer's slack stays as it is");
                }
                while !is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(period);
                    tick.notify_waiters();
                }
            })?;
        Ok(ticks)
    }

    /// Waits for the next tick.
    pub(super) async fn next(&self) {
        self.tick.notified().await;
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}
