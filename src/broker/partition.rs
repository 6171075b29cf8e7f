//! Partitions: their chains, their entries on this disk, and appends to them.

mod append;
pub(crate) mod codec;
pub(crate) mod entry;
pub(crate) mod index;
pub(crate) mod moved;
pub(crate) mod ops;
mod producers;
pub(crate) mod progress;
mod ranges;
pub(crate) mod read;
pub(crate) mod registry;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use self::append::Append;
pub(crate) use self::append::AppendReply;
pub use self::append::Line;
use self::entry::{Entry, Phase, Watcher};
use self::ops::{Change, ChangeAnswer, EntryOp};
pub(crate) use self::producers::{Producers, WINDOW as REMEMBERED};
pub(crate) use self::ranges::Ranges;
use super::channel::Permit;
use super::group::Hub;
use super::log::Journal;
use super::store::{AppendError, Appended, EntryId, NewMessage, NotAppended, Offset};

/// Why nothing is appended between a seal and the next epoch.
pub(crate) const SEALED_HERE: &str = "sealed here; waiting for the chain to be extended";

/// One partition, owned here or not.
pub struct Partition {
    index: u32,
    topic: String,
    topic_uid: String,
    journal: Arc<Journal>,
    view: RwLock<View>,
    hubs: Mutex<Vec<Weak<Hub>>>,
    accepted: AtomicU64,
    /// The epoch that is being sealed, plus one; 0: none.
    sealing: AtomicU64,
    handing_off: AtomicBool,
}

/// What the operator said last, and what of it is here.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The entries of the chain that are not open any more, oldest first.
    pub(crate) sealed: Vec<Link>,
    /// The open entry, if it is here and takes appends.
    pub(crate) open: Option<Arc<Entry>>,
    /// Whoever takes appends; empty: nobody.
    pub(crate) owner: String,
    /// The epoch of the newest entry.
    pub(crate) epoch: u64,
    /// Why appends are not taken although the open entry is to be here.
    pub(crate) problem: Option<String>,
}

/// A sealed entry of a chain.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// Its epoch.
    pub(crate) epoch: u64,
    /// Its positions; `None` where the operator does not know.
    pub(crate) sealed_at: Option<u64>,
    /// Who has it.
    pub(crate) brokers: Vec<String>,
}

/// A part of a partition that can be read or will be: whole offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first offset.
    pub(crate) start: u64,
    /// The offset after the last one that is committed.
    pub(crate) end: u64,
}

