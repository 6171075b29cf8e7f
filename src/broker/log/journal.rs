//! The face of the journal: open it, submit to it, read from it.

use std::any::Any;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::disk::{Disk, DiskFile, is_full};
use super::fill::Fill;
use super::footer::{self, PieceCache};
use super::frame::{FrameAt, Frames, Header, Kind};
use super::pending::Pending;
use super::piece::{Piece, Run};
use super::scan::{self, Damage, Visitor};
use super::segment::Segments;
use super::thread;
use super::writer::{Tail, Writer};
use crate::broker::counters::Counters;

/// Something to be written, with its continuation. All of it runs in the order of the submissions, one at a time, so that an `Op` may decide there what it writes (positions, duplicates).
pub(crate) trait Op: Send {
    /// At least as many bytes as [`Op::prepare`] writes.
    fn size(&self) -> usize;

    /// Writes its records and changes the state in memory as if they were on the disk.
    fn prepare(&mut self, frames: &mut Frames);

    /// They are as durable as is asked.
    fn commit(self: Box<Self>);

    /// They were not written. `prepared`: take the change back; the later ones of the group were taken back before.
    fn abort(self: Box<Self>, prepared: bool, why: &str);
}

/// Writes the record that makes all older metadata superfluous.
pub(crate) trait Checkpoint: Send + Sync {
    /// Appends the payload. Called between groups, so the state is what the records so far say.
    fn write(&self, out: &mut Vec<u8>);

    /// Appends the index of a segment that is being finished: the pieces of each run, and the list of the runs, whose
    /// offset is returned. Called between groups.
    fn index(&self, segment: u32, frames: &mut Frames) -> u32;

    /// What [`Checkpoint::index`] wrote last is durable.
    fn indexed(&self);
}

/// How a journal is opened.
#[derive(Debug)]
pub(crate) struct JournalOptions {
    /// Its directory.
    pub(crate) directory: PathBuf,
    /// The broker's name.
    pub(crate) broker: String,
    /// The size at which a new segment begins.
    pub(crate) segment_bytes: u64,
    /// Where it writes.
    pub(crate) disk: Arc<dyn Disk>,
    /// What it counts.
    pub(crate) counters: Arc<Counters>,
}

/// What the writing thread and its submitters share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) queue: Mutex<Queue>,
    pub(super) ready: Condvar,
    /// What was acknowledged from memory and is not in a file yet.
    pub(super) pending: Pending,
    pub(super) segments: Segments,
    /// The size at which a new segment begins.
    pub(super) segment_bytes: u64,
    pub(super) pieces: PieceCache,
    pub(super) fill: Arc<Fill>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) counters: Arc<Counters>,
    /// Whether a commit waits for `fdatasync`.
    pub(super) fsync: AtomicBool,
    /// The segment that is being written.
    pub(super) active: AtomicU64,
    /// Nanoseconds of each `fdatasync` since the last look.
    pub(super) syncs: Mutex<Vec<u64>>,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) ops: VecDeque<Box<dyn Op>>,
    pub(super) closed: bool,
    /// The thread waits for anything at all.
    pub(super) waiting: bool,
    /// It does not even look from time to time whether anything has gathered.
    pub(super) sleeping: bool,
    /// Something has gathered, or is about to.
    pub(super) unwritten: bool,
}

impl Queue {
    /// Nothing is to be done.
    pub(super) fn is_quiet(&self) -> bool {
        self.ops.is_empty() && !self.closed && !self.unwritten
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} queued, closed: {})", self.ops.len(), self.closed)
    }
}

/// The journal of one broker.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(super) shared: Arc<Shared>,
    /// `None`: there is one thread for everything.
    pub(super) writer: Option<Arc<Mutex<Writer>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: Box<dyn Any + Send + Sync>,
}

/// A journal that was read back and does not write yet.
#[derive(Debug)]
pub(crate) struct Recovered {
    options: JournalOptions,
    segments: Segments,
    tail: Tail,
    lock: Box<dyn Any + Send + Sync>,
}

impl Journal {
    /// Claims the directory and reads everything back, telling `visitor`. Blocking.
    ///
    /// # Errors
    /// The directory cannot be used or belongs to somebody else.
    pub(crate) fn recover(options: JournalOptions, visitor: &mut dyn Visitor) -> Result<Recovered, String> {
        let lock = options.disk.claim(&options.directory, &options.broker)?;
        let at = options.directory.display().to_string();
        let (segments, tail) =
            read_back(&options, visitor).map_err(|e| format!("cannot read the journal in {at}: {e}"))?;
        Ok(Recovered {
            options,
            segments,
            tail,
            lock,
        })
    }

    /// Queues something for the next group commit. Never waits. After [`Journal::close`] it is aborted.
    pub(crate) fn submit(&self, op: Box<dyn Op>) {
        self.shared.push(op, |queue| std::mem::take(&mut queue.waiting));
    }

    /// Whether commits wait for `fdatasync`.
    pub(crate) fn set_fsync(&self, fsync: bool) {
        self.shared.fsync.store(fsync, Ordering::Relaxed);
    }

