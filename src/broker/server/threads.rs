//! The threads that serve connections. Each has an event loop of its own and keeps the connections it was given: a
//! message is read, stored and answered by one thread, and none is woken to look whether there is work to be taken
//! over (`docs/decisions/0025`).

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Turns of tasks until the loop looks for what came in on other connections: one that floods the broker takes a turn
/// of up to a millisecond each time.
const TURNS: u32 = 8;

/// Where connections are served. Dropping it ends what is still open.
pub struct Threads {
    threads: Vec<Thread>,
    stop: CancellationToken,
}

struct Thread {
    handle: Handle,
    /// Handed out to each connection that the thread serves.
    served: Served,
    /// None where it is the runtime that was there already.
    join: Option<JoinHandle<()>>,
}

/// Counts one connection for its thread until it is dropped.
#[derive(Clone, Default)]
pub(super) struct Served(Arc<()>);

impl Thread {
    /// Connections that it serves.
    fn load(&self) -> usize {
        Arc::strong_count(&self.served.0) - 1
    }
}

impl Threads {
    /// Starts `count` of them; one alone would only be a detour, so then it is the present runtime.
    ///
    /// # Errors
    /// The system gives no thread, or no event loop.
    pub fn start(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        if count < 2 {
            let thread = Thread {
                handle: Handle::current(),
                served: Served::default(),
                join: None,
            };
            return Ok(Self {
                threads: vec![thread],
                stop,
            });
        }
        let threads = (0..count)
            .map(|index| {
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .event_interval(TURNS)
                    .build()?;
                let handle = runtime.handle().clone();
                let stop = stop.clone();
                let join = std::thread::Builder::new()
                    .name(format!("connections-{index}"))
                    .spawn(move || {
                        runtime.block_on(stop.cancelled());
                        runtime.shutdown_background();
                    })?;
                Ok(Thread {
                    handle,
                    served: Served::default(),
                    join: Some(join),
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { threads, stop })
    }

    /// The thread with the fewest connections, and what counts one more for as long as it is kept.
    pub(super) fn choose(&self) -> Option<(&Handle, Served)> {
        let thread = self.threads.iter().min_by_key(|thread| thread.load())?;
        Some((&thread.handle, thread.served.clone()))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in &mut self.threads {
            if thread.join.take().is_some_and(|join| join.join().is_err()) {
                tracing::error!("a thread that served connections has panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_go_where_the_fewest_are_and_end_with_the_threads() {
        let threads = Threads::start(2).unwrap();
        let served: Vec<_> = (0..4).map(|_| threads.choose().unwrap().1).collect();
        let loads = |threads: &Threads| -> Vec<usize> { threads.threads.iter().map(Thread::load).collect() };
        assert_eq!(loads(&threads), [2, 2]);
        drop(served);
        let (handle, served) = threads.choose().unwrap();
        let (told, ended) = tokio::sync::oneshot::channel::<()>();
        handle.spawn(async move {
            let _kept = (told, served);
            std::future::pending::<()>().await;
        });
        assert_eq!(loads(&threads), [1, 0]);
        drop(threads);
        assert!(ended.await.is_err(), "its end was dropped");
    }
}
