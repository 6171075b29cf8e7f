//! One group over all partitions of one topic that are owned here: who gets what.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::state::{GivenUp, GroupState};
use super::token::Token;
use super::{Answer, Budget, Delivered, Refused, Start};
use crate::broker::partition::entry::Entry;
use crate::broker::partition::ops::{Change, ChangeError};
use crate::broker::partition::progress::Progress;
use crate::broker::partition::{Partition, Span};
use crate::broker::store::{Dead, Store, StoredMessage, Topic};

/// The group. One lock, held for a batch at a time and never over I/O.
#[derive(Debug)]
pub(crate) struct Hub {
    name: String,
    nonce: u32,
    topic: Weak<Topic>,
    store: Weak<Store>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    start: Start,
    parts: BTreeMap<u32, Part>,
    seats: BTreeMap<u64, Seat>,
    next_seat: u64,
    last_part: u32,
    last_woken: u64,
}

/// The group in one partition.
#[derive(Debug)]
struct Part {
    partition: Arc<Partition>,
    entry: Arc<Entry>,
    /// The group's name.
    name: String,
    state: GroupState,
    told_floor: u64,
    /// Not before this, because of that.
    blocked: Option<(Instant, String)>,
}

/// A member.
#[derive(Debug, Default)]
struct Seat {
    held: u64,
    waiting: bool,
    wake: Arc<Notify>,
}

/// Offsets that are being read for a member. Dropped, they go back.
#[derive(Debug)]
pub(crate) struct Taken {
    hub: Arc<Hub>,
    pub(crate) partition: Arc<Partition>,
    pub(crate) epoch: u64,
    pub(crate) offsets: Range<u64>,
}

/// Progress on its way to the disk.
pub(crate) struct Telling {
    partition: u32,
    epoch: u64,
    delta: Progress,
    answer: tokio::sync::oneshot::Receiver<Result<u64, ChangeError>>,
}

/// What became of an answer so far.
pub(crate) enum Settling {
    Refused(Refused),
    /// It holds when the progress of this partition is durable.
    With(u32),
    /// It holds when the message is buried.
    Burying(tokio::sync::oneshot::Receiver<()>),
}

impl Hub {
    pub(crate) fn new(name: &str, start: Start, topic: &Arc<Topic>, store: &Arc<Store>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            nonce: rand::random(),
            topic: Arc::downgrade(topic),
            store: Arc::downgrade(store),
            inner: Mutex::new(Inner {
                start,
                parts: BTreeMap::new(),
                seats: BTreeMap::new(),
                next_seat: 1,
                last_part: 0,
                last_woken: 0,
            }),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn most(&self) -> u32 {
        self.topic
            .upgrade()
            .map_or(0, |topic| topic.settings().max_deliveries)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.topic.upgrade().is_none_or(|topic| topic.is_gone())
    }

    /// A member joins. `start` is where the group starts in partitions in which it has no progress.
    pub(crate) fn join(self: &Arc<Self>, start: Start) -> (u64, Arc<Notify>) {
        let (id, wake) = {
            let mut inner = self.inner.lock();
            inner.start = start;
            let id = inner.next_seat;
            inner.next_seat += 1;
            let seat = Seat::default();
            let wake = Arc::clone(&seat.wake);
            inner.seats.insert(id, seat);
            (id, wake)
        };
        self.refresh();
        (id, wake)
    }

    /// A member goes away; what it had goes to the others at once.
    pub(crate) fn quit(self: &Arc<Self>, member: u64) {
        let most = self.most();
        let mut dead = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.seats.remove(&member);
            for part in inner.parts.values_mut() {
                let given_up = part.state.drop_member(member, most);
                dead.extend(
                    given_up
                        .into_iter()
                        .map(|given_up| self.dead(part, &given_up, MOST, None)),
                );
                drop(part.tell());
            }
            inner.wake_one();
        }
        self.bury(dead);
    }

    /// Takes up the partitions that came, and lets go of those that left.
    pub(crate) fn refresh(self: &Arc<Self>) {
        let partitions = self
            .topic
            .upgrade()
            .map(|topic| topic.partitions())
            .unwrap_or_default();
        for partition in &partitions {
            partition.add_hub(self);
        }
        let mut inner = self.inner.lock();
        inner.parts.retain(|index, part| {
            partitions.iter().any(|partition| partition.index() == *index)
                && part
                    .partition
                    .served()
                    .is_some_and(|entry| entry.number == part.entry.number)
        });
        for partition in partitions {
            self.take_up(&mut inner, &partition);
        }
        inner.count_held();
        inner.wake_all();
    }

