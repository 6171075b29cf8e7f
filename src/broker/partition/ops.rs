//! Everything but appends that goes into the journal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::codec;
use super::entry::{Entry, EntryState, Phase};
use super::index::Piece;
use super::producers::Producers;
use super::progress::Progress;
use super::registry::{Registry, merge};
use crate::broker::log::{Frames, Kind, Meta, Op};

/// What an operation does.
pub(crate) enum Change {
    /// The entry takes appends from now on.
    Open,
    /// It takes none any more.
    Seal,
    /// It is deleted. The registry forgets it.
    Drop(Arc<Registry>),
    /// A group got on.
    Progress(String, Progress),
    /// A group is forgotten.
    Forget(String),
    /// The state of the entry before.
    Handoff(Vec<(String, Progress)>, Producers),
    /// A copy begins at this position.
    Copying(u64),
    /// Batches of a copy: first position, number, time, payload.
    Copied(Vec<(u64, u32, u64, Bytes)>),
    /// The copy is whole.
    CopyDone,
    /// Positions below are gone.
    Trim(u64),
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeError {
    /// The entry is sealed: what is known of it does not change any more.
    #[error("the entry is sealed")]
    Sealed,
    /// The journal did not take it.
    #[error("{0}")]
    Log(String),
}

/// Where the answer to a change comes: the entry's number of positions.
pub(crate) type ChangeAnswer = oneshot::Receiver<Result<u64, ChangeError>>;

/// A change of one entry on its way to the disk.
pub(crate) struct EntryOp {
    entry: Arc<Entry>,
    change: Change,
    size: usize,
    reply: oneshot::Sender<Result<u64, ChangeError>>,
    outcome: Result<u64, ChangeError>,
    undo: Option<Before>,
    pieces: Vec<Piece>,
}

/// What an entry was before a change.
#[derive(Clone, Copy)]
struct Before {
    phase: Phase,
    start: u64,
    next: u64,
}

impl EntryOp {
    /// The operation, and where its answer comes.
    pub(crate) fn new(entry: &Arc<Entry>, change: Change) -> (Box<Self>, ChangeAnswer) {
        let (reply, answer) = oneshot::channel();
        let size = change.size(entry);
        let op = Self {
            entry: Arc::clone(entry),
            change,
            size,
            reply,
            outcome: Ok(0),
            undo: None,
            pieces: Vec::new(),
        };
        (Box::new(op), answer)
    }
}

impl Change {
    fn size(&self, entry: &Entry) -> usize {
        let names = entry.id.topic.len() + entry.id.topic_uid.len();
        let progress = |p: &Progress| 64 + 20 * (p.done.len() + p.counts.len());
        256 + 2 * names
            + match self {
                Self::Progress(group, delta) => group.len() + progress(delta),
                Self::Forget(group) => group.len(),
                Self::Handoff(groups, producers) => {
                    groups.iter().map(|(g, p)| g.len() + progress(p)).sum::<usize>()
                        + producers
                            .iter()
                            .map(|(p, w)| p.len() + 40 + 20 * w.iter().count())
                            .sum::<usize>()
                }
                Self::Copied(batches) => batches.iter().map(|(_, _, _, payload)| payload.len() + 72).sum(),
                Self::Seal => 4096,
                _ => 0,
            }
    }
}

/// What changes in memory when the record is written, or why it is not to be.
fn begin(change: &mut Change, entry: &Entry, state: &mut EntryState) -> Result<bool, ChangeError> {
    let open = state.phase == Phase::Open;
    let copying = matches!(state.phase, Phase::Copying { .. });
    match change {
        Change::Open => {
            let opening = state.phase == Phase::Opening;
            if opening {
                state.phase = Phase::Open;
            }
            Ok(opening)
        }
        Change::Seal => match state.phase {
            Phase::Open => {
                state.phase = Phase::Sealed;
                Ok(true)
            }
            Phase::Sealed => Ok(false),
            phase => Err(ChangeError::Log(format!("it is not open here but {phase:?}"))),
        },
        Change::Drop(registry) => {
            state.phase = Phase::Dropped;
            registry.remove(&entry.id);
            Ok(true)
        }
        Change::Progress(group, delta) => {
            if !open {
                return Err(ChangeError::Sealed);
            }
            state.groups.entry(group.clone()).or_default().apply(delta);
            Ok(true)
        }
        Change::Forget(group) => {
            if !open {
                return Err(ChangeError::Sealed);
            }
            state.groups.remove(group);
            Ok(true)
        }
        Change::Handoff(groups, producers) => {
            // One that was sealed before its handoff came took nothing from producers with an id and served no group.
            let is_late = state.phase == Phase::Sealed && state.needs_handoff;
            if !open && !copying && !is_late {
                return Err(ChangeError::Sealed);
            }
            merge(state, groups.clone());
            for (producer, window) in producers.iter() {
                state.producers.insert(producer.clone(), window.clone());
            }
            Ok(true)
        }
        Change::CopyDone | Change::Copied(_) if !copying => Err(ChangeError::Log(format!(
            "it is not being copied but {:?}",
            state.phase
        ))),
        Change::CopyDone => {
            state.phase = Phase::Sealed;
            Ok(true)
        }
        Change::Copied(batches) => {
            batches.retain(|(base, count, ..)| base + u64::from(*count) > state.next);
            Ok(!batches.is_empty())
        }
        Change::Trim(start) => {
            state.start = state.start.max(*start);
            if copying {
                state.next = state.next.max(*start);
            }
            Ok(true)
        }
        Change::Copying(_) => Ok(true),
    }
}

/// The record with which an entry begins. Twice: everything that comes after it would be nobody's if it were damaged.
fn push_birth(frames: &mut Frames, meta: Meta, entry: &Entry, value: u64) {
    for _ in 0..2 {
        frames.push(meta, |out| {
            codec::put_id(out, &entry.id);
            codec::put_u64(out, value);
        });
    }
}

impl Op for EntryOp {
    fn size(&self) -> usize {
        self.size
    }

