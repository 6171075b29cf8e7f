//! What is on its way to dead-letter topics: so many at a time, and those of a topic that takes none wait together,
//! so that other topics' letters pass.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Weak;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Store;
use super::dead::{Dead, Problem};

/// Dead letters that are on their way at a time.
const AT_ONCE: usize = 64;
/// A topic that took none is tried again after this time, which doubles up to the second one.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// Brings dead letters to their topics.
pub(super) async fn bury(store: Weak<Store>, mut dying: mpsc::UnboundedReceiver<Dead>) {
    let mut burial = Burial::default();
    loop {
        burial.start(&store);
        let wake_at = burial.wake_at();
        tokio::select! {
            dead = dying.recv() => match dead {
                Some(dead) => burial.queue.push_back(dead),
                None => return,
            },
            Some(tried) = burial.running.next() => burial.tried(&store, tried),
            () = sleep_until(wake_at) => burial.wake(&store),
        }
    }
}

/// A letter that was tried, what came of it, and the closed topic that it was to try.
struct Tried {
    dead: Dead,
    result: Result<bool, Problem>,
    probe: Option<String>,
}

#[derive(Default)]
struct Burial {
    queue: VecDeque<Dead>,
    running: FuturesUnordered<BoxFuture<'static, Tried>>,
    /// Topics that took none the last time.
    closed: HashMap<String, Closed>,
    /// Letters with a trouble of their own, by when they are tried again and a number.
    later: BTreeMap<(Instant, u64), Dead>,
    last: u64,
}

struct Closed {
    letters: VecDeque<Dead>,
    wait: Duration,
    /// When one of them is tried again; `None`: it is being tried.
    again: Option<Instant>,
    reason: String,
}

impl Burial {
    fn start(&mut self, store: &Weak<Store>) {
        while self.running.len() < AT_ONCE
            && let Some(dead) = self.queue.pop_front()
        {
            let Some(strong) = store.upgrade() else { return };
            if let Some(closed) = self.closed.get_mut(&strong.grave(&dead)) {
                closed.letters.push_back(dead);
                continue;
            }
            self.attempt(store.clone(), dead, None);
        }
    }

    fn attempt(&self, store: Weak<Store>, dead: Dead, probe: Option<String>) {
        self.running.push(Box::pin(async move {
            let result = match store.upgrade() {
                Some(store) => store.bury_one(&dead).await,
                None => Err(Problem::Letter("the broker stops".to_owned())),
            };
            Tried { dead, result, probe }
        }));
    }

    fn tried(&mut self, store: &Weak<Store>, tried: Tried) {
        let Some(store) = store.upgrade() else { return };
        let Tried {
            mut dead,
            result,
            probe,
        } = tried;
        if let Some(topic) = probe {
            if result.is_ok() {
                tracing::info!(topic, "it takes dead letters again");
                let closed = self.closed.remove(&topic);
                self.queue
                    .extend(closed.into_iter().flat_map(|closed| closed.letters));
            } else if let Some(closed) = self.closed.get_mut(&topic) {
                closed.wait = (closed.wait * 2).min(AGAIN.1);
                closed.again = Some(Instant::now() + closed.wait);
            }
        }
        match result {
            Ok(is_done) => {
                store.counters.waiting_dead_letters.decrement();
                if let Some(done) = dead.done.take().filter(|_| is_done) {
                    _ = done.send(());
                }
            }
            Err(Problem::Topic(topic, reason)) => self.close(&topic, reason, dead),
            Err(Problem::Letter(why)) => {
                let (offset, partition) = (dead.offset, &dead.partition);
                tracing::warn!(?partition, offset, why, "a dead letter waits");
                self.last += 1;
                self.later.insert((Instant::now() + AGAIN.1, self.last), dead);
            }
        }
    }

    /// A topic takes no letters now.
    fn close(&mut self, topic: &str, reason: String, dead: Dead) {
        let closed = self.closed.entry(topic.to_owned()).or_insert_with(|| Closed {
            letters: VecDeque::new(),
            wait: AGAIN.0,
            again: Some(Instant::now() + AGAIN.0),
            reason: String::new(),
        });
        if closed.reason != reason {
            tracing::warn!(
                topic,
                reason,
                "dead letters wait for their topic; their messages are kept until it takes them"
            );
            closed.reason = reason;
        }
        closed.letters.push_front(dead);
    }

    fn wake_at(&self) -> Option<Instant> {
        let closed = self.closed.values().filter_map(|closed| closed.again).min();
        let later = self.later.first_key_value().map(|((at, _), _)| *at);
        closed.into_iter().chain(later).min()
    }

    fn wake(&mut self, store: &Weak<Store>) {
        let now = Instant::now();
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= now
        {
            self.queue.push_back(entry.remove());
        }
        let mut probes = Vec::new();
        self.closed.retain(|topic, closed| {
            if closed.again.is_none_or(|at| at > now) {
                return true;
            }
            closed.again = None;
            probes.extend(closed.letters.pop_front().map(|dead| (topic.clone(), dead)));
            // Without letters there is nobody to try it, nor anybody who waits.
            probes.last().is_some_and(|(last, _)| last == topic)
        });
        for (topic, dead) in probes {
            self.attempt(store.clone(), dead, Some(topic));
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
