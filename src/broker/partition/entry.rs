//! One entry of one partition's chain, as far as it is on this disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::index::Index;
use super::producers::Producers;
use super::progress::Progress;
use super::ranges::Ranges;
use crate::broker::log::{Kind, Meta};
use crate::broker::store::{EntryId, Held};

/// Where an entry is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its first record is on the way to the disk.
    Opening,
    /// It takes appends.
    Open,
    /// It takes no more.
    Sealed,
    /// It is being copied from another broker, up to this position.
    Copying {
        /// Its positions when it is whole.
        sealed_at: u64,
    },
    /// It is gone.
    Dropped,
}

/// What changes. The journal's thread changes it; everybody reads it, briefly.
#[derive(Debug, Clone)]
pub(crate) struct EntryState {
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// The next position to be written.
    pub(crate) next: u64,
    /// Positions below are committed and may be read.
    pub(crate) committed: u64,
    /// Positions below are gone by retention.
    pub(crate) start: u64,
    /// Where the batches are.
    pub(crate) index: Index,
    /// Positions whose records were damaged.
    pub(crate) damaged: Ranges,
    /// Sequences stored here or, by handoff, in the entries before.
    pub(crate) producers: Producers,
    /// Groups' progress in this partition.
    pub(crate) groups: BTreeMap<String, Progress>,
    /// The state of the entry before has not come yet.
    pub(crate) needs_handoff: bool,
}

impl EntryState {
    /// An entry without anything in it.
    pub(crate) fn new(phase: Phase, needs_handoff: bool) -> Self {
        Self {
            phase,
            next: 0,
            committed: 0,
            start: 0,
            index: Index::default(),
            damaged: Ranges::default(),
            producers: Producers::default(),
            groups: BTreeMap::new(),
            needs_handoff,
        }
    }

    /// Whether it is sealed and whole.
    pub(crate) fn is_sealed(&self) -> bool {
        self.phase == Phase::Sealed
    }
}

/// Who wants to know that something was committed in an entry.
pub(crate) trait Watcher: Send + Sync {
    /// More can be read, or it was sealed.
    fn changed(&self, sealed: bool);
    /// Deliveries so far of messages that are not done, by group: what a seal freezes. Called without the entry's lock.
    fn counts(&self) -> Vec<(String, BTreeMap<u64, u32>)>;
}

/// One entry.
pub(crate) struct Entry {
    /// Which.
    pub(crate) id: EntryId,
    /// Its number in this journal.
    pub(crate) number: u32,
    state: Mutex<EntryState>,
    watcher: RwLock<Option<std::sync::Weak<dyn Watcher>>>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("id", &self.id)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Entry {
    pub(crate) fn new(id: EntryId, number: u32, state: EntryState) -> Arc<Self> {
        Arc::new(Self {
            id,
            number,
            state: Mutex::new(state),
            watcher: RwLock::new(None),
        })
    }

    /// Its state. Never held over I/O or an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, EntryState> {
        self.state.lock()
    }

    /// Who is told of commits from now on.
    pub(crate) fn watch(&self, watcher: std::sync::Weak<dyn Watcher>) {
        *self.watcher.write() = Some(watcher);
    }

    /// Who is told of commits.
    pub(crate) fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        self.watcher.read().as_ref().and_then(std::sync::Weak::upgrade)
    }

    /// Tells the watcher.
    pub(crate) fn notify(&self, sealed: bool) {
        if let Some(watcher) = self.watcher() {
            watcher.changed(sealed);
        }
    }

    /// A record of this entry without positions.
    pub(crate) fn meta(&self, kind: Kind, timestamp: u64) -> Meta {
        Meta {
            kind,
            entry: self.number,
            base: 0,
            count: 0,
            timestamp,
        }
    }

    /// As the operator sees it.
    pub(crate) fn held(&self) -> Held {
        let state = self.state();
        Held {
            entry: self.id.clone(),
            sealed: !matches!(state.phase, Phase::Opening | Phase::Open),
            positions: state.committed,
            bytes: state.index.bytes(),
            start: state.start,
        }
    }
}