    fn prepare(&mut self, frames: &mut Frames) {
        let now = frames.timestamp();
        let entry = Arc::clone(&self.entry);
        let counts = match self.change {
            Change::Seal => entry
                .watcher()
                .map(|watcher| watcher.counts())
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        let mut state = entry.state();
        let before = Before {
            phase: state.phase,
            start: state.start,
            next: state.next,
        };
        let write = begin(&mut self.change, &entry, &mut state);
        self.outcome = write.as_ref().map(|_| state.next).map_err(Clone::clone);
        if write != Ok(true) {
            return;
        }
        self.undo = Some(before);
        let mut meta = entry.meta(Kind::Mark, now);
        match &self.change {
            Change::Open => {
                meta.kind = Kind::EntryOpened;
                push_birth(frames, meta, &entry, u64::from(state.needs_handoff));
            }
            Change::Copying(start) => {
                meta.kind = Kind::EntryCopying;
                meta.base = *start;
                let Phase::Copying { sealed_at } = state.phase else {
                    return;
                };
                push_birth(frames, meta, &entry, sealed_at);
            }
            Change::Seal | Change::CopyDone => {
                meta.kind = Kind::EntrySealed;
                meta.base = state.next;
                let groups: BTreeMap<String, Progress> = counts
                    .into_iter()
                    .map(|(group, counts)| {
                        (
                            group,
                            Progress {
                                counts,
                                ..Progress::default()
                            },
                        )
                    })
                    .collect();
                frames.push(meta, |out| codec::put_groups(out, groups.iter()));
                merge(&mut state, groups.into_iter().collect());
            }
            Change::Drop(_) => {
                meta.kind = Kind::EntryDropped;
                frames.push(meta, |_| {});
            }
            Change::Progress(group, delta) => {
                meta.kind = Kind::Progress;
                frames.push(meta, |out| codec::put_progress(out, group, delta));
            }
            Change::Forget(group) => {
                meta.kind = Kind::Forgotten;
                frames.push(meta, |out| codec::put_bytes(out, group.as_bytes()));
            }
            Change::Handoff(groups, producers) => {
                meta.kind = Kind::Handoff;
                let groups: BTreeMap<_, _> = groups.iter().cloned().collect();
                frames.push(meta, |out| {
                    codec::put_groups(out, groups.iter());
                    codec::put_producers(out, producers);
                });
            }
            Change::Copied(batches) => {
                for (base, count, timestamp, payload) in batches {
                    let meta = Meta {
                        kind: Kind::Batch,
                        entry: entry.number,
                        base: *base,
                        count: *count,
                        timestamp: *timestamp,
                    };
                    let at = frames.push(meta, |out| out.extend_from_slice(payload));
                    self.pieces.push(Piece {
                        base: *base,
                        count: *count,
                        at,
                        timestamp: *timestamp,
                    });
                    state.next = state.next.max(base + u64::from(*count));
                }
                self.outcome = Ok(state.next);
            }
            Change::Trim(start) => {
                meta.kind = Kind::Trim;
                meta.base = *start;
                frames.push(meta, |_| {});
            }
        }
    }

    fn commit(self: Box<Self>) {
        let mut state = self.entry.state();
        if self.outcome.is_ok() {
            match &self.change {
                Change::Handoff(..) => state.needs_handoff = false,
                Change::Trim(start) => {
                    state.index.trim(*start);
                    state.damaged.remove_below(*start);
                    // Of a copy that begins there, or of which nothing is left.
                    state.committed = state.committed.max(*start);
                }
                Change::Drop(_) => state.index.trim(u64::MAX),
                _ => {}
            }
        }
        for piece in self.pieces {
            state.index.push(piece);
            state.committed = piece.end();
        }
        drop(state);
        if self.outcome.is_ok() && matches!(self.change, Change::Seal) {
            self.entry.notify(true);
        } else if matches!(self.change, Change::Open | Change::Handoff(..)) {
            self.entry.notify(false);
        }
        _ = self.reply.send(self.outcome);
    }

    fn abort(self: Box<Self>, _prepared: bool, why: &str) {
        let mut state = self.entry.state();
        if let Some(before) = self.undo {
            // Progress, trims and handoffs may stay: they are true, and are written again with the next ones. But where a copy
            // begins must be in the journal, or what is below would be missing there.
            state.phase = before.phase;
            if let (Change::Trim(_), Phase::Copying { .. }) = (&self.change, before.phase) {
                (state.start, state.next) = (before.start, before.next);
            }
            if let Change::Drop(registry) = &self.change {
                let entry = Arc::clone(&self.entry);
                drop(state);
                registry.restore(entry);
            } else if let Some(first) = self.pieces.first() {
                state.next = first.base;
            }
        }
        let answer = match self.outcome {
            // The seal because of which it was refused may be one that is taken back with it.
            Ok(_) | Err(ChangeError::Sealed) => Err(ChangeError::Log(why.to_owned())),
            Err(refused) => Err(refused),
        };
        _ = self.reply.send(answer);
    }
}

/// Keeps the highest term of the operator's leader.
pub(crate) struct TermOp(pub(crate) Arc<Registry>, pub(crate) u64);

impl Op for TermOp {
    fn size(&self) -> usize {
        64
    }

    fn prepare(&mut self, frames: &mut Frames) {
        let timestamp = frames.timestamp();
        self.0.term.fetch_max(self.1, Ordering::Relaxed);
        let meta = Meta {
            kind: Kind::Term,
            entry: 0,
            base: self.1,
            count: 0,
            timestamp,
        };
        frames.push(meta, |_| {});
    }

    fn commit(self: Box<Self>) {}

    fn abort(self: Box<Self>, _prepared: bool, why: &str) {
        tracing::warn!(why, term = self.1, "the leader's term is not on the disk yet");
    }
}
