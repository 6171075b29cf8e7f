//! Every entry on this disk, and how they are found again after a start.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::codec::{self, Reader, put_u64};
use super::entry::{Entry, EntryState, Phase};
use super::index::{Index, Part, Piece, Run};
use crate::broker::log::{
    Checkpoint, Damage, FrameAt, Frames, Header, Kind, Meta, Visitor, put_pieces, put_run,
};
use crate::broker::store::{EntryId, Offset};

/// Everything on this disk but the batches themselves.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: RwLock<BTreeMap<EntryId, Arc<Entry>>>,
    last_number: AtomicU32,
    /// The highest term of the operator's leader that was seen.
    pub(crate) term: AtomicU64,
    /// Segments with damage: a person may want to look at them, so they are not deleted.
    pub(crate) damaged_segments: Mutex<BTreeSet<u32>>,
    /// Runs whose pieces are on the way to a segment's footer.
    indexing: Mutex<Vec<(Arc<Entry>, Run)>>,
}

impl Registry {
    /// The entry, if it is here.
    pub(crate) fn get(&self, id: &EntryId) -> Option<Arc<Entry>> {
        self.entries.read().get(id).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.entries.read().values().cloned().collect()
    }

    /// The highest epoch that is known here for a partition.
    pub(crate) fn newest_epoch(&self, topic: &str, topic_uid: &str, partition: u32) -> Option<u64> {
        let id = |epoch| EntryId {
            topic: topic.to_owned(),
            topic_uid: topic_uid.to_owned(),
            partition,
            epoch,
        };
        self.entries
            .read()
            .range(id(0)..=id(u64::MAX))
            .next_back()
            .map(|(id, _)| id.epoch)
    }

    /// Makes an entry; the one that is there already, if there is one.
    pub(crate) fn insert(&self, id: &EntryId, state: EntryState) -> Arc<Entry> {
        let mut entries = self.entries.write();
        if let Some(entry) = entries.get(id) {
            return Arc::clone(entry);
        }
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let entry = Entry::new(id.clone(), number, state);
        entries.insert(id.clone(), Arc::clone(&entry));
        entry
    }

    /// Takes an entry back whose deletion could not be written.
    pub(crate) fn restore(&self, entry: Arc<Entry>) {
        self.entries.write().insert(entry.id.clone(), entry);
    }

    /// Forgets an entry.
    pub(crate) fn remove(&self, id: &EntryId) {
        self.entries.write().remove(id);
    }
}

impl Checkpoint for Registry {
    fn write(&self, out: &mut Vec<u8>) {
        put_u64(out, self.term.load(Ordering::Relaxed));
        put_u64(out, u64::from(self.last_number.load(Ordering::Relaxed)));
        for entry in self.all() {
            let mut state = entry.state();
            // What is only announced, or gone, is not in the journal's state.
            if !matches!(state.phase, Phase::Opening | Phase::Dropped) {
                let used = state.index.last().map_or(0, |part| part.last());
                state.producers.expire(used);
                codec::put_entry(out, entry.number, &entry.id, &state);
            }
        }
    }

    fn index(&self, segment: u32, frames: &mut Frames) -> u32 {
        let meta = |kind, timestamp| Meta {
            kind,
            entry: 0,
            base: 0,
            count: 0,
            timestamp,
        };
        let now = frames.timestamp();
        let mut indexing = Vec::new();
        let mut runs = Vec::new();
        for entry in self.all() {
            let (groups, known) = entry.state().index.in_segment(segment);
            for group in groups {
                let mut meta = entry.meta(Kind::Pieces, now);
                meta.base = group.first().map_or(0, |piece| piece.base);
                let at = frames.push(meta, |out| put_pieces(out, &group));
                if let Some(run) = Run::of(&group, at) {
                    runs.push((entry.number, run));
                    indexing.push((Arc::clone(&entry), run));
                }
            }
            runs.extend(known.into_iter().map(|run| (entry.number, run)));
        }
        *self.indexing.lock() = indexing;
        let list = frames.push(meta(Kind::Runs, now), |out| {
            for (entry, run) in &runs {
                put_run(out, *entry, run);
            }
        });
        list.offset
    }

    fn indexed(&self) {
        for (entry, run) in std::mem::take(&mut *self.indexing.lock()) {
            entry.state().index.collapse(run);
        }
    }
}

