//! Sending: as many batches as the credit of each stream allows, and not one message more.

use std::time::{Duration, Instant};

use rand::seq::IndexedRandom as _;
use tokio::sync::mpsc::error::TrySendError;
use tonic::Code;

use super::driver::Driver;
use super::link::Link;
use super::partition::Entry;
use super::session::{self, Sent, Session};
use crate::client::error::PublishError;
use crate::pb;

/// How long a stream may take to be opened.
const OPENING: Duration = Duration::from_secs(10);
/// How long a broker may take to end a stream that was half-closed.
const ENDING: Duration = Duration::from_secs(5);
/// How often a topic that does not exist is asked for.
const PROBE: Duration = Duration::from_secs(1);
/// Framing of one message in `payload_bytes`.
const FRAME: u64 = 40;

impl Driver {
    /// Sends what can be sent on every link.
    pub(super) fn pump(&mut self, now: Instant) {
        self.pump_at = None;
        for index in 0..self.links.len() {
            loop {
                self.end_if_done(index, now);
                if self.links[index].wants_session() {
                    match self.links[index].retry_at.filter(|at| *at > now) {
                        Some(at) => self.wake_pump(at),
                        None => self.open(index),
                    }
                }
                self.send(index, now);
                // A stream that only had to end for the next one makes room for it at once.
                let link = &self.links[index];
                let ends_now = link
                    .session
                    .as_ref()
                    .is_some_and(|s| s.draining && s.is_settled());
                if !ends_now {
                    break;
                }
            }
        }
    }

    fn wake_pump(&mut self, at: Instant) {
        self.pump_at = Some(self.pump_at.map_or(at, |other| other.min(at)));
    }

    /// Half-closes a stream that has nothing unanswered, if it is to be replaced or nobody needs it.
    fn end_if_done(&mut self, index: usize, now: Instant) {
        let link = &mut self.links[index];
        let is_unused = link.partitions == 0 && link.queue.is_empty();
        let done = link
            .session
            .take_if(|s| s.is_settled() && (s.draining || is_unused));
        if let Some(session) = done {
            link.is_full = false;
            self.ending.push((now + ENDING, session.task));
        }
    }

    fn open(&mut self, index: usize) {
        let address = self.links[index].address.clone();
        let Ok(broker) = self.client.inner.pool.broker(&address) else {
            tracing::warn!(%address, "the topology names a broker whose address is none");
            self.links[index].retry_at = Some(Instant::now() + OPENING);
            return;
        };
        let id = self.next_session;
        self.next_session += 1;
        let direct = !self.client.inner.forward;
        let open = session::open_request(&self.settings.topic, &self.settings.producer_id, direct);
        let (outgoing, batches) = session::outgoing();
        let task = self
            .tasks
            .spawn(session::run(id, broker, open, batches, self.events.clone()));
        let link = &mut self.links[index];
        link.is_full = false;
        link.session = Some(Session::new(id, outgoing, task));
    }

    fn send(&mut self, index: usize, now: Instant) {
        let is_flushing = self.is_flushing();
        loop {
            let settings = &self.settings;
            let link = &mut self.links[index];
            let Some(session) = &mut link.session else { return };
            let Some(front) = link.queue.front() else {
                link.queued_since = None;
                return;
            };
            if !session.welcomed || session.draining {
                return;
            }
            if front.sequence <= session.last_sent {
                session.draining = true;
                return;
            }
            if front.bytes - FRAME > session.max_message_bytes {
                let limit = session.max_message_bytes;
                if let Some(entry) = link.queue.pop_front() {
                    let bytes = entry.bytes - FRAME;
                    self.settle(entry, Err(PublishError::TooLarge { bytes, limit }));
                }
                continue;
            }
            if !settings.linger.is_zero() && !is_flushing && link.queue.len() < settings.batch_messages {
                let at = *link.queued_since.get_or_insert(now) + settings.linger;
                if at > now {
                    return self.wake_pump(at);
                }
            }
            let is_worthwhile = session.is_worthwhile(link.queue.len(), settings.batch_messages);
            if !is_worthwhile || !session.has_credit(1, front.bytes) {
                link.starved_since.get_or_insert(now);
                return;
            }
            if let Some(since) = link.starved_since.take() {
                link.starved_nanos += now.saturating_duration_since(since).as_nanos() as u64;
            }
            let place = match session.outgoing.clone().try_reserve_owned() {
                Ok(place) => place,
                Err(TrySendError::Full(_)) => {
                    link.is_full = true;
                    return;
                }
                // The task's last event tells why.
                Err(TrySendError::Closed(_)) => return,
            };
            link.is_full = false;
            let batch = next_batch(link, settings.batch_messages, settings.batch_bytes, |partition| {
                self.partitions[partition as usize].in_flight += 1;
            });
            place.send(pb::PublishRequest {
                request: Some(pb::publish_request::Request::Batch(batch)),
            });
        }
    }

