//! What writes the journal, one group after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::disk::{DiskFile, is_full};
use super::fill::Then;
use super::frame::{Frames, Kind, Meta};
use super::journal::{Checkpoint, Op, Shared};
use crate::broker::clock::now_millis;

/// The most that one group commit takes together, in bytes.
const GROUP_BYTES: usize = 4 << 20;
/// With durability in memory, the most that lies in memory only.
const MOST_PENDING: usize = 1 << 20;
/// With durability in memory, the time that a record may be in the page cache only.
const SYNC_EVERY: Duration = Duration::from_millis(50);

/// So close to a segment's end it is synced as soon as there is this much to sync: what is left for the change of segments, on which
/// all appends wait, is then little.
const NEARLY_FULL: u64 = 4 << 20;
const MUCH: u64 = 256 << 10;

/// Where the journal goes on after a start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    /// The newest segment; 0: none.
    pub(super) segment: u32,
    /// The end of its records.
    pub(super) end: u64,
    /// Without damage: it can be written on. A damaged one is left as it is.
    pub(super) whole: bool,
}

/// Its state. Whoever has it decides what comes next.
pub(super) struct Writer {
    shared: Arc<Shared>,
    checkpoint: Arc<dyn Checkpoint>,
    file: Option<Arc<dyn DiskFile>>,
    segment: u32,
    end: u64,
    durable: Arc<AtomicU64>,
    /// The end at the last mark or record with a current `durable`.
    marked: u64,
    synced_at: Instant,
    /// Where the last sync that was asked for ends.
    syncing: u64,
    timestamp: u64,
    frames: Frames,
    /// The segment that has an index, and where that ends.
    indexed: (u32, u64),
    /// There is a thread that writes what is gathered in memory.
    pub(super) threaded: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer(segment {} to {})", self.segment, self.end)
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, tail: Tail, checkpoint: Arc<dyn Checkpoint>) -> Self {
        let file = shared.segments.file(tail.segment).filter(|_| tail.whole);
        if let Some(file) = &file {
            shared
                .fill
                .follow(Arc::clone(file), tail.end, shared.segment_bytes);
        }
        Self {
            shared,
            checkpoint,
            file,
            segment: tail.segment,
            end: tail.end,
            durable: Arc::new(AtomicU64::new(tail.end)),
            marked: tail.end,
            synced_at: Instant::now(),
            syncing: tail.end,
            timestamp: 0,
            frames: Frames::default(),
            indexed: (0, 0),
            threaded: false,
        }
    }

    /// What is queued, up to a group's size.
    pub(super) fn take(&self) -> Vec<Box<dyn Op>> {
        let mut queue = self.shared.queue.lock();
        let mut bytes = 0;
        let mut ops = Vec::new();
        while let Some(op) = queue.ops.front() {
            bytes += op.size();
            if !ops.is_empty() && bytes > GROUP_BYTES {
                break;
            }
            ops.extend(queue.ops.pop_front());
        }
        if queue.ops.is_empty() && queue.ops.capacity() > 1024 {
            queue.ops.shrink_to(64);
        }
        ops
    }

    /// Commits what is queued right here, from memory, if it is little. False where that is the thread's business.
    pub(super) fn assist(&mut self) -> bool {
        if self.shared.fsync.load(Ordering::Relaxed) {
            return false;
        }
        if self.shared.pending.is_stuck() {
            return false;
        }
        let ops: Vec<_> = {
            let mut queue = self.shared.queue.lock();
            let size: usize = queue.ops.iter().map(|op| op.size()).sum();
            if self.shared.pending.len() + size > MOST_PENDING || !self.has_room(size as u64) {
                return false;
            }
            queue.unwritten = true;
            if std::mem::take(&mut queue.sleeping) {
                self.shared.ready.notify_one();
            }
            queue.ops.drain(..).collect()
        };
        if !ops.is_empty() {
            self.group(ops);
        }
        true
    }

    /// What is queued, up to a group's size; `None` where that is nothing.
    #[cfg(test)]
    pub(super) fn take_queued(&self) -> Option<Vec<Box<dyn Op>>> {
        Some(self.take()).filter(|ops| !ops.is_empty())
    }

    /// Commits operations together.
    pub(super) fn group(&mut self, ops: Vec<Box<dyn Op>>) {
        if let Some(written) = self.write_group(ops) {
            self.commit_group(written);
        }
    }

    /// Writes a group; it is not durable before [`Writer::commit_group`]. `None`: it was aborted.
    pub(super) fn write_group(&mut self, mut ops: Vec<Box<dyn Op>>) -> Option<Vec<Box<dyn Op>>> {
        let began = Instant::now();
        let size = ops.iter().map(|op| op.size() as u64).sum();
        if let Err(why) = self.make_room(size) {
            for op in ops {
                op.abort(false, &why);
            }
            return None;
        }
        self.begin();
        self.frames.reserve(size as usize);
        for op in &mut ops {
            op.prepare(&mut self.frames);
        }
        if !self.frames.bytes().is_empty() {
            if let Err(why) = self.append() {
                for op in ops.into_iter().rev() {
                    op.abort(true, &why);
                }
                return None;
            }
            self.shared
                .counters
                .append_nanos
                .add(began.elapsed().as_nanos() as u64);
        }
        Some(ops)
    }

    pub(super) fn commit_group(&mut self, ops: Vec<Box<dyn Op>>) {
        if !self.frames.bytes().is_empty() {
            if self.shared.fsync.load(Ordering::Relaxed) {
                self.sync_now();
                self.marked = self.end - 1;
            }
            if !self.gathers() {
                self.shared.counters.commits.add(1);
            }
        }
        for op in ops {
            op.commit();
        }
    }

    fn begin(&mut self) {
        self.timestamp = self.timestamp.max(now_millis());
        let durable = self.durable.load(Ordering::Acquire) as u32;
        self.frames
            .begin(self.segment, self.end as u32, durable, self.timestamp);
    }

    /// Whether what is committed is gathered in memory first.
    fn gathers(&self) -> bool {
        self.threaded && !self.shared.fsync.load(Ordering::Relaxed)
    }

    /// Adds the frames at the end: in memory where that is what was asked for.
    fn append(&mut self) -> Result<(), String> {
        match &self.file {
            Some(file) if self.gathers() && self.frames.bytes().len() <= MOST_PENDING / 4 => {
                let bytes = self.frames.bytes();
                self.shared.pending.add(self.segment, file, self.end, bytes);
                self.end += bytes.len() as u64;
                Ok(())
            }
            _ => self.write(),
        }
    }

    /// Writes the frames to the file, at the end.
    fn write(&mut self) -> Result<(), String> {
        self.shared.write_pending()?;
        let Some(file) = &self.file else {
            return Err("there is no segment".to_owned());
        };
        let bytes = self.frames.bytes();
        let end = self.end + bytes.len() as u64;
        let then = match self.shared.fsync.load(Ordering::Relaxed) {
            true => Then::Syncs,
            false => Then::GoesOn,
        };
        self.shared.fill.advance(end, then);
        match file.write(bytes, self.end) {
            Ok(()) => {
                self.end = end;
                Ok(())
            }
            Err(error) => Err(self.shared.not_written(file, self.end, &error)),
        }
    }

    /// Whether so many bytes fit into the current segment.
    fn has_room(&self, size: u64) -> bool {
        self.file.is_some() && self.end + size <= self.shared.segment_bytes
    }

    /// Begins a new segment where the current one has no room for so many bytes.
    fn make_room(&mut self, size: u64) -> Result<(), String> {
        let pending = self.shared.pending.len() as u64;
        if pending > 0 && pending + size > MOST_PENDING as u64 || self.shared.pending.is_stuck() {
            self.shared.write_pending()?;
        }
        if self.has_room(size) || self.file.is_some() && self.end == 0 {
            return Ok(());
        }
        self.shared.write_pending()?;
        // Once, also where the new segment cannot be made and this is tried again.
        if self.file.is_some() && self.indexed != (self.segment, self.end) {
            self.write_index()?;
        }
        if let Some(file) = &self.file {
            self.shared.fill.pause();
            if let Err(error) = file.resize(self.end).and_then(|()| file.sync_all()) {
                self.shared
                    .disk
                    .fail(&format!("syncing a finished segment failed: {error}"));
            }
            self.checkpoint.indexed();
        }
        let (before, before_end, before_file) = (self.segment, self.end, self.file.clone());
        match self.new_segment(before, before_end) {
            Ok(()) => Ok(()),
            Err(why) => {
                // Go on in the old segment when there is room again; the new one holds nothing.
                if self.segment != before {
                    self.shared.fill.pause();
                    if let Err(error) = self.shared.segments.remove(self.segment) {
                        tracing::warn!(%error, "an empty segment cannot be removed");
                    }
                }
                self.segment = before;
                self.end = before_end;
                self.file = before_file;
                self.shared.active.store(u64::from(before), Ordering::Relaxed);
                self.durable = Arc::new(AtomicU64::new(before_end));
                Err(why)
            }
        }
    }

    /// Writes the index of a segment that is finished. Its last record is written when all before it is durable: where
    /// it is found, the segment is whole.
    fn write_index(&mut self) -> Result<(), String> {
        self.begin();
        let list = self.checkpoint.index(self.segment, &mut self.frames);
        self.write()?;
        self.sync_now();
        self.begin();
        let meta = Meta {
            kind: Kind::Footer,
            entry: 0,
            base: u64::from(list),
            count: 0,
            timestamp: self.timestamp,
        };
        self.frames.push(meta, |_| {});
        self.write()?;
        self.indexed = (self.segment, self.end);
        Ok(())
    }

    fn new_segment(&mut self, before: u32, before_end: u64) -> Result<(), String> {
        let number = before + 1;
        let file = self
            .shared
            .segments
            .create(number)
            .map_err(|error| match is_full(&error) {
                true => format!("the disk is full: a new segment cannot be made ({error})"),
                false => format!("a new segment cannot be made: {error}"),
            })?;
        self.shared
            .fill
            .follow(Arc::clone(&file), 0, self.shared.segment_bytes);
        self.file = Some(file);
        self.segment = number;
        self.end = 0;
        self.syncing = 0;
        self.durable = Arc::new(AtomicU64::new(0));
        self.shared.active.store(u64::from(number), Ordering::Relaxed);
        self.begin();
        let meta = Meta {
            kind: Kind::Checkpoint,
            entry: 0,
            base: before_end,
            count: before,
            timestamp: self.timestamp,
        };
        let checkpoint = &self.checkpoint;
        self.frames.push(meta, |out| checkpoint.write(out));
        self.write()
    }

    pub(super) fn idle(&mut self) {
        self.frames.rest();
        if self.file.is_none() {
            return;
        }
        if let Err(why) = self.shared.write_pending() {
            tracing::debug!(why, "what was acknowledged from memory is not written yet");
            return;
        }
        if self.durable.load(Ordering::Acquire) < self.end {
            self.sync_now();
        }
        self.mark();
    }

    /// The last sync, before the thread ends.
    pub(super) fn finish(&mut self) {
        if self.file.is_none() {
            return;
        }
        if let Err(why) = self.shared.write_pending() {
            tracing::error!(why, "what was acknowledged from memory is lost");
            return;
        }
        self.sync_now();
        self.mark();
        self.sync_now();
    }

    /// Whether nothing is left to mark.
    pub(super) fn is_marked(&self) -> bool {
        self.end == self.marked
    }

    /// Writes, and does not sync, a record that says how far the segment is synced: so damage in the last group is
    /// told from a torn write after a kill.
    fn mark(&mut self) {
        self.begin();
        let timestamp = self.timestamp;
        let meta = Meta {
            kind: Kind::Mark,
            entry: 0,
            base: 0,
            count: 0,
            timestamp,
        };
        self.frames.push(meta, |_| {});
        if let Err(why) = self.write() {
            tracing::debug!(why, "no mark");
        }
        self.marked = self.end;
    }

    fn sync_now(&mut self) {
        let Some(file) = &self.file else { return };
        let began = Instant::now();
        if let Err(error) = file.sync() {
            self.shared.disk.fail(&format!("fdatasync failed: {error}"));
        }
        let nanos = began.elapsed().as_nanos() as u64;
        self.durable.store(self.end, Ordering::Release);
        self.synced_at = Instant::now();
        self.shared.counters.commit_nanos.add(nanos);
        let mut syncs = self.shared.syncs.lock();
        // Nobody looks: keep the newest.
        if syncs.len() >= 8192 {
            syncs.clear();
        }
        syncs.push(nanos);
    }

    /// Syncs what was gathered and is in the file now, from time to time and beside everything.
    pub(super) fn gathered(&mut self) {
        self.shared.counters.commits.add(1);
        let Some(file) = &self.file else { return };
        let end = self.end - self.shared.pending.len() as u64;
        let is_nearly_full = self.end + NEARLY_FULL > self.shared.segment_bytes;
        let is_urgent = is_nearly_full && end.saturating_sub(self.syncing) >= MUCH;
        if self.synced_at.elapsed() < SYNC_EVERY && !is_urgent {
            return;
        }
        self.syncing = end;
        self.shared
            .fill
            .sync_later(Arc::clone(file), end, Arc::clone(&self.durable));
        self.synced_at = Instant::now();
    }
}

/// Nobody waits for an answer that cannot come.
impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}