    /// Something was committed in a partition, or it began to be served.
    pub(crate) fn look(self: &Arc<Self>, partition: u32) {
        let mut inner = self.inner.lock();
        if inner.parts.contains_key(&partition) {
            inner.wake_one();
            return;
        }
        let partition = self.topic.upgrade().and_then(|topic| topic.partition(partition));
        if let Some(partition) = partition {
            self.take_up(&mut inner, &partition);
            inner.wake_all();
        }
    }

    /// A partition was sealed: every delivery of it is over.
    pub(crate) fn leave(&self, partition: u32) {
        let mut inner = self.inner.lock();
        inner.parts.remove(&partition);
        inner.count_held();
        inner.wake_all();
    }

    fn take_up(&self, inner: &mut Inner, partition: &Arc<Partition>) {
        let Some(store) = self.store.upgrade() else { return };
        if inner.parts.contains_key(&partition.index()) {
            return;
        }
        let Some(entry) = partition.served() else { return };
        let known = entry.state().groups.get(&self.name).cloned();
        let progress = known.unwrap_or_else(|| Progress {
            floor: store.start_offset(partition, inner.start).0,
            ..Progress::default()
        });
        let mut part = Part {
            partition: Arc::clone(partition),
            entry,
            name: self.name.clone(),
            told_floor: 0,
            state: GroupState::new(progress),
            blocked: None,
        };
        // Where it starts is kept before anything is delivered.
        drop(part.tell());
        inner.parts.insert(partition.index(), part);
    }

    /// Takes offsets for a member, or puts it on the list of those that wait.
    pub(crate) fn reserve(self: &Arc<Self>, member: u64, budget: Budget) -> Option<Taken> {
        let store = self.store.upgrade()?;
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let most = inner.share(member, budget, &store);
        let order: Vec<u32> = {
            let after = inner.parts.range(inner.last_part + 1..);
            after
                .chain(inner.parts.range(..=inner.last_part))
                .map(|(&index, _)| index)
                .collect()
        };
        for index in order {
            let Some(part) = inner.parts.get_mut(&index) else {
                continue;
            };
            if part.blocked.as_ref().is_some_and(|(until, _)| *until > now) {
                continue;
            }
            let spans = part.spans(&store);
            if let Some(reserved) = part.state.reserve(most, &spans) {
                let taken = Taken {
                    hub: Arc::clone(self),
                    partition: Arc::clone(&part.partition),
                    epoch: part.entry.id.epoch,
                    offsets: reserved.offsets,
                };
                inner.last_part = index;
                if let Some(seat) = inner.seats.get_mut(&member) {
                    seat.waiting = false;
                }
                return Some(taken);
            }
        }
        if let Some(seat) = inner.seats.get_mut(&member) {
            seat.waiting = budget.messages > 0 && budget.bytes > 0;
        }
        None
    }

    /// A member does not wait any more. `woken`: because there is something; if it does not take it, another may.
    pub(crate) fn stop_waiting(&self, member: u64, woken: bool) {
        let mut inner = self.inner.lock();
        let was_waiting = inner
            .seats
            .get_mut(&member)
            .is_some_and(|seat| std::mem::take(&mut seat.waiting));
        if !was_waiting && !woken {
            inner.wake_one();
        }
    }

    /// Hands messages that were read out, as far as the budget goes; the rest of what was taken goes back.
    pub(crate) fn deliver(
        &self,
        mut taken: Taken,
        member: u64,
        messages: Vec<StoredMessage>,
        budget: Budget,
    ) -> Vec<Delivered> {
        let deadline = self.topic.upgrade().map(|topic| topic.settings().ack_deadline);
        let deadline = Instant::now() + deadline.unwrap_or_default();
        let index = taken.partition.index();
        let mut buffer = BytesMut::new();
        let mut delivered = Vec::with_capacity(messages.len());
        let mut inner = self.inner.lock();
        if !inner.seats.contains_key(&member) {
            return delivered;
        }
        let Some(part) = inner
            .parts
            .get_mut(&index)
            .filter(|part| part.entry.id.epoch == taken.epoch)
        else {
            return delivered;
        };
        part.blocked = None;
        let mut bytes = 0u64;
        for message in messages {
            let offset = message.offset.0;
            if !taken.offsets.contains(&offset) || offset != taken.offsets.start {
                continue;
            }
            let size = message_bytes(&message);
            let full = bytes + size > budget.bytes || delivered.len() as u64 >= budget.messages;
            if full && !delivered.is_empty() {
                break;
            }
            bytes += size;
            taken.offsets.start = offset + 1;
            if offset < part.state.floor() {
                continue;
            }
            let (delivery, count) = part.state.deliver(offset, member, deadline);
            let token = Token {
                nonce: self.nonce,
                epoch: part.entry.id.epoch as u32,
                partition: index,
                offset,
                delivery,
            };
            delivered.push(Delivered {
                partition: index,
                message,
                count,
                token: token.write(&mut buffer),
            });
        }
        part.state.release(std::mem::take(&mut taken.offsets));
        if let Some(seat) = inner.seats.get_mut(&member) {
            seat.held += delivered.len() as u64;
        }
        // There may be more than this member took.
        inner.wake_one();
        delivered
    }