/// An append on its way to the disk; wait for it with [`AppendTicket::done`].
#[derive(Debug)]
pub struct AppendTicket {
    answer: oneshot::Receiver<AppendReply>,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition")
            .field("topic", &self.topic)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Partition {
    pub(crate) fn new(topic: &str, topic_uid: &str, index: u32, journal: &Arc<Journal>) -> Arc<Self> {
        Arc::new(Self {
            index,
            topic: topic.to_owned(),
            topic_uid: topic_uid.to_owned(),
            journal: Arc::clone(journal),
            view: RwLock::default(),
            hubs: Mutex::default(),
            accepted: AtomicU64::new(0),
            sealing: AtomicU64::new(0),
            handing_off: AtomicBool::new(false),
        })
    }

    /// Its index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether appends are taken here; otherwise the owner's name (empty while unknown) and the epoch.
    pub fn owner(&self) -> (bool, String, u64) {
        let view = self.view.read();
        (view.open.is_some(), view.owner.clone(), view.epoch)
    }

    /// Whether appends are taken here.
    pub fn is_ours(&self) -> bool {
        self.view.read().open.is_some()
    }

    /// Queues a batch for the log, in the order of the calls, and returns at once. The permit is given back when
    /// the batch is committed. With a producer, messages it has stored before are not stored again.
    ///
    /// # Errors
    /// The batch was refused as a whole.
    pub fn append(
        &self,
        messages: Vec<NewMessage>,
        producer: &str,
        permit: Permit,
    ) -> Result<AppendTicket, NotAppended> {
        self.append_with(messages, producer, Some(permit), None)
    }

    /// As [`Partition::append`], for a batch that must not be stored unless all before it in its line were.
    ///
    /// # Errors
    /// The batch was refused as a whole.
    pub fn append_in_line(
        &self,
        messages: Vec<NewMessage>,
        producer: &str,
        permit: Permit,
        line: &Arc<Line>,
    ) -> Result<AppendTicket, NotAppended> {
        self.append_with(messages, producer, Some(permit), Some(Arc::clone(line)))
    }

    /// As [`Partition::append`], for messages that this broker makes itself.
    pub(crate) fn append_with(
        &self,
        messages: Vec<NewMessage>,
        producer: &str,
        permit: Option<Permit>,
        line: Option<Arc<Line>>,
    ) -> Result<AppendTicket, NotAppended> {
        // The view's lock is held until the batch is queued: a seal takes the entry out of the view first, so its
        // record comes after every batch that was let in here.
        let view = self.view.read();
        let entry = match self.check(&view, producer) {
            Ok(entry) => Arc::clone(entry),
            Err(error) => return Err(NotAppended { error, messages }),
        };
        self.accepted.fetch_add(messages.len() as u64, Ordering::Relaxed);
        // Who makes messages itself may hold what a commit locks.
        let may_assist = permit.is_some();
        let (append, answer) = Append::new(entry, messages, producer, permit, line);
        if may_assist {
            let waits = self.journal.queue(append);
            drop(view);
            if waits {
                self.journal.assist();
            }
        } else {
            self.journal.submit(append);
        }
        Ok(AppendTicket { answer })
    }

    fn check<'a>(&self, view: &'a View, producer: &str) -> Result<&'a Arc<Entry>, AppendError> {
        let Some(entry) = &view.open else {
            return Err(match &view.problem {
                Some(problem) => AppendError::Unavailable(format!(
                    "partition {} of {} takes no messages: {problem}",
                    self.index, self.topic
                )),
                None => AppendError::Moved {
                    partition: self.index,
                    owner: view.owner.clone(),
                    epoch: view.epoch,
                },
            });
        };
        if !producer.is_empty() && entry.state().needs_handoff {
            return Err(AppendError::Unavailable(format!(
                "partition {} of {} waits to hear from its former owner which sequences are stored{}",
                self.index,
                self.topic,
                view.problem
                    .as_ref()
                    .map(|problem| format!(": {problem}"))
                    .unwrap_or_default(),
            )));
        }
        Ok(entry)
    }

    /// The name of its entry of an epoch.
    pub(crate) fn entry_id(&self, epoch: u64) -> EntryId {
        EntryId {
            topic: self.topic.clone(),
            topic_uid: self.topic_uid.clone(),
            partition: self.index,
            epoch,
        }
    }

    /// Messages accepted for the open entry since it was opened in this boot.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// What the operator said last.
    pub(crate) fn view(&self) -> parking_lot::RwLockReadGuard<'_, View> {
        self.view.read()
    }

    /// Takes a new view, tells the groups.
    pub(crate) fn set_view(self: &Arc<Self>, view: View) {
        let changed = {
            let mut current = self.view.write();
            let changed = current.open.as_ref().map(|e| e.number) != view.open.as_ref().map(|e| e.number);
            *current = view;
            changed
        };
        if changed {
            self.accepted.store(0, Ordering::Relaxed);
        }
        self.changed(false);
    }

    /// Appends are refused from now on if this is the open entry: what is queued comes before the seal.
    pub(crate) fn begin_seal(&self, id: &EntryId) {
        let mut view = self.view.write();
        self.sealing.store(id.epoch + 1, Ordering::Relaxed);
        if view.open.as_ref().is_some_and(|open| open.id == *id) {
            view.open = None;
            view.problem = Some("it is being sealed".to_owned());
        }
    }

    /// The seal is on the disk, or could not be written.
    pub(crate) fn end_seal(&self, entry: &Arc<Entry>, sealed: bool) {
        let mut view = self.view.write();
        self.sealing.store(0, Ordering::Relaxed);
        if view.epoch == entry.id.epoch && view.open.is_none() && view.problem.is_some() {
            view.problem = sealed.then(|| SEALED_HERE.to_owned());
            view.open = (!sealed).then(|| Arc::clone(entry));
        }
    }

    /// Whether this entry is being sealed.
    pub(crate) fn is_sealing(&self, id: &EntryId) -> bool {
        self.sealing.load(Ordering::Relaxed) == id.epoch + 1
    }

    /// Whether nobody fetches the handoff yet; then the caller does.
    pub(crate) fn begin_handoff(&self) -> bool {
        !self.handing_off.swap(true, Ordering::AcqRel)
    }

    /// Nobody fetches the handoff any more.
    pub(crate) fn end_handoff(&self) {
        self.handing_off.store(false, Ordering::Release);
    }

    /// Why the open entry is not served, or not all of it is.
    pub(crate) fn set_problem(&self, epoch: u64, problem: Option<String>) {
        {
            let mut view = self.view.write();
            if view.epoch != epoch || view.problem == problem {
                return;
            }
            view.problem = problem;
        }
        for hub in self.hubs() {
            hub.wake_all();
        }
    }

    /// The open entry, where groups are served from it.
    pub(crate) fn served(&self) -> Option<Arc<Entry>> {
        let open = self.view.read().open.clone()?;
        let state = open.state();
        let ready = state.phase == Phase::Open && !state.needs_handoff;
        drop(state);
        ready.then_some(open)
    }

    /// What a group can read here, oldest first; nothing where this broker does not own the partition.
    pub(crate) fn spans(&self, registry: &registry::Registry) -> Vec<Span> {
        let view = self.view.read();
        let Some(open) = &view.open else { return Vec::new() };
        let mut spans = Vec::with_capacity(view.sealed.len() + 1);
        for link in &view.sealed {
            let start = registry
                .get(&self.entry_id(link.epoch))
                .map_or(0, |entry| entry.state().start);
            let end = link.sealed_at.unwrap_or(start).max(start);
            spans.push(Span {
                start: Offset::new(link.epoch, start).0,
                end: Offset::new(link.epoch, end).0,
            });
        }
        let state = open.state();
        spans.push(Span {
            start: Offset::new(open.id.epoch, state.start).0,
            end: Offset::new(open.id.epoch, state.committed).0,
        });
        spans
    }

    /// Queues a change of an entry.
    pub(crate) fn submit(&self, entry: &Arc<Entry>, change: Change) -> ChangeAnswer {
        let (op, answer) = EntryOp::new(entry, change);
        self.journal.submit(op);
        answer
    }

    /// The same, and whether it waits for [`Journal::assist`].
    pub(crate) fn queue(&self, entry: &Arc<Entry>, change: Change) -> (ChangeAnswer, bool) {
        let (op, answer) = EntryOp::new(entry, change);
        let waits = self.journal.queue(op);
        (answer, waits)
    }

    /// A group is told of what happens here, as long as it lives.
    pub(crate) fn add_hub(&self, hub: &Arc<Hub>) {
        let mut hubs = self.hubs.lock();
        hubs.retain(|known| known.strong_count() > 0 && !std::ptr::eq(known.as_ptr(), Arc::as_ptr(hub)));
        hubs.push(Arc::downgrade(hub));
    }

    fn hubs(&self) -> Vec<Arc<Hub>> {
        self.hubs.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

impl Watcher for Partition {
    fn changed(&self, sealed: bool) {
        let hubs = self.hubs();
        if sealed {
            for hub in &hubs {
                hub.leave(self.index);
            }
        }
        for hub in hubs {
            hub.look(self.index);
        }
    }

    fn counts(&self) -> Vec<(String, BTreeMap<u64, u32>)> {
        self.hubs()
            .iter()
            .map(|hub| (hub.name().to_owned(), hub.counts(self.index)))
            .collect()
    }
}

impl AppendTicket {
    /// What [`AppendTicket::done`] would say, where it is known.
    pub(crate) fn known(&mut self) -> Option<Result<Vec<Appended>, AppendError>> {
        self.answer.try_recv().ok()
    }

    /// Waits until the batch is as durable as the cluster's durability says. One result for each message.
    ///
    /// # Errors
    /// The log failed; the batch may or may not be on the disk.
    pub async fn done(self) -> Result<Vec<Appended>, AppendError> {
        self.answer.await.unwrap_or_else(|_| {
            Err(AppendError::Log(
                "the broker stopped before it was written".to_owned(),
            ))
        })
    }
}