    /// Reads a place. Blocking.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn read(&self, at: FrameAt) -> std::io::Result<Bytes> {
        let file = self.shared.segments.file(at.segment);
        let file = file.ok_or(std::io::ErrorKind::NotFound)?;
        let mut buffer = vec![0; at.len as usize];
        let in_file = self.shared.pending.read(at, &mut buffer);
        if in_file > 0 {
            file.read(&mut buffer[..in_file], u64::from(at.offset))?;
        }
        Ok(Bytes::from(buffer))
    }

    /// The pieces of a run of this entry, those among them that were trimmed included. Blocking, but mostly in memory.
    ///
    /// # Errors
    /// What the system says; `NotFound` for a segment that is gone.
    pub(crate) fn pieces(&self, entry: u32, run: &Run) -> std::io::Result<Arc<[Piece]>> {
        let file = self.shared.segments.file(run.at.segment);
        let file = file.ok_or(std::io::ErrorKind::NotFound)?;
        self.shared.pieces.pieces(&*file, entry, run)
    }

    /// Whether a segment was written so recently that reading it will hardly touch the disk.
    pub(crate) fn is_recent(&self, segment: u32) -> bool {
        self.writer.is_none() || u64::from(segment) + 1 >= self.shared.active.load(Ordering::Relaxed)
    }

    /// Numbers of the segments that are not written any more.
    pub(crate) fn finished_segments(&self) -> Vec<u32> {
        let active = self.shared.active.load(Ordering::Relaxed);
        let mut numbers = self.shared.segments.numbers();
        numbers.retain(|number| u64::from(*number) < active);
        numbers
    }

    /// Bytes of a segment; 0 where it is gone.
    pub(crate) fn segment_size(&self, number: u32) -> u64 {
        let file = self.shared.segments.file(number);
        file.and_then(|file| file.size().ok()).unwrap_or(0)
    }

    /// What was committed so far is durable, also where commits do not wait for that. Blocking.
    pub(crate) fn sync(&self) {
        if let Err(why) = self.shared.write_pending() {
            tracing::warn!(why, "what was acknowledged from memory is not durable yet");
        }
        let active = self.shared.active.load(Ordering::Relaxed) as u32;
        if let Some(file) = self.shared.segments.file(active)
            && let Err(error) = file.sync()
        {
            self.shared.disk.fail(&format!("fdatasync failed: {error}"));
        }
    }

    /// Deletes a finished segment.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn remove_segment(&self, number: u32) -> std::io::Result<()> {
        self.shared.segments.remove(number)
    }

    /// The 99th percentile of `fdatasync` since the last call, in nanoseconds; 0 where there was none.
    pub(crate) fn take_sync_p99(&self) -> u64 {
        let mut syncs = std::mem::take(&mut *self.shared.syncs.lock());
        if syncs.is_empty() {
            return 0;
        }
        let rank = (syncs.len() * 99).div_ceil(100) - 1;
        *syncs.select_nth_unstable(rank).1
    }

    /// Commits what is queued, refuses what comes later, and ends the threads. Blocking.
    pub(crate) fn close(&self) {
        {
            let mut queue = self.shared.queue.lock();
            queue.closed = true;
        }
        self.shared.ready.notify_one();
        let threads = std::mem::take(&mut *self.threads.lock());
        let me = std::thread::current().id();
        for thread in threads {
            // The last owner may be an `Op` that is dropped on the writing thread itself.
            if thread.thread().id() != me && thread.join().is_err() {
                tracing::error!("a thread of the journal panicked");
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Recovered {
    /// Starts writing.
    ///
    /// # Errors
    /// The threads cannot be started.
    pub(crate) fn start(self, checkpoint: Arc<dyn Checkpoint>) -> Result<Journal, String> {
        let (mut journal, mut writer) = self.assemble(checkpoint);
        writer.threaded = true;
        let writer = Arc::new(Mutex::new(writer));
        journal.writer = Some(Arc::clone(&writer));
        let shared = Arc::clone(&journal.shared);
        let fill = Arc::clone(&journal.shared.fill);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .stack_size(512 << 10)
                .spawn(run)
                .map_err(|e| format!("cannot start the thread {name}: {e}"))
        };
        *journal.threads.get_mut() = vec![
            spawn("log-writer", Box::new(move || thread::run(&shared, &writer)))?,
            spawn("log-fill", Box::new(move || fill.run()))?,
        ];
        Ok(journal)
    }

    /// Starts without a thread: whoever has the steps takes them.
    #[cfg(test)]
    pub(crate) fn start_stepped(self, checkpoint: Arc<dyn Checkpoint>) -> (Journal, super::Stepped) {
        let (journal, writer) = self.assemble(checkpoint);
        (journal, super::Stepped::new(writer))
    }

    fn assemble(self, checkpoint: Arc<dyn Checkpoint>) -> (Journal, Writer) {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            segments: self.segments,
            segment_bytes: self.options.segment_bytes,
            pending: Pending::default(),
            pieces: PieceCache::default(),
            fill: Fill::new(Arc::clone(&self.options.disk)),
            disk: self.options.disk,
            counters: self.options.counters,
            fsync: AtomicBool::new(true),
            active: AtomicU64::new(u64::from(self.tail.segment)),
            syncs: Mutex::default(),
        });
        let writer = Writer::new(Arc::clone(&shared), self.tail, checkpoint);
        let journal = Journal {
            shared,
            writer: None,
            threads: Mutex::default(),
            _lock: self.lock,
        };
        (journal, writer)
    }
}

