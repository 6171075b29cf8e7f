//! Runs tasks in one thread. Which of those that can go on does so next is drawn from the seed.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// A run that takes more steps than these makes no progress.
const MOST_STEPS: u64 = 3_000_000;

pub(super) struct Scheduler {
    random: StdRng,
    tasks: Vec<Task>,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
    waker: Waker,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Scheduler {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            tasks: Vec::new(),
        }
    }

    pub(super) fn spawn(&mut self, future: impl Future<Output = ()> + 'static) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.tasks.push(Task {
            future: Box::pin(future),
            waker: Waker::from(Arc::clone(&woken)),
            woken,
        });
    }

    /// Runs until it is over; returns the number of steps. `situation` is told where it does not end.
    pub(super) fn run(mut self, is_over: impl Fn() -> bool, situation: impl Fn() -> String) -> u64 {
        let mut steps = 0;
        while !is_over() {
            let ready: Vec<usize> = (0..self.tasks.len())
                .filter(|&index| self.tasks[index].woken.0.load(Ordering::Relaxed))
                .collect();
            assert!(!ready.is_empty(), "everybody waits: {}", situation());
            assert!(steps < MOST_STEPS, "no end after {steps} steps: {}", situation());
            steps += 1;
            let index = ready[self.random.random_range(0..ready.len())];
            let task = &mut self.tasks[index];
            task.woken.0.store(false, Ordering::Relaxed);
            let mut context = Context::from_waker(&task.waker);
            if task.future.as_mut().poll(&mut context).is_ready() {
                drop(self.tasks.swap_remove(index));
            }
        }
        steps
    }
}

/// Lets the others go first, so many times.
pub(super) async fn turns(count: u32) {
    for _ in 0..count {
        let passed = Cell::new(false);
        std::future::poll_fn(|context| {
            if passed.replace(true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