    /// Timeouts: of messages, of streams that do not open or end, and asking for a topic that does not exist.
    pub(super) fn tick(&mut self, now: Instant) {
        self.ending.retain(|(at, task)| {
            if *at <= now {
                task.abort();
            }
            *at > now && !task.is_finished()
        });
        for index in 0..self.links.len() {
            let limit = self.settings.delivery_timeout;
            let hangs = self.links[index].session.as_ref().is_some_and(|session| {
                let oldest = session.sent.front().and_then(|sent| sent.entry.as_ref());
                let is_late =
                    limit.is_some_and(|limit| oldest.is_some_and(|entry| entry.accepted + limit <= now));
                is_late || (!session.welcomed && session.opened + OPENING <= now)
            });
            if hangs {
                tracing::warn!(address = %self.links[index].address, "the broker does not answer");
                self.lose(index, now);
            }
        }
        if let Some(limit) = self.settings.delivery_timeout {
            self.expire(limit, now);
        }
        if !self.unrouted.is_empty() && self.probe_at <= now {
            self.probe_at = now + PROBE;
            self.probe(now);
        }
    }

    fn expire(&mut self, limit: Duration, now: Instant) {
        let is_late = |entry: &mut Entry| entry.accepted + limit <= now;
        let mut late: Vec<Entry> = Vec::new();
        for link in &mut self.links {
            late.extend(std::iter::from_fn(|| link.queue.pop_front_if(is_late)));
        }
        for partition in &mut self.partitions {
            late.extend(std::iter::from_fn(|| partition.parked.pop_front_if(is_late)));
        }
        for entry in late {
            self.settle(entry, Err(PublishError::TimedOut(limit)));
        }
        while let Some(entry) = self.unrouted.pop_front_if(is_late) {
            let error = self
                .probe_problem
                .clone()
                .unwrap_or(PublishError::TimedOut(limit));
            self.settle(entry, Err(error));
        }
    }

    /// Opens a stream to the topic on any broker, so that the topic is made where topics are made on demand.
    fn probe(&mut self, now: Instant) {
        let addresses = self.client.addresses();
        let Some(broker) = addresses
            .choose(&mut rand::rng())
            .and_then(|address| self.client.inner.pool.broker(address).ok())
        else {
            return;
        };
        let open = session::open_request(&self.settings.topic, &self.settings.producer_id, false);
        let (_, no_batches) = session::outgoing();
        let task = self
            .tasks
            .spawn(session::run(0, broker, open, no_batches, self.events.clone()));
        self.ending.push((now + ENDING, task));
    }

    /// Fails everything, now and from now on.
    pub(super) fn refuse_all(&mut self, code: Code, text: String) {
        let error = PublishError::Refused { code, text };
        let mut entries = Vec::from(std::mem::take(&mut self.unrouted));
        for partition in &mut self.partitions {
            entries.append(&mut partition.returned);
            entries.extend(partition.parked.drain(..));
            partition.in_flight = 0;
        }
        for link in &mut self.links {
            entries.extend(link.queue.drain(..));
            if let Some(session) = link.session.take() {
                session.task.abort();
                entries.extend(session.sent.into_iter().filter_map(|sent| sent.entry));
            }
        }
        entries.sort_unstable_by_key(|entry| entry.sequence);
        for entry in entries {
            self.settle(entry, Err(error.clone()));
        }
        self.refused = Some(error);
    }
}

/// Moves messages from the queue to the stream's unanswered ones, as many as batch and credit take.
fn next_batch(
    link: &mut Link,
    max_messages: usize,
    max_bytes: u64,
    mut on_sent: impl FnMut(u32),
) -> pb::PublishBatch {
    let mut batch = pb::PublishBatch {
        payloads: Vec::with_capacity(link.queue.len().min(max_messages)),
        waited_nanos: std::mem::take(&mut link.starved_nanos),
        offered_messages: Some(std::mem::take(&mut link.offered)),
    };
    let Some(session) = &mut link.session else {
        return batch;
    };
    let mut bytes = 0;
    while batch.payloads.len() < max_messages {
        let fits = |entry: &mut Entry| {
            (bytes == 0 || bytes + entry.bytes <= max_bytes)
                && session.has_credit(1, entry.bytes)
                && entry.bytes - FRAME <= session.max_message_bytes
        };
        let Some(entry) = link.queue.pop_front_if(fits) else {
            break;
        };
        bytes += entry.bytes;
        session.sent_messages += 1;
        session.sent_bytes += entry.bytes;
        session.last_sent = entry.sequence;
        on_sent(entry.partition);
        batch.payloads.push(entry.payload.clone());
        session.sent.push_back(Sent {
            sequence: entry.sequence,
            bytes: entry.bytes,
            entry: Some(entry),
        });
    }
    link.queued_since = None;
    batch
}
