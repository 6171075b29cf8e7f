//! What happens without being asked: deadlines, retention.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::dead::Dead;
use super::forgetting::UNUSED;
use super::{Settings, Store};
use crate::broker::clock::now_millis;
use crate::broker::partition::Partition;
use crate::broker::partition::entry::Phase;
use crate::broker::partition::index::Part;
use crate::broker::partition::ops::{Change, EntryOp};

/// Deadlines are looked at so often; a redelivery is at most so late.
const TICK: Duration = Duration::from_millis(100);
/// Groups without members are looked at so often.
const FORGETTING: Duration = Duration::from_secs(60);
/// Retention is looked at so often.
const RETENTION: Duration = Duration::from_secs(5);

/// The tasks of a store.
#[derive(Debug)]
pub(crate) struct Background {
    closed: CancellationToken,
    /// Messages that are to be given up.
    pub(super) dead: tokio::sync::mpsc::UnboundedSender<Dead>,
}

impl Store {
    /// Starts the tasks, if they do not run and there is a runtime to run them on.
    pub(super) fn start_background(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut background = self.background.lock();
        if background.is_some() {
            return;
        }
        let closed = CancellationToken::new();
        let (dead, dying) = tokio::sync::mpsc::unbounded_channel();
        runtime.spawn(closed.clone().run_until_cancelled_owned(keep(self.me.clone())));
        runtime.spawn(
            closed
                .clone()
                .run_until_cancelled_owned(super::burial::bury(self.me.clone(), dying)),
        );
        *background = Some(Background { closed, dead });
    }

    /// Keeps what is to be given up for whoever takes the steps, where nothing runs in the background.
    #[cfg(test)]
    pub(super) fn keep_dead(&self) -> tokio::sync::mpsc::UnboundedReceiver<Dead> {
        let (dead, dying) = tokio::sync::mpsc::unbounded_channel();
        let closed = CancellationToken::new();
        *self.background.lock() = Some(Background { closed, dead });
        dying
    }

