//! What brokers answer, and what becomes of the messages that they name.

use std::time::{Duration, Instant};

use tonic::Code;

use super::driver::Driver;
use super::session::{Event, What};
use super::{Stored, add};
use crate::client::error::{PublishError, is_permanent};
use crate::client::topology::describe;
use crate::pb::{self, publish_response::Response};

/// How long a link waits before it opens a stream to a broker that is about to go away.
const GOING_AWAY: Duration = Duration::from_millis(300);
/// After so many refusals of one partition in a row, the topology that we follow may be an old one.
const REFUSALS: u32 = 4;

impl Driver {
    pub(super) fn handle(&mut self, event: Event, now: Instant) {
        let is_of_event = |link: &super::link::Link| {
            link.session
                .as_ref()
                .is_some_and(|session| session.id == event.session)
        };
        let Some(index) = self.links.iter().position(is_of_event) else {
            return self.handle_probe(event);
        };
        match event.what {
            What::Response(response) => self.respond(index, response, now),
            What::Ended(None) => self.lose(index, now),
            What::Ended(Some(status)) if is_permanent(&status) => {
                self.refuse_all(status.code(), status.message().to_owned());
            }
            What::Ended(Some(status)) => {
                let address = &self.links[index].address;
                tracing::debug!(%address, status = %describe(&status), "a publish stream ended");
                self.lose(index, now);
            }
        }
    }

    /// A stream that only asked for a topic.
    fn handle_probe(&mut self, event: Event) {
        let What::Ended(Some(status)) = event.what else {
            return;
        };
        if event.session != 0 {
            return;
        }
        let (code, text) = (status.code(), status.message().to_owned());
        if is_permanent(&status) {
            self.refuse_all(code, text);
        } else if code == Code::NotFound {
            self.probe_problem = Some(PublishError::Refused { code, text });
        }
    }

    fn respond(&mut self, index: usize, response: Response, now: Instant) {
        match response {
            Response::Welcome(welcome) => {
                if let Some(session) = &mut self.links[index].session {
                    session.welcomed = true;
                    session.credit = welcome.credit.unwrap_or_default();
                    if welcome.max_message_bytes > 0 {
                        session.max_message_bytes = welcome.max_message_bytes;
                    }
                }
            }
            Response::Credit(credit) => {
                if let Some(session) = &mut self.links[index].session {
                    session.credit = credit;
                }
            }
            Response::Ack(ack) => self.acknowledge(index, &ack),
            Response::Throttled(throttled) => {
                add(&self.stats.throttles, 1);
                let retry_after = throttled
                    .retry_after
                    .and_then(|after| Duration::try_from(after).ok());
                let not_before = now + retry_after.unwrap_or(GOING_AWAY);
                for sequence in throttled.sequences {
                    if let Some(partition) = self.refuse(index, sequence) {
                        self.partitions[partition].not_before = Some(not_before);
                    }
                }
            }
            Response::Moved(moved) => self.move_partition(index, &moved, now),
            Response::Rejected(rejected) => {
                let entry = self.links[index]
                    .session
                    .as_mut()
                    .and_then(|s| s.take(rejected.sequence));
                if let Some(entry) = entry {
                    self.answered(entry.partition);
                    let code = Code::from(rejected.code);
                    self.settle(
                        entry,
                        Err(PublishError::Rejected {
                            code,
                            text: rejected.text,
                        }),
                    );
                }
            }
            Response::GoAway(_) => {
                let link = &mut self.links[index];
                link.retry_at = Some(now + GOING_AWAY);
                if let Some(session) = &mut link.session {
                    session.draining = true;
                }
            }
        }
    }

