//! What clients did, when they began it, and what they were told and when: the material of [`check`].

#![allow(dead_code, unreachable_pub, reason = "each user needs a part of it")]

pub mod check;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A message: the number of its producer, and its number there.
pub type Id = (u32, u64);

/// The producer of the messages that mark the end of a load.
pub const SENTINELS: u32 = u32::MAX;
/// Producers from here on have no producer id: their messages may be stored twice, and never be lost.
pub const WITHOUT_ID: u32 = 1000;

/// One message that was published, from the first attempt to the answer that settled it.
#[derive(Debug, Clone)]
pub struct Append {
    pub id: Id,
    pub partition: u32,
    pub began: Duration,
    /// When it was acknowledged; `None`: never, so it may be stored or not.
    pub acked: Option<Duration>,
    /// The offset that the acknowledgement named for this very message.
    pub offset: Option<u64>,
    /// An offset that it does not exceed: that of a later message in the same acknowledgement.
    pub not_after: Option<u64>,
}

/// One message that a member of a group received.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub group: String,
    pub id: Id,
    pub partition: u32,
    pub offset: u64,
    /// The broker cannot have sent it before this: the member had no credit.
    pub began: Duration,
    pub received: Duration,
}

/// What a delivery was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Ack,
    Nack,
    /// The message is to be buried.
    GiveUp,
}

/// What the broker said to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Confirmed,
    /// Refused as stale.
    Stale,
    /// It never said: the stream ended.
    Unknown,
}

/// One answer to a delivery.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The index of the delivery.
    pub delivery: usize,
    pub answer: Answer,
    pub began: Duration,
    /// When the outcome was known.
    pub ended: Option<Duration>,
    pub outcome: Outcome,
}

/// A message as it lies in the log at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub id: Id,
    pub partition: u32,
    pub offset: u64,
}

/// One attempt of a broker to bury a message of a group: to store its dead letter, and then to note that it is done.
#[derive(Debug, Clone)]
pub struct Burial {
    pub group: String,
    pub partition: u32,
    pub offset: u64,
    pub began: Duration,
    /// When it was noted.
    pub done: Option<Duration>,
}

/// A dead letter as it lies in the log of its topic at the end: of which message, and of which group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub group: String,
    pub of: Stored,
}

/// Everything that was recorded.
#[derive(Debug, Clone, Default)]
pub struct Events {
    pub appends: Vec<Append>,
    pub deliveries: Vec<Delivery>,
    pub settles: Vec<Settle>,
    pub burials: Vec<Burial>,
    /// All of the log, read at the end.
    pub log: Vec<Stored>,
    /// The same of the dead-letter topic.
    pub letters: Vec<Letter>,
    /// What retention took away, by partition: it had been in the log.
    pub removed: Vec<(u32, Range<u64>)>,
    /// Whether it may take away what a group has not finished.
    pub removes_unfinished: bool,
}

#[derive(Default)]
struct Record {
    events: Events,
    /// Acknowledged messages, with the indexes of their appends.
    acked: Vec<(Id, usize)>,
    /// By group: messages whose ack was confirmed, or may have been taken.
    finished: HashMap<String, HashSet<Id>>,
}

/// What tells the time.
enum Clock {
    Real(Instant),
    /// Every look at it is later than the one before.
    Logical(AtomicU64),
}

impl Events {
    /// Whether a message was taken away that no group needs to have finished.
    fn is_excused(&self, partition: u32, offset: u64) -> bool {
        self.removes_unfinished && self.is_removed(partition, offset)
    }

    /// The same of one that was published.
    fn is_append_excused(&self, append: &Append) -> bool {
        let offset = append.offset;
        offset.is_some_and(|offset| self.is_excused(append.partition, offset))
    }

    /// Whether retention took away what was there.
    fn is_removed(&self, partition: u32, offset: u64) -> bool {
        let mut removed = self.removed.iter();
        removed.any(|(of, offsets)| *of == partition && offsets.contains(&offset))
    }
}

/// The record, with its clock.
pub struct History {
    clock: Clock,
    record: Mutex<Record>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            clock: Clock::Real(Instant::now()),
            record: Mutex::default(),
        }
    }
}

impl History {
    /// For what runs in one thread: no two moments are the same.
    pub fn logical() -> Self {
        Self {
            clock: Clock::Logical(AtomicU64::new(0)),
            record: Mutex::default(),
        }
    }

