//! The threads that serve connections, each with an event loop of its own: a message is read, stored and answered by one
//! thread, and none is woken to look whether there is work to be taken over (`docs/decisions/0025`).
//!
//! While one thread is enough it serves all connections, which costs fewer wakes, and nobody holds the journal while
//! another waits for it. When it has much to do, connections are served where their seats are; each moves when something
//! comes in on it, so that those that are quiet cost nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::balance::Balance;
use crate::broker::pace;

/// Turns of tasks until the loop looks for what came in on other connections: one that floods the broker takes a turn
/// of up to a millisecond each time.
const TURNS: u32 = 8;
/// How often it is looked how busy the threads are.
const LOOK: Duration = Duration::from_millis(250);

/// Where connections are served. Dropping it ends what is still open.
pub struct Threads {
    places: Arc<Places>,
    /// Empty where the only one is the runtime that was there already.
    joins: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

struct Places {
    threads: Vec<Thread>,
    /// Connections are served where their seats are, and not all by the first thread.
    spread: AtomicBool,
}

struct Thread {
    handle: Handle,
    /// Handed out to each connection that has its seat here.
    taken: Arc<()>,
}

/// A connection's place among the threads, counted until it is dropped.
pub(super) struct Seat {
    places: Arc<Places>,
    index: usize,
    _taken: Arc<()>,
}

impl Seat {
    /// The number of the thread that is to serve the connection now.
    pub(super) fn thread(&self) -> usize {
        if self.places.spread.load(Ordering::Relaxed) {
            self.index
        } else {
            0
        }
    }

    /// The event loop of a thread.
    pub(super) fn handle(&self, thread: usize) -> Option<&Handle> {
        self.places.threads.get(thread).map(|thread| &thread.handle)
    }
}

impl Threads {
    /// Starts `count` of them; one alone would only be a detour, so then it is the present runtime.
    ///
    /// # Errors
    /// The system gives no thread, or no event loop.
    pub fn start(count: usize) -> io::Result<Self> {
        let threads = Self::gathered(count)?;
        if count >= 2 {
            let balance = balance(Arc::clone(&threads.places));
            tokio::spawn(threads.stop.clone().run_until_cancelled_owned(balance));
        }
        Ok(threads)
    }

    /// The same; the first serves all connections until it is told otherwise.
    pub(super) fn gathered(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut joins = Vec::new();
        let mut threads = Vec::new();
        let mut add = |handle| {
            let taken = Arc::default();
            threads.push(Thread { handle, taken });
        };
        if count < 2 {
            add(Handle::current());
        } else {
            for index in 0..count {
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .event_interval(TURNS)
                    .on_thread_park(pace::before_sleep)
                    .build()?;
                add(runtime.handle().clone());
                let stop = stop.clone();
                let thread = std::thread::Builder::new().name(format!("connections-{index}"));
                joins.push(thread.spawn(move || {
                    runtime.block_on(stop.cancelled());
                    runtime.shutdown_background();
                })?);
            }
        }
        let spread = AtomicBool::new(false);
        let places = Arc::new(Places { threads, spread });
        Ok(Self { places, joins, stop })
    }

    #[cfg(test)]
    pub(super) fn spread(&self, spread: bool) {
        self.places.spread.store(spread, Ordering::Relaxed);
    }

    /// Tasks on each thread.
    #[cfg(test)]
    pub(super) fn tasks(&self) -> Vec<usize> {
        let threads = self.places.threads.iter();
        threads
            .map(|thread| thread.handle.metrics().num_alive_tasks())
            .collect()
    }

    /// A seat at the thread where the fewest are taken.
    pub(super) fn seat(&self) -> Option<Seat> {
        let seated = |(_, thread): &(usize, &Thread)| Arc::strong_count(&thread.taken);
        let (index, thread) = self.places.threads.iter().enumerate().min_by_key(seated)?;
        Some(Seat {
            places: Arc::clone(&self.places),
            index,
            _taken: Arc::clone(&thread.taken),
        })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.cancel();
        for join in self.joins.drain(..) {
            if join.join().is_err() {
                tracing::error!("a thread that served connections has panicked");
            }
        }
    }
}

/// Looks again and again how much there is to do, and spreads or gathers the connections.
async fn balance(places: Arc<Places>) {
    let busy = || -> Duration {
        let threads = places.threads.iter();
        threads
            .map(|thread| thread.handle.metrics().worker_total_busy_duration(0))
            .sum()
    };
    let mut balance = Balance::default();
    let mut last = (Instant::now(), busy());
    loop {
        tokio::time::sleep(LOOK).await;
        let now = (Instant::now(), busy());
        let share = now.1.saturating_sub(last.1).as_secs_f64() / (now.0 - last.0).as_secs_f64();
        last = now;
        places.spread.store(balance.is_spread(share), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn seats_are_given_where_the_fewest_are_and_connections_end_with_the_threads() {
        let threads = Threads::gathered(2).unwrap();
        let seats: Vec<_> = (0..4).map(|_| threads.seat().unwrap()).collect();
        let given = |seats: &[Seat]| -> Vec<usize> { seats.iter().map(|seat| seat.index).collect() };
        assert_eq!(given(&seats), [0, 1, 0, 1]);
        drop(seats);
        let seats: Vec<_> = (0..2).map(|_| threads.seat().unwrap()).collect();
        assert_eq!(given(&seats), [0, 1]);
        let on = |seats: &[Seat]| -> Vec<usize> { seats.iter().map(Seat::thread).collect() };
        assert_eq!(on(&seats), [0, 0]);
        threads.spread(true);
        assert_eq!(on(&seats), [0, 1]);

        let (told, ended) = tokio::sync::oneshot::channel::<()>();
        seats[1].handle(1).unwrap().spawn(async move {
            let _kept = told;
            std::future::pending::<()>().await;
        });
        drop(threads);
        assert!(ended.await.is_err(), "its end was dropped");
    }
}