    fn acknowledge(&mut self, index: usize, ack: &pb::Ack) {
        self.links[index].backoff.reset();
        self.links[index].retry_at = None;
        self.acks += 1;
        for offset in &ack.offsets {
            if let Some(partition) = self.partitions.get_mut(offset.partition as usize) {
                partition.acked = (self.acks, offset.offset);
            }
        }
        let mut entries = std::mem::take(&mut self.scratch);
        if let Some(session) = &mut self.links[index].session {
            entries.extend(std::iter::from_fn(|| session.pop_acked(ack.sequence)));
        }
        for entry in &entries {
            self.answered(entry.partition);
            let partition = &mut self.partitions[entry.partition as usize];
            partition.acked_sequence = entry.sequence;
            partition.backoff.reset();
        }
        add(&self.stats.acknowledged, entries.len() as u64);
        add(&self.stats.duplicates, ack.duplicates);
        let durability = pb::Durability::try_from(ack.durability).unwrap_or_default();
        for entry in entries.drain(..) {
            let partition = &self.partitions[entry.partition as usize];
            let exact = partition.acked_sequence == entry.sequence && partition.acked.0 == self.acks;
            let stored = Stored {
                partition: entry.partition,
                offset: partition.acked.1,
                exact,
                durability,
            };
            self.settle(entry, Ok(stored));
        }
        self.scratch = entries;
    }

    /// One message of a partition is not in flight any more.
    fn answered(&mut self, partition: u32) {
        let partition = &mut self.partitions[partition as usize];
        partition.in_flight -= 1;
        if partition.in_flight == 0 && partition.link.is_none() {
            self.is_moving = true;
        }
    }

    /// Takes a message back that was not stored, and with it the partition off its link. Returns the partition.
    fn refuse(&mut self, index: usize, sequence: u64) -> Option<usize> {
        let entry = self.links[index].session.as_mut()?.take(sequence)?;
        add(&self.stats.resent, 1);
        self.answered(entry.partition);
        let partition = entry.partition as usize;
        self.partitions[partition].returned.push(entry);
        if self.partitions[partition].link == Some(index) {
            self.detach(partition);
        }
        self.is_moving = true;
        Some(partition)
    }

    fn move_partition(&mut self, index: usize, moved: &pb::Moved, now: Instant) {
        add(&self.stats.moves, 1);
        let number = moved.partition as usize;
        // Every batch that was on its way is answered; only the first answer is news.
        let is_news = self
            .partitions
            .get(number)
            .is_some_and(|partition| partition.link == Some(index));
        for sequence in &moved.sequences {
            self.refuse(index, *sequence);
        }
        if !is_news {
            return;
        }
        self.detach(number);
        let here = self.links[index].address.clone();
        let partition = &mut self.partitions[number];
        let wait = partition.backoff.next();
        let knows_better = moved.epoch > partition.epoch && !moved.address.is_empty();
        if knows_better && *moved.address != *here {
            partition.hint = Some((moved.epoch, moved.address.as_str().into()));
            let is_repeated = partition.backoff.failures() > REFUSALS;
            partition.not_before = is_repeated.then(|| now + wait);
        } else {
            // It does not know the owner, is itself the one that we take for the owner, or is behind.
            partition.hint = None;
            partition.not_before = Some(now + wait);
        }
        if partition.backoff.failures() > REFUSALS {
            self.client.inner.refresh.notify_one();
        }
    }

    /// The stream is gone, and nobody knows what became of the unanswered messages: they are sent again, in their
    /// order and with their sequences.
    pub(super) fn lose(&mut self, index: usize, now: Instant) {
        let link = &mut self.links[index];
        link.is_full = false;
        let Some(session) = link.session.take() else {
            return;
        };
        session.task.abort();
        let is_expected = session.draining && session.is_settled();
        let mut back = std::collections::VecDeque::new();
        for entry in session.sent.into_iter().filter_map(|sent| sent.entry) {
            let partition = &mut self.partitions[entry.partition as usize];
            partition.in_flight -= 1;
            add(&self.stats.resent, 1);
            if partition.link == Some(index) {
                back.push_back(entry);
            } else {
                partition.returned.push(entry);
            }
        }
        if !back.is_empty() {
            link.queue = super::partition::merge(back, std::mem::take(&mut link.queue));
        }
        if !is_expected {
            add(&self.stats.reconnects, 1);
            link.retry_at = Some(now + link.backoff.next());
            self.forward_index += 1;
        }
        self.is_moving = true;
    }
}