/// Reads what is needed: of the segments before the newest whole checkpoint, their indexes; from there on, all.
/// Only the newest segment can be torn: the writer syncs a segment before it begins the next one.
fn read_back(options: &JournalOptions, visitor: &mut dyn Visitor) -> std::io::Result<(Segments, Tail)> {
    let segments = Segments::open(&options.disk, &options.directory)?;
    let mut numbers = segments.numbers();
    // A segment whose checkpoint never reached the disk holds nothing.
    while let Some(&last) = numbers.last() {
        if scan::first_record(&segments, last)?.is_some() || scan::has_records(&segments, last)? {
            break;
        }
        segments.remove(last)?;
        numbers.pop();
    }
    let mut complete = numbers.len().saturating_sub(1);
    while complete > 0 {
        let head = scan::first_record(&segments, numbers[complete])?;
        if head.is_some_and(|head| head.meta.kind == Kind::Checkpoint) {
            break;
        }
        tracing::error!(
            segment = numbers[complete],
            "the checkpoint of a segment is damaged: the segment before it is read, too"
        );
        complete -= 1;
    }
    let mut tail = Tail {
        segment: 0,
        end: 0,
        whole: false,
    };
    visitor.sealed();
    for (index, &number) in numbers.iter().enumerate() {
        let Some(file) = segments.file(number) else {
            continue;
        };
        if index == complete {
            visitor.complete();
        }
        if index < complete {
            if let Some(runs) = footer::runs(&*file, number)? {
                visitor.runs(runs);
                continue;
            }
            tracing::warn!(
                segment = number,
                "a finished segment has no whole index: it is scanned"
            );
        }
        // A finished segment is cut to its end. Its index says that it is finished also where the one after it never
        // reached the disk.
        let finished = index + 1 < numbers.len() || footer::is_finished(&*file, number)?;
        let known_end = if finished { Some(file.size()?) } else { None };
        let mut watched = Watched { visitor, durable: 0 };
        let (end, damaged) = scan::scan(&*file, number, known_end, &mut watched)?;
        let durable = watched.durable;
        tail = Tail {
            segment: number,
            end,
            whole: !damaged && !finished,
        };
        if !finished && !damaged {
            // What is beyond was never acknowledged; the next records must not meet it.
            let torn = torn_bytes(&*file, end)?;
            if torn > 0 {
                tracing::warn!(
                    segment = number,
                    offset = end,
                    bytes = torn,
                    "a torn write is cut off; nothing of it was acknowledged"
                );
                options.counters.recovery_cut_bytes.add(torn);
            }
            file.resize(end)?;
        }
        if index + 1 == numbers.len() {
            // What a killed process had written and not synced is served from now on, so it must be durable. If it
            // ended because a sync failed, the page cache has it, and takes it for clean: a sync alone would do nothing.
            write_again(&*file, durable, end)?;
            file.sync_all()?;
        }
        if !finished && !damaged && end == 0 {
            // Without a checkpoint at its head it must not be written on.
            segments.remove(number)?;
            tail.whole = false;
        }
    }
    Ok((segments, tail))
}

/// Bytes from `end` to the last one that is not zero: what was being written. Segments are filled with zeroes ahead.
fn torn_bytes(file: &dyn DiskFile, end: u64) -> std::io::Result<u64> {
    const PART: u64 = 1 << 20;
    let mut at = file.size()?;
    while at > end {
        let from = at.saturating_sub(PART).max(end);
        let mut bytes = vec![0; (at - from) as usize];
        file.read(&mut bytes, from)?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            return Ok(from + last as u64 + 1 - end);
        }
        at = from;
    }
    Ok(0)
}

/// Writes a part of a file over itself, so that it is written to the disk whatever became of it before.
fn write_again(file: &dyn DiskFile, from: u64, end: u64) -> std::io::Result<()> {
    const PART: u64 = 1 << 20;
    let mut at = from;
    while at < end {
        let mut bytes = vec![0; PART.min(end - at) as usize];
        file.read(&mut bytes, at)?;
        match file.write(&bytes, at) {
            // A file system that never overwrites in place: it holds, as long as nothing else failed.
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "the newest records cannot be written again");
                return Ok(());
            }
            written => written?,
        }
        at += bytes.len() as u64;
    }
    Ok(())
}

/// Passes on what a scan finds, and keeps how far the segment is known to be synced.
struct Watched<'a> {
    visitor: &'a mut dyn Visitor,
    durable: u64,
}

impl Visitor for Watched<'_> {
    fn record(&mut self, at: FrameAt, header: &Header, payload: &[u8]) {
        self.durable = self.durable.max(u64::from(header.durable));
        self.visitor.record(at, header, payload);
    }

    fn damage(&mut self, damage: &Damage) {
        self.visitor.damage(damage);
    }
}