/// Puts the registry together from the journal's records.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    entries: HashMap<u32, (EntryId, EntryState)>,
    /// Where the batches are, also of entries that are known only later.
    indexes: HashMap<u32, Index>,
    /// Everything that is read lies before a whole checkpoint.
    sealed: bool,
    last_seen: HashMap<u32, FrameAt>,
    last_number: u32,
    term: u64,
    /// Damage that does not say whose it was.
    unknown: Vec<FrameAt>,
    damaged_segments: BTreeSet<u32>,
    /// What was found damaged, for the log.
    pub(crate) problems: Vec<String>,
}

impl Recovery {
    /// The registry, when everything was read.
    pub(crate) fn finish(mut self) -> Registry {
        for at in std::mem::take(&mut self.unknown) {
            self.skip_unknown(at);
        }
        let mut entries = BTreeMap::new();
        for (number, (id, mut state)) in self.entries {
            if state.phase == Phase::Dropped {
                continue;
            }
            state.index = self.indexes.remove(&number).unwrap_or_default();
            state.index.trim(state.start);
            find_gaps(&mut state);
            state.committed = state.next;
            for range in state.damaged.iter() {
                self.problems.push(format!(
                    "{}/{} epoch {}: positions {} to {} are damaged and will not be served",
                    id.topic,
                    id.partition,
                    id.epoch,
                    range.start,
                    range.end - 1
                ));
            }
            entries.insert(id.clone(), Entry::new(id, number, state));
        }
        for problem in &self.problems {
            tracing::error!(problem, "the journal is damaged");
        }
        Registry {
            entries: RwLock::new(entries),
            last_number: AtomicU32::new(self.last_number),
            term: AtomicU64::new(self.term),
            damaged_segments: Mutex::new(self.damaged_segments),
            indexing: Mutex::default(),
        }
    }

    /// Damage without a readable header may have held the newest messages of any open entry. Their positions must
    /// not be given out again: as many as fit into the damage are skipped, where no later record shows the truth.
    fn skip_unknown(&mut self, at: FrameAt) {
        const SMALLEST_MESSAGE: u64 = 4;
        for (number, (_, state)) in &mut self.entries {
            let seen_later = self.last_seen.get(number).is_some_and(|seen| *seen > at);
            if state.phase == Phase::Open && !seen_later {
                let skipped = state.next..state.next + u64::from(at.len) / SMALLEST_MESSAGE + 1;
                state.next = skipped.end;
                state.damaged.insert(skipped);
            }
        }
    }

    fn apply(&mut self, at: FrameAt, header: &Header, payload: Bytes) -> Option<()> {
        let number = header.meta.entry;
        let base = header.meta.base;
        let mut reader = Reader::new(payload.clone());
        if header.meta.kind.is_batch() {
            self.indexes.entry(number).or_default().push(Piece {
                base,
                count: header.meta.count,
                at,
                timestamp: header.meta.timestamp,
            });
        }
        if self.sealed {
            return Some(());
        }
        match header.meta.kind {
            Kind::Mark | Kind::Pieces | Kind::Runs | Kind::Footer | Kind::Moved => {}
            Kind::Term => self.term = self.term.max(base),
            Kind::Checkpoint => self.checkpoint(&mut reader)?,
            Kind::EntryOpened | Kind::EntryCopying => {
                let id = codec::read_id(&mut reader)?;
                let flag = reader.u64()?;
                let state = if header.meta.kind == Kind::EntryOpened {
                    EntryState::new(Phase::Open, flag != 0)
                } else {
                    let mut state = EntryState::new(Phase::Copying { sealed_at: flag }, false);
                    state.start = base;
                    state.next = base;
                    state
                };
                self.last_number = self.last_number.max(number);
                self.entries.entry(number).or_insert((id, state));
            }
            Kind::EntryDropped => {
                self.entries.remove(&number);
                self.indexes.remove(&number);
            }
            _ => self.entry_record(header, payload)?,
        }
        self.last_seen.insert(number, at);
        Some(())
    }

