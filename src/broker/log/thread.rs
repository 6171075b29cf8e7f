//! Who writes when: the journal's thread, or, with durability in memory, whoever has something to write.
//!
//! A record that is to be durable waits for the thread, which commits many together. One that is acknowledged from
//! memory would pay more for two changes of threads than for all the rest: so whoever submits it commits it at once,
//! together with all that is queued, unless somebody else does so already. The thread only writes what has gathered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::disk::{DiskFile, is_full};
use super::fill::Then;
use super::journal::{Journal, Op, Shared};
use super::writer::Writer;

/// With nothing to do for so long, the writer leaves a mark of how far it synced.
const IDLE: Duration = Duration::from_millis(200);
/// The time in which what was acknowledged from memory gathers before it is written.
const GATHER: Duration = Duration::from_millis(5);

/// What the thread has to do.
enum Turn {
    /// Something is queued.
    Commit,
    /// Something has gathered.
    Write,
    /// Nothing, for a while.
    Rest,
    /// Nothing any more.
    End,
}

/// The thread: writes until the journal is closed and its queue is empty.
pub(super) fn run(shared: &Shared, writer: &Mutex<Writer>) {
    let _ending = Ending(shared);
    let mut wrote = Instant::now();
    loop {
        let is_marked = writer.lock().is_marked();
        match shared.turn(is_marked, wrote) {
            Turn::Commit => {
                let mut writer = writer.lock();
                let ops = writer.take();
                if !ops.is_empty() {
                    writer.group(ops);
                }
            }
            Turn::Write => {
                wrote = Instant::now();
                match shared.write_pending() {
                    Ok(()) => writer.lock().gathered(),
                    // What comes next is refused, and tries again.
                    Err(why) => tracing::debug!(why, "what was acknowledged from memory waits"),
                }
            }
            Turn::Rest => writer.lock().idle(),
            Turn::End => break,
        }
    }
    writer.lock().finish();
}

/// Whatever becomes of the thread.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Journal {
    /// As [`Journal::submit`], but where it may be acknowledged from memory, it waits for [`Journal::assist`], and true
    /// is returned.
    #[must_use]
    pub(crate) fn queue(&self, op: Box<dyn Op>) -> bool {
        let waits = self.writer.is_some() && !self.shared.fsync.load(Ordering::Relaxed);
        self.shared
            .push(op, |queue| !waits && std::mem::take(&mut queue.waiting))
            && waits
    }

    /// Commits what is queued, or sees to it that somebody does. Nothing may be held that [`Op::commit`] locks.
    pub(crate) fn assist(&self) {
        let Some(writer) = &self.writer else { return };
        loop {
            // Whoever has it looks at the queue again when it is free.
            let Some(mut held) = writer.try_lock() else { return };
            let is_done = held.assist();
            drop(held);
            let mut queue = self.shared.queue.lock();
            if queue.ops.is_empty() {
                return;
            }
            if !is_done {
                if std::mem::take(&mut queue.waiting) {
                    self.shared.ready.notify_one();
                }
                return;
            }
        }
    }
}

impl Shared {
    /// Queues an operation, and wakes the thread where `wakes` says so. False where it was aborted instead.
    pub(super) fn push(
        &self,
        op: Box<dyn Op>,
        wakes: impl FnOnce(&mut super::journal::Queue) -> bool,
    ) -> bool {
        let mut queue = self.queue.lock();
        if queue.closed {
            drop(queue);
            op.abort(false, "the broker is stopping");
            return false;
        }
        queue.ops.push_back(op);
        let wake = wakes(&mut queue);
        drop(queue);
        if wake {
            self.ready.notify_one();
        }
        true
    }

    /// Waits for the next turn. `wrote`: when what had gathered was written last.
    fn turn(&self, is_marked: bool, wrote: Instant) -> Turn {
        let mut queue = self.queue.lock();
        while queue.is_quiet() {
            queue.waiting = true;
            queue.sleeping = true;
            if is_marked {
                self.ready.wait(&mut queue);
            } else if self.ready.wait_for(&mut queue, IDLE).timed_out() && queue.is_quiet() {
                queue.waiting = false;
                queue.sleeping = false;
                return Turn::Rest;
            }
        }
        queue.sleeping = false;
        if queue.unwritten && queue.ops.is_empty() && !queue.closed {
            queue.waiting = true;
            self.ready.wait_for(&mut queue, GATHER);
        }
        queue.waiting = false;
        if queue.unwritten && (queue.ops.is_empty() || wrote.elapsed() >= 2 * GATHER) {
            queue.unwritten = false;
            return Turn::Write;
        }
        if queue.ops.is_empty() {
            Turn::End
        } else {
            Turn::Commit
        }
    }

    /// Writes what has gathered.
    pub(super) fn write_pending(&self) -> Result<(), String> {
        self.pending
            .write(|end| self.fill.advance(end, Then::GoesOn))
            .map_err(|unwritten| self.not_written(&unwritten.file, unwritten.start, &unwritten.error))
    }

    /// A write at the file's `end` failed: says so if the disk is full, and ends the process if it is anything else.
    pub(super) fn not_written(&self, file: &Arc<dyn DiskFile>, end: u64, error: &std::io::Error) -> String {
        if !is_full(error) {
            self.disk.fail(&format!("writing to the journal failed: {error}"));
        }
        tracing::error!(%error, "the disk is full: messages are refused until there is room");
        // A part may be there; it must not lie behind shorter records later.
        self.fill.pause();
        if let Err(error) = file.resize(end) {
            self.disk.fail(&format!(
                "cutting the journal after a failed write failed: {error}"
            ));
        }
        self.fill.follow(Arc::clone(file), end, self.segment_bytes);
        format!("the disk is full ({error})")
    }

    /// Nothing is written any more: refuses what comes, and lets go of what is queued.
    pub(super) fn abandon(&self) {
        let left = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.ops)
        };
        drop(left);
        self.fill.stop();
    }
}