    pub fn now(&self) -> Duration {
        match &self.clock {
            Clock::Real(started) => started.elapsed(),
            Clock::Logical(next) => Duration::from_nanos(next.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// A message is about to be sent for the first time. Returns its index.
    pub fn append_begins(&self, id: Id, partition: u32) -> usize {
        let began = self.now();
        let appends = &mut self.record.lock().events.appends;
        appends.push(Append {
            id,
            partition,
            began,
            acked: None,
            offset: None,
            not_after: None,
        });
        appends.len() - 1
    }

    /// A message was acknowledged: with its own offset, or one that it does not exceed.
    pub fn append_acked(&self, index: usize, offset: Option<u64>, not_after: Option<u64>) {
        let acked = self.now();
        let mut record = self.record.lock();
        let append = &mut record.events.appends[index];
        append.acked = Some(acked);
        append.offset = offset;
        append.not_after = not_after;
        let id = append.id;
        record.acked.push((id, index));
    }

    /// A message came. Returns its index.
    pub fn delivered(&self, delivery: Delivery) -> usize {
        let deliveries = &mut self.record.lock().events.deliveries;
        deliveries.push(delivery);
        deliveries.len() - 1
    }

    /// A delivery is about to be answered. Returns the answer's index.
    pub fn settle_begins(&self, delivery: usize, answer: Answer) -> usize {
        let began = self.now();
        let settles = &mut self.record.lock().events.settles;
        settles.push(Settle {
            delivery,
            answer,
            began,
            ended: None,
            outcome: Outcome::Unknown,
        });
        settles.len() - 1
    }

    /// The broker said what became of an answer; `Unknown`: it will never say.
    pub fn settle_ends(&self, index: usize, outcome: Outcome) {
        let ended = self.now();
        let record = &mut *self.record.lock();
        let settle = &mut record.events.settles[index];
        settle.outcome = outcome;
        settle.ended = (outcome != Outcome::Unknown).then_some(ended);
        if settle.answer == Answer::Ack && outcome != Outcome::Stale {
            let delivery = &record.events.deliveries[settle.delivery];
            let finished = record.finished.entry(delivery.group.clone()).or_default();
            finished.insert(delivery.id);
        }
    }

    /// A broker is about to bury a message. Returns the attempt's index.
    pub fn burial_begins(&self, group: &str, partition: u32, offset: u64) -> usize {
        let began = self.now();
        let burials = &mut self.record.lock().events.burials;
        burials.push(Burial {
            group: group.to_owned(),
            partition,
            offset,
            began,
            done: None,
        });
        burials.len() - 1
    }

    /// The broker noted that the message is done.
    pub fn burial_ends(&self, index: usize) {
        let done = self.now();
        self.record.lock().events.burials[index].done = Some(done);
    }

    /// Acknowledged messages that a group has not finished: neither acknowledged nor in a dead letter.
    pub fn unfinished(&self, group: &str) -> Vec<Id> {
        let record = self.record.lock();
        let none = HashSet::new();
        let finished = record.finished.get(group).unwrap_or(&none);
        let appends = &record.events.appends;
        let unfinished = record.acked.iter().filter(|(id, index)| {
            !finished.contains(id) && !record.events.is_append_excused(&appends[*index])
        });
        unfinished.map(|(id, _)| *id).collect()
    }

    /// How many messages were acknowledged so far.
    pub fn acked(&self) -> usize {
        self.record.lock().acked.len()
    }

    /// The log, as it was read at the end.
    pub fn set_log(&self, log: Vec<Stored>) {
        self.record.lock().events.log = log;
    }

    /// What retention has taken away so far, whether or not groups had finished it where it may do so.
    pub fn set_removed(&self, removed: Vec<(u32, Range<u64>)>, may_be_unfinished: bool) {
        let events = &mut self.record.lock().events;
        events.removed = removed;
        events.removes_unfinished = may_be_unfinished;
    }

    /// The dead letters, as they were read last.
    pub fn set_letters(&self, letters: Vec<Letter>) {
        let record = &mut *self.record.lock();
        for letter in &letters {
            let finished = record.finished.entry(letter.group.clone()).or_default();
            finished.insert(letter.of.id);
        }
        record.events.letters = letters;
    }

    pub fn events(&self) -> Events {
        self.record.lock().events.clone()
    }
}