    /// What was taken cannot be read for now.
    pub(crate) fn block(&self, taken: &Taken, reason: &str) {
        const WAIT: std::time::Duration = std::time::Duration::from_millis(500);
        let mut inner = self.inner.lock();
        if let Some(part) = inner.part(taken.partition.index(), taken.epoch) {
            part.blocked = Some((Instant::now() + WAIT, reason.to_owned()));
        }
    }

    /// Offsets from the first taken one up to `end` are damaged: they are never delivered.
    pub(crate) fn skip(&self, taken: &mut Taken, end: u64) {
        let mut inner = self.inner.lock();
        if let Some(part) = inner.part(taken.partition.index(), taken.epoch) {
            part.state.skip(taken.offsets.start..end);
            taken.offsets.start = end.min(taken.offsets.end);
        }
    }

    /// Offsets below are gone by retention.
    pub(crate) fn trim(&self, taken: &mut Taken, start: u64) {
        let Some(store) = self.store.upgrade() else { return };
        let mut inner = self.inner.lock();
        if let Some(part) = inner.part(taken.partition.index(), taken.epoch) {
            let spans = part.partition.spans(&store.registry);
            part.state.trim(start, &spans);
            taken.offsets.start = start.clamp(taken.offsets.start, taken.offsets.end);
        }
    }

    /// Takes answers. What is to be waited for comes back.
    pub(crate) fn settle(self: &Arc<Self>, answers: Vec<(Bytes, Answer)>) -> (Vec<Settling>, Vec<Telling>) {
        let Some(store) = self.store.upgrade() else {
            let refused = answers
                .iter()
                .map(|_| Settling::Refused(Refused::Stale))
                .collect();
            return (refused, Vec::new());
        };
        let most = self.most();
        let now = Instant::now();
        let mut acked: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut dead = Vec::new();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let settling = answers
            .into_iter()
            .map(|(token, answer)| {
                let Some(token) = Token::read(&token) else {
                    return Settling::Refused(Refused::Malformed);
                };
                let part = inner
                    .parts
                    .get_mut(&token.partition)
                    .filter(|part| token.nonce == self.nonce && part.entry.id.epoch as u32 == token.epoch);
                let found = part.and_then(|part| {
                    part.state
                        .find(token.offset, token.delivery)
                        .map(|outstanding| (part, outstanding))
                });
                let Some((part, outstanding)) = found else {
                    return Settling::Refused(Refused::Stale);
                };
                let offset = token.offset;
                if !matches!(answer, Answer::Extend(_))
                    && let Some(seat) = inner.seats.get_mut(&outstanding.member)
                {
                    seat.held = seat.held.saturating_sub(1);
                }
                match answer {
                    Answer::Ack => {
                        part.state.take(offset);
                        acked.entry(token.partition).or_default().push(offset);
                    }
                    Answer::Nack(delay) => {
                        let not_before = (!delay.is_zero()).then(|| now + delay);
                        if let Some(given_up) = part.state.fail(offset, most, not_before) {
                            dead.push(self.dead(part, &given_up, MOST, None));
                        }
                    }
                    Answer::Extend(deadline) => part.state.extend(offset, now + deadline),
                    Answer::GiveUp => {
                        let (done, buried) = tokio::sync::oneshot::channel();
                        if let Some(given_up) = part.state.give_up(offset) {
                            dead.push(self.dead(part, &given_up, GIVEN_UP, Some(done)));
                        }
                        return Settling::Burying(buried);
                    }
                }
                Settling::With(token.partition)
            })
            .collect();
        for (index, mut offsets) in acked {
            if let Some(part) = inner.parts.get_mut(&index) {
                let spans = part.partition.spans(&store.registry);
                offsets.sort_unstable();
                for run in offsets.chunk_by(|a, b| a + 1 == *b) {
                    part.state.finish_range(run[0]..run[run.len() - 1] + 1, &spans);
                }
            }
        }
        let telling = inner.parts.values_mut().filter_map(Part::tell).collect();
        inner.wake_one();
        self.bury(dead);
        (settling, telling)
    }