    fn entry_record(&mut self, header: &Header, payload: Bytes) -> Option<()> {
        let meta = header.meta;
        let (id, state) = self.entries.get_mut(&meta.entry)?;
        let mut reader = Reader::new(payload.clone());
        match meta.kind {
            Kind::Batch => {
                let (producer, sequences) = codec::batch_sequences(payload)?;
                if !producer.is_empty() {
                    for (index, sequence) in sequences.into_iter().enumerate() {
                        let offset = Offset::new(id.epoch, meta.base + index as u64);
                        state
                            .producers
                            .store(&producer, sequence, offset.0, meta.timestamp);
                    }
                }
                state.next = state.next.max(meta.base + u64::from(meta.count));
            }
            Kind::EntrySealed => {
                state.phase = Phase::Sealed;
                state.next = state.next.max(meta.base);
                merge(state, codec::read_groups(&mut reader)?);
            }
            Kind::Progress => {
                let (group, delta) = codec::read_progress(&mut reader)?;
                merge(state, vec![(group, delta)]);
            }
            Kind::Forgotten => {
                state.groups.remove(&reader.string()?);
            }
            Kind::Handoff => {
                merge(state, codec::read_groups(&mut reader)?);
                for (producer, window) in codec::read_producers(&mut reader)?.iter() {
                    state.producers.insert(producer.clone(), window.clone());
                }
                state.needs_handoff = false;
            }
            Kind::Trim => {
                state.start = state.start.max(meta.base);
                if matches!(state.phase, Phase::Copying { .. }) {
                    state.next = state.next.max(meta.base);
                }
                state.damaged.remove_below(meta.base);
            }
            _ => {}
        }
        Some(())
    }

    /// A checkpoint says everything that older records said, but where the batches are.
    fn checkpoint(&mut self, reader: &mut Reader) -> Option<()> {
        let term = reader.u64()?;
        let last_number = reader.u32()?;
        let mut entries = HashMap::new();
        while !reader.is_empty() {
            let (number, id, state) = codec::read_entry(reader)?;
            entries.insert(number, (id, state));
        }
        self.term = self.term.max(term);
        self.last_number = self.last_number.max(last_number);
        self.entries = entries;
        Some(())
    }
}

impl Visitor for Recovery {
    fn sealed(&mut self) {
        self.sealed = true;
    }

    fn complete(&mut self) {
        self.sealed = false;
    }

    fn runs(&mut self, runs: Vec<(u32, Run)>) {
        for (entry, run) in runs {
            self.indexes.entry(entry).or_default().insert(Part::Run(run));
        }
    }

    fn record(&mut self, at: FrameAt, header: &Header, payload: &[u8]) {
        if self.apply(at, header, Bytes::copy_from_slice(payload)).is_none() {
            let kind = header.meta.kind;
            self.problems.push(format!(
                "segment {} offset {}: a whole record ({kind:?}) makes no sense here",
                at.segment, at.offset
            ));
        }
    }

    fn damage(&mut self, damage: &Damage) {
        let at = damage.at;
        self.damaged_segments.insert(at.segment);
        self.problems.push(format!(
            "segment {} offset {}: {} bytes are damaged ({})",
            at.segment,
            at.offset,
            at.len,
            damage
                .header
                .map_or("header unreadable".to_owned(), |header| format!(
                    "{:?}",
                    header.meta.kind
                )),
        ));
        match damage.header {
            // The checkpoint knows what was there, and what is missing is a gap.
            _ if self.sealed => {}
            None => self.unknown.push(at),
            Some(header) if header.meta.kind.is_batch() => {
                if let Some((_, state)) = self.entries.get_mut(&header.meta.entry) {
                    let end = header.meta.base + u64::from(header.meta.count);
                    state.damaged.insert(header.meta.base..end);
                    state.next = state.next.max(end);
                }
            }
            Some(_) => {}
        }
    }
}

/// Takes changes of groups' progress in.
pub(crate) fn merge(state: &mut EntryState, groups: Vec<(String, super::progress::Progress)>) {
    for (group, delta) in groups {
        state.groups.entry(group).or_default().apply(&delta);
    }
}

/// Positions that no batch holds are damaged.
fn find_gaps(state: &mut EntryState) {
    let mut expected = state.start;
    let mut gaps = Vec::new();
    for part in state.index.iter() {
        if part.base() > expected {
            gaps.push(expected..part.base());
        }
        expected = expected.max(part.end());
    }
    if expected < state.next {
        gaps.push(expected..state.next);
    }
    for gap in gaps {
        state.damaged.insert(gap);
    }
}