    pub(super) fn stop_background(&self) {
        if let Some(background) = &*self.background.lock() {
            background.closed.cancel();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.background
            .lock()
            .as_ref()
            .is_some_and(|background| background.closed.is_cancelled())
    }

    /// Gives messages up, in the background.
    pub(crate) fn bury(&self, dead: Vec<Dead>) {
        if let Some(background) = &*self.background.lock() {
            for dead in dead {
                self.counters.waiting_dead_letters.increment();
                _ = background.dead.send(dead);
            }
        }
    }

    fn tick(&self) {
        let now = tokio::time::Instant::now();
        for topic in self.all_topics() {
            for hub in topic.hubs() {
                hub.tick(now);
            }
        }
    }

    /// Trims what may go, and deletes segments in which nothing lives. Blocking.
    pub(crate) fn retain(&self) {
        self.trim_all();
        self.delete_segments();
        futures::executor::block_on(self.compact());
        self.scrub();
    }

    /// Trims what may go in all partitions, and opens entries for which there was no room on the disk.
    pub(crate) fn trim_all(&self) {
        for topic in self.all_topics() {
            let settings = topic.settings();
            for partition in topic.partitions() {
                let open = partition.view().open.clone();
                if let Some(open) = open.filter(|open| open.state().phase == Phase::Opening) {
                    drop(partition.submit(&open, Change::Open));
                }
                self.trim(&partition, &settings);
            }
        }
    }

    /// Trims the entries of one partition on this disk.
    fn trim(&self, partition: &Partition, settings: &Settings) {
        let (mut epochs, served) = {
            let view = partition.view();
            let mut epochs: Vec<u64> = view.sealed.iter().map(|link| link.epoch).collect();
            epochs.extend(view.open.as_ref().map(|open| open.id.epoch));
            (epochs, view.open.clone())
        };
        // The newest first, since the bound in bytes keeps the newest.
        epochs.reverse();
        let floor = served.filter(|_| settings.work_queue).and_then(|open| {
            let state = open.state();
            state
                .groups
                .values()
                .map(|progress| progress.floor)
                .min()
                .filter(|_| !state.needs_handoff)
        });
        let oldest = settings
            .retention_age
            .map(|age| now_millis().saturating_sub(age.as_millis() as u64));
        // The newest piece stays, however small the bound: what was acknowledged just now can be read.
        let mut newest = true;
        let mut bytes = 0;
        for epoch in epochs {
            let Some(entry) = self.registry.get(&partition.entry_id(epoch)) else {
                continue;
            };
            let mut over = None;
            let (mut start, before) = {
                let state = entry.state();
                if !matches!(state.phase, Phase::Open | Phase::Sealed) {
                    continue;
                }
                let mut start = state.start;
                if let Some(oldest) = oldest {
                    // What a finished segment holds of an entry goes when all of it is old enough.
                    let since = state.index.since(oldest);
                    start = start.max(since.map_or(state.committed, |part| part.base()));
                }
                if let Some(floor) = floor {
                    let floor = crate::broker::store::Offset(floor);
                    if floor.epoch() > epoch {
                        start = state.committed;
                    } else if floor.epoch() == epoch {
                        start = start.max(floor.position().min(state.committed));
                    }
                }
                if settings.retention_bytes > 0 {
                    for part in state.index.iter().rev() {
                        bytes += part.bytes();
                        if bytes > settings.retention_bytes {
                            over = Some((*part, bytes - settings.retention_bytes, newest));
                            break;
                        }
                        newest = false;
                    }
                }
                (start, state.start)
            };
            if let Some((part, over, newest)) = over {
                start = start.max(self.without(entry.number, &part, over, newest));
            }
            if start > before {
                let (op, _) = EntryOp::new(&entry, Change::Trim(start));
                self.journal.submit(op);
            }
        }
    }

    /// Where a part begins when at least so many of its first bytes are taken away; but the newest piece of all stays.
    fn without(&self, entry: u32, part: &Part, mut over: u64, newest: bool) -> u64 {
        let (base, end) = (part.base(), part.end());
        let Part::Run(run) = part else {
            return if newest { base } else { end };
        };
        let pieces = match self.journal.pieces(entry, run) {
            Ok(pieces) => pieces,
            Err(error) => {
                tracing::warn!(%error, "an index cannot be read: more is kept than should be");
                return base;
            }
        };
        for (index, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.end() > base) {
            if newest && index + 1 == pieces.len() {
                return piece.base;
            }
            over = over.saturating_sub(u64::from(piece.at.len));
            if over == 0 {
                return piece.end().min(end);
            }
        }
        end
    }

    /// Deletes segments in which nothing lives.
    pub(crate) fn delete_segments(&self) {
        // In this order: a batch that is committed meanwhile lies in a segment that is not finished yet.
        let finished = self.journal.finished_segments();
        if finished.is_empty() {
            return;
        }
        let mut live = self.registry.damaged_segments.lock().clone();
        for entry in self.registry.all() {
            let state = entry.state();
            live.extend(state.index.iter().map(Part::segment));
        }
        let gone: Vec<_> = finished
            .into_iter()
            .filter(|number| !live.contains(number))
            .collect();
        if !gone.is_empty() {
            // What was moved out of them, and what says that the rest is not wanted.
            self.journal.sync();
        }
        for number in gone {
            match self.journal.remove_segment(number) {
                Ok(()) => tracing::debug!(number, "deleted a segment in which nothing was kept"),
                Err(error) => tracing::warn!(number, %error, "a segment cannot be deleted"),
            }
        }
    }
}

async fn keep(store: std::sync::Weak<Store>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut retained = tokio::time::Instant::now();
    let mut forgot = retained;
    loop {
        ticks.tick().await;
        let Some(store) = store.upgrade() else { return };
        store.tick();
        if retained.elapsed() >= RETENTION {
            retained = tokio::time::Instant::now();
            let is_forgetting = forgot.elapsed() >= FORGETTING;
            if is_forgetting {
                forgot = retained;
            }
            let kept = tokio::task::spawn_blocking({
                let store = Arc::clone(&store);
                move || {
                    if is_forgetting {
                        store.forget_groups(UNUSED);
                    }
                    store.retain();
                }
            });
            if kept.await.is_err() {
                tracing::error!("looking after retention failed");
            }
        }
    }
}