    /// Waits for progress to be durable. `Err` says why it is not.
    pub(crate) async fn told(&self, telling: Telling) -> Result<(), Refused> {
        let why = match telling.answer.await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(ChangeError::Sealed)) => return Err(Refused::Stale),
            Ok(Err(ChangeError::Log(why))) => why,
            Err(_) => "the broker stopped".to_owned(),
        };
        let mut inner = self.inner.lock();
        if let Some(part) = inner.part(telling.partition, telling.epoch) {
            part.state.untell(telling.delta);
            part.told_floor = 0;
        }
        Err(Refused::Log(why))
    }

    /// Deadlines, delays.
    pub(crate) fn tick(self: &Arc<Self>, now: Instant) {
        let most = self.most();
        let mut dead = Vec::new();
        {
            let mut inner = self.inner.lock();
            let inner = &mut *inner;
            let mut changed = false;
            for part in inner.parts.values_mut() {
                let (members, given_up) = part.state.expire(now, most);
                changed |= !members.is_empty() || part.state.has_ready();
                for member in members {
                    if let Some(seat) = inner.seats.get_mut(&member) {
                        seat.held = seat.held.saturating_sub(1);
                    }
                }
                dead.extend(
                    given_up
                        .into_iter()
                        .map(|given_up| self.dead(part, &given_up, MOST, None)),
                );
                changed |= part.blocked.as_ref().is_some_and(|(until, _)| *until <= now);
                drop(part.tell());
            }
            if changed {
                inner.wake_one();
            }
        }
        self.bury(dead);
    }

    /// A message is buried: it is done.
    pub(crate) async fn finish_dead(&self, dead: &Dead) -> Result<(), Refused> {
        let telling = {
            let Some(store) = self.store.upgrade() else {
                return Ok(());
            };
            let mut inner = self.inner.lock();
            let Some(part) = inner.part(dead.partition.index(), dead.epoch) else {
                return Ok(());
            };
            let spans = part.partition.spans(&store.registry);
            part.state.finish_range(dead.offset..dead.offset + 1, &spans);
            part.tell()
        };
        match telling {
            Some(telling) => self.told(telling).await,
            None => Ok(()),
        }
    }

    /// Whether the message is still to be buried here.
    pub(crate) fn is_dying(&self, dead: &Dead) -> bool {
        let mut inner = self.inner.lock();
        inner
            .part(dead.partition.index(), dead.epoch)
            .is_some_and(|part| part.state.is_dying(dead.offset))
    }

    fn dead(
        self: &Arc<Self>,
        part: &Part,
        given_up: &GivenUp,
        reason: &'static str,
        done: Option<tokio::sync::oneshot::Sender<()>>,
    ) -> Dead {
        Dead {
            hub: Arc::clone(self),
            partition: Arc::clone(&part.partition),
            epoch: part.entry.id.epoch,
            offset: given_up.offset,
            count: given_up.count,
            reason,
            done,
        }
    }

    fn bury(&self, dead: Vec<Dead>) {
        if let Some(store) = self.store.upgrade().filter(|_| !dead.is_empty()) {
            store.bury(dead);
        }
    }

    /// Deliveries so far of messages that are not done, for the next owner.
    pub(crate) fn counts(&self, partition: u32) -> BTreeMap<u64, u32> {
        self.inner
            .lock()
            .parts
            .get(&partition)
            .map(|part| part.state.all_counts())
            .unwrap_or_default()
    }

    /// Whether anything can be given to a member now.
    pub(crate) fn has_waiting(&self) -> bool {
        let Some(store) = self.store.upgrade() else {
            return false;
        };
        let now = Instant::now();
        let inner = self.inner.lock();
        inner.parts.values().any(|part| {
            part.blocked.as_ref().is_none_or(|(until, _)| *until <= now)
                && part.state.available(&part.partition.spans(&store.registry)) > 0
        })
    }

    /// Partitions that this broker should serve and cannot, and why.
    pub(crate) fn problems(&self) -> BTreeMap<u32, String> {
        let mut problems = BTreeMap::new();
        for partition in self
            .topic
            .upgrade()
            .map(|topic| topic.partitions())
            .unwrap_or_default()
        {
            if let Some(problem) = &partition.view().problem {
                problems.insert(partition.index(), problem.clone());
            }
        }
        for (&index, part) in &self.inner.lock().parts {
            if let Some((_, reason)) = &part.blocked {
                problems.insert(index, reason.clone());
            }
        }
        problems
    }

    /// Every member looks again.
    pub(crate) fn wake_all(&self) {
        self.inner.lock().wake_all();
    }
}

