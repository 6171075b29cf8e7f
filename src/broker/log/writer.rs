//! The one thread that writes the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::disk::{DiskFile, is_full};
use super::frame::{Frames, Kind, Meta};
use super::journal::{Checkpoint, Op, Shared};

/// The most that one group commit takes together, in bytes.
const GROUP_BYTES: usize = 4 << 20;
/// With nothing to do for so long, the writer leaves a mark of how far it synced.
const IDLE: Duration = Duration::from_millis(200);
/// With durability in memory, the time that a record may be in the page cache only.
const SYNC_EVERY: Duration = Duration::from_millis(50);

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

/// The thread's state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    checkpoint: Arc<dyn Checkpoint>,
    segment_bytes: u64,
    file: Option<Arc<dyn DiskFile>>,
    segment: u32,
    end: u64,
    durable: Arc<AtomicU64>,
    /// The end at the last mark or record with a current `durable`.
    marked: u64,
    synced_at: Instant,
    timestamp: u64,
    frames: Frames,
    /// The segment that has an index, and where that ends.
    indexed: (u32, u64),
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        tail: Tail,
        segment_bytes: u64,
        checkpoint: Arc<dyn Checkpoint>,
    ) -> Self {
        let file = shared.segments.file(tail.segment).filter(|_| tail.whole);
        if let Some(file) = &file {
            shared.fill.follow(Arc::clone(file), tail.end, segment_bytes);
        }
        Self {
            shared,
            checkpoint,
            segment_bytes,
            file,
            segment: tail.segment,
            end: tail.end,
            durable: Arc::new(AtomicU64::new(tail.end)),
            marked: tail.end,
            synced_at: Instant::now(),
            timestamp: 0,
            frames: Frames::default(),
            indexed: (0, 0),
        }
    }

    /// Writes until the journal is closed and its queue is empty.
    pub(super) fn run(mut self) {
        while let Some(ops) = self.take() {
            if ops.is_empty() {
                self.idle();
            } else {
                self.group(ops);
            }
        }
        if self.file.is_some() {
            self.sync_now();
            self.mark();
            self.sync_now();
        }
    }

    /// What is queued, up to a group's size; empty after a while of nothing; `None` at the end.
    fn take(&self) -> Option<Vec<Box<dyn Op>>> {
        let mut queue = self.shared.queue.lock();
        if queue.ops.is_empty() && !queue.closed {
            queue.waiting = true;
            if self.end == self.marked {
                while queue.ops.is_empty() && !queue.closed {
                    queue.waiting = true;
                    self.shared.ready.wait(&mut queue);
                }
            } else {
                self.shared.ready.wait_for(&mut queue, IDLE);
            }
            queue.waiting = false;
        }
        if queue.ops.is_empty() && queue.closed {
            return None;
        }
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
        Some(ops)
    }

    /// What is queued, up to a group's size; `None` where that is nothing.
    #[cfg(test)]
    pub(super) fn take_queued(&self) -> Option<Vec<Box<dyn Op>>> {
        let nothing = self.shared.queue.lock().ops.is_empty();
        if nothing { None } else { self.take() }
    }

    /// Commits operations together.
    fn group(&mut self, ops: Vec<Box<dyn Op>>) {
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
        for op in &mut ops {
            op.prepare(&mut self.frames);
        }
        if !self.frames.bytes().is_empty() {
            if let Err(why) = self.write() {
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
            } else if self.synced_at.elapsed() >= SYNC_EVERY {
                self.sync_in_background();
            }
            self.shared.counters.commits.add(1);
        }
        for op in ops {
            op.commit();
        }
    }

    fn begin(&mut self) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        self.timestamp = self.timestamp.max(now);
        let durable = self.durable.load(Ordering::Acquire) as u32;
        self.frames
            .begin(self.segment, self.end as u32, durable, self.timestamp);
    }

    /// Writes the frames at the end.
    fn write(&mut self) -> Result<(), String> {
        let Some(file) = &self.file else {
            return Err("there is no segment".to_owned());
        };
        let bytes = self.frames.bytes();
        let end = self.end + bytes.len() as u64;
        self.shared.fill.advance(end);
        let Err(error) = file.write(bytes, self.end) else {
            self.end = end;
            return Ok(());
        };
        if !is_full(&error) {
            self.shared
                .disk
                .fail(&format!("writing to the journal failed: {error}"));
        }
        tracing::error!(%error, "the disk is full: messages are refused until there is room");
        // A part may be there; it must not lie behind shorter records later.
        self.shared.fill.pause();
        if let Err(error) = file.resize(self.end) {
            self.shared.disk.fail(&format!(
                "cutting the journal after a failed write failed: {error}"
            ));
        }
        self.shared
            .fill
            .follow(Arc::clone(file), self.end, self.segment_bytes);
        Err(format!("the disk is full ({error})"))
    }

    /// Begins a new segment where the current one has no room for so many bytes.
    fn make_room(&mut self, size: u64) -> Result<(), String> {
        if self.file.is_some() && self.end + size <= self.segment_bytes {
            return Ok(());
        }
        if self.file.is_some() && self.end == 0 {
            return Ok(());
        }
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
        self.shared.fill.follow(Arc::clone(&file), 0, self.segment_bytes);
        self.file = Some(file);
        self.segment = number;
        self.end = 0;
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
        if self.file.is_none() {
            return;
        }
        if self.durable.load(Ordering::Acquire) < self.end {
            self.sync_now();
        }
        self.mark();
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

    fn sync_in_background(&mut self) {
        let Some(file) = &self.file else { return };
        self.shared
            .fill
            .sync_later(Arc::clone(file), self.end, Arc::clone(&self.durable));
        self.synced_at = Instant::now();
    }
}

/// Also where the thread ends because the disk failed: nobody waits for an answer that cannot come.
impl Drop for Writer {
    fn drop(&mut self) {
        let left = {
            let mut queue = self.shared.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.ops)
        };
        drop(left);
        self.shared.fill.stop();
    }
}