/// Why a message is a dead letter.
const MOST: &str = "delivered as often as the topic allows";
const GIVEN_UP: &str = "given up by a consumer";

impl Drop for Taken {
    fn drop(&mut self) {
        if self.offsets.is_empty() {
            return;
        }
        let mut inner = self.hub.inner.lock();
        if let Some(part) = inner.part(self.partition.index(), self.epoch) {
            part.state.release(self.offsets.clone());
            inner.wake_one();
        }
    }
}

impl Part {
    /// What can be read now; what is gone by retention is done.
    fn spans(&mut self, store: &Store) -> Vec<Span> {
        let spans = self.partition.spans(&store.registry);
        if let Some(first) = spans.first() {
            self.state.trim(first.start, &spans);
        }
        spans
    }

    /// Queues what changed for the journal.
    fn tell(&mut self) -> Option<Telling> {
        let delta = self.state.take_untold(self.told_floor)?;
        self.told_floor = delta.floor;
        let partition = self.partition.index();
        let epoch = self.entry.id.epoch;
        let name = self.name.clone();
        let answer = self
            .partition
            .submit(&self.entry, Change::Progress(name, delta.clone()));
        Some(Telling {
            partition,
            epoch,
            delta,
            answer,
        })
    }
}

impl Telling {
    /// The partition whose progress it is.
    pub(crate) fn partition(&self) -> u32 {
        self.partition
    }
}

impl Inner {
    fn part(&mut self, partition: u32, epoch: u64) -> Option<&mut Part> {
        self.parts
            .get_mut(&partition)
            .filter(|part| part.entry.id.epoch == epoch)
    }

    /// How many messages a member may take: all that it asks for, or its fair share of everything that is
    /// outstanding or available if others wait.
    fn share(&self, member: u64, budget: Budget, store: &Store) -> u64 {
        const MOST: u64 = 4096;
        if budget.bytes == 0 {
            return 0;
        }
        let most = budget.messages.min(MOST);
        let others_wait = self.seats.iter().any(|(&id, seat)| id != member && seat.waiting);
        if !others_wait {
            return most;
        }
        let held: u64 = self.seats.values().map(|seat| seat.held).sum();
        let available: u64 = self
            .parts
            .values()
            .map(|part| part.state.available(&part.partition.spans(&store.registry)))
            .sum();
        let share = (held + available).div_ceil(self.seats.len().max(1) as u64);
        let mine = self.seats.get(&member).map_or(0, |seat| seat.held);
        most.min(share.saturating_sub(mine))
    }

    /// Wakes the next member that waits, in turn.
    fn wake_one(&mut self) {
        let after = self
            .seats
            .range(self.last_woken + 1..)
            .find(|(_, seat)| seat.waiting);
        let next = after
            .or_else(|| self.seats.iter().find(|(_, seat)| seat.waiting))
            .map(|(&id, _)| id);
        if let Some(id) = next
            && let Some(seat) = self.seats.get_mut(&id)
        {
            seat.waiting = false;
            seat.wake.notify_one();
            self.last_woken = id;
        }
    }

    fn wake_all(&mut self) {
        for seat in self.seats.values_mut() {
            seat.waiting = false;
            seat.wake.notify_one();
        }
    }

    /// Counts anew what each member has, after partitions left.
    fn count_held(&mut self) {
        let mut held: BTreeMap<u64, u64> = BTreeMap::new();
        for part in self.parts.values() {
            for (member, count) in part.state.held_by_member() {
                *held.entry(member).or_default() += count;
            }
        }
        for (id, seat) in &mut self.seats {
            seat.held = held.get(id).copied().unwrap_or(0);
        }
    }
}

/// Bytes of key, headers and body.
pub(crate) fn message_bytes(message: &StoredMessage) -> u64 {
    let headers: usize = message
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    (message.key.len() + message.body.len() + headers) as u64
}
