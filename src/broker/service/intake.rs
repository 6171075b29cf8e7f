//! What a publish stream does with a batch that comes in: count it against the credit, refuse what is bad alone,
//! and sort the rest by partition.

use std::time::{Duration, Instant};

use tonic::Status;

use super::credit::Grant;
use super::forward::{Part, Why};
use super::payload;
use super::publish::{AWAY_RETRY_AFTER, FENCED, RETRY_AFTER, Session, TOLERANCE, Waiting};
use super::publish_out::PublishOut;
use super::rounds::Round;
use crate::broker::refusals::Reason;
use crate::broker::store::NewMessage;
use crate::pb;

/// A round takes more batches while it waits for the channel, until it has so many messages or bytes.
const ROUND_MESSAGES: u64 = 1024;
const ROUND_BYTES: u64 = 1 << 20;
/// A client that has so many refused payloads to read about is cut off: those take no credit.
const MOST_UNREAD: usize = 1 << 16;

/// A round that nothing of has gone on yet: batches that come while the stream waits for the channel join it.
#[derive(Debug)]
pub(super) struct Forming {
    arrived: Instant,
    round: Round,
    parts: Vec<Part>,
}

impl Session {
    /// # Errors
    /// The client sent more than its credit: the stream ends.
    pub(super) fn batch(&mut self, batch: pb::PublishBatch) -> Result<(), Status> {
        let now = Instant::now();
        self.shared.counters.requests.add(1);
        self.clock.batch(now, Duration::from_nanos(batch.waited_nanos));
        if let Some(offered) = batch.offered_messages {
            self.shared.counters.offered_messages.add(offered);
        } else {
            let sent = batch.payloads.len() as u64;
            self.shared.counters.offered_messages.add(sent);
            self.shared.counters.untold_messages.add(sent);
        }
        if batch.payloads.is_empty() {
            return Ok(());
        }
        let max_message_bytes = self.shared.credit.limits().max_message_bytes;
        let mut bytes = 0;
        let mut count = 0;
        for payload in &batch.payloads {
            let size = payload::size(payload);
            // A payload that is too large is rejected below and takes no credit.
            if size <= max_message_bytes {
                bytes += size;
                count += 1;
            }
        }
        self.check_credit(count, bytes)?;
        self.shared.counters.bytes_in.add(bytes);
        let reserved = self.shared.inflight.reserve(bytes);
        let is_full = reserved.is_none();
        let mut forming = self.forming.take().unwrap_or_else(|| Forming {
            arrived: now,
            round: Round {
                lowest: u64::MAX,
                ..Round::default()
            },
            parts: Vec::new(),
        });
        forming.round.reserved.extend(reserved);
        forming.round.payloads += batch.payloads.len() as u64;
        self.spread.turn(&self.topic);
        let mut throttled = Vec::new();
        for payload in batch.payloads {
            let sequence = payload.sequence;
            forming.round.highest = forming.round.highest.max(sequence);
            forming.round.lowest = forming.round.lowest.min(sequence);
            let size = payload::size(&payload);
            let partitions = self.topic.partitions.len() as u32;
            if let Err(bad) = payload::check(&payload, size, max_message_bytes, partitions) {
                self.shared.counters.rejected_messages.add(1);
                self.outbox.push(|out| {
                    out.reject(pb::Rejected {
                        sequence,
                        code: bad.code.into(),
                        text: bad.text,
                    });
                });
                continue;
            }
            let partition = self
                .spread
                .place(&payload.key, payload.partition, payload.sequence, &self.topic);
            if self.fence.holds(partition, sequence) || is_full {
                self.fence.refuse(partition, sequence);
                throttled.push(sequence);
                continue;
            }
            forming.add(partition, size, payload::message(payload));
        }
        if !throttled.is_empty() {
            let reason = if is_full {
                let text = "the broker holds as many bytes as it may (limits.maxInflightBytes)";
                let count = throttled.len() as u64;
                self.shared.refusals.count_many(Reason::Inflight, count, &text);
                text
            } else {
                FENCED
            };
            self.outbox
                .push(|out| out.throttle(&throttled, RETRY_AFTER, reason));
        }
        let (messages, bytes) = forming.taken();
        self.unsettled.0 += messages - forming.round.messages;
        self.unsettled.1 += bytes - forming.round.bytes;
        self.taken_in.0 += messages - forming.round.messages;
        self.taken_in.1 += bytes - forming.round.bytes;
        forming.round.messages = messages;
        forming.round.bytes = bytes;
        let is_large = messages >= ROUND_MESSAGES || bytes >= ROUND_BYTES;
        self.forming = Some(forming);
        if is_large {
            self.close_round();
        }
        self.tick(now);
        if self.outbox.look(PublishOut::refusals) > MOST_UNREAD {
            let text = "too many refusals wait to be read; read the stream";
            self.shared.refusals.count(Reason::Unread, &text);
            return Err(Status::resource_exhausted(text));
        }
        Ok(())
    }

    /// Lets the round that was forming go on. False if there was none.
    pub(super) fn close_round(&mut self) -> bool {
        let Some(Forming {
            arrived,
            mut round,
            parts,
        }) = self.forming.take()
        else {
            return false;
        };
        round.open = parts.len();
        let round = self.rounds.push(round);
        self.waiting
            .extend(parts.into_iter().map(|part| Waiting { round, arrived, part }));
        true
    }

    /// The largest grant that the client may still go by.
    pub(super) fn tolerated(&self) -> Grant {
        match self.earlier {
            Some((earlier, since))
                if since.elapsed() < TOLERANCE || self.outbox.look(PublishOut::has_credit) =>
            {
                Grant {
                    messages: self.grant.messages.max(earlier.messages),
                    bytes: self.grant.bytes.max(earlier.bytes),
                }
            }
            _ => self.grant,
        }
    }

    fn check_credit(&self, count: u64, bytes: u64) -> Result<(), Status> {
        let known = self.outbox.look(PublishOut::taken);
        let messages = (self.taken_in.0 + count).saturating_sub(known.0);
        let bytes = (self.taken_in.1 + bytes).saturating_sub(known.1);
        let within = |grant: Grant| messages <= grant.messages && bytes <= grant.bytes;
        if within(self.grant) {
            return Ok(());
        }
        let most = self.tolerated();
        if within(most) {
            return Ok(());
        }
        let text = format!(
            "the stream has {messages} messages and {bytes} bytes unacknowledged and was granted {} messages and {} bytes; \
             wait for acknowledgements before sending more",
            most.messages, most.bytes
        );
        self.shared.refusals.count(Reason::Credit, &text);
        Err(Status::resource_exhausted(text))
    }

    /// Answers the payloads of a part that was not stored, each by its sequence.
    pub(super) fn refuse(&mut self, round: u64, part: &Part, why: Why) {
        let messages = part.messages.len() as u64;
        if let Some(round) = self.rounds.get_mut(round) {
            round.open -= 1;
            round.messages -= messages;
            round.bytes -= part.bytes;
        }
        self.unsettled.0 -= messages;
        self.unsettled.1 -= part.bytes;
        self.taken_in.0 -= messages;
        self.taken_in.1 -= part.bytes;
        let sequences: Vec<u64> = part.messages.iter().map(|message| message.sequence).collect();
        if let Why::Never(text) = why {
            self.shared.counters.rejected_messages.add(messages);
            let code = tonic::Code::InvalidArgument.into();
            self.outbox.push(|out| {
                for sequence in sequences {
                    out.reject(pb::Rejected {
                        sequence,
                        code,
                        text: text.clone(),
                    });
                }
            });
            return;
        }
        for &sequence in &sequences {
            self.fence.refuse(part.partition, sequence);
        }
        let after = if self.away.contains(&part.partition) {
            AWAY_RETRY_AFTER
        } else {
            RETRY_AFTER
        };
        self.outbox.push(|out| match why {
            Why::Moved { address, epoch } => {
                out.moved(pb::Moved {
                    partition: part.partition,
                    address,
                    epoch,
                    sequences,
                });
            }
            Why::Later(reason) | Why::Never(reason) | Why::NotStored(reason) | Why::Failed(reason) => {
                out.throttle(&sequences, after, &reason);
            }
        });
    }
}

impl Forming {
    fn add(&mut self, partition: u32, size: u64, message: NewMessage) {
        // Payloads of one partition tend to come together.
        let at = match self.parts.last() {
            Some(last) if last.partition == partition => Some(self.parts.len() - 1),
            _ => self.parts.iter().position(|part| part.partition == partition),
        };
        match at.and_then(|at| self.parts.get_mut(at)) {
            Some(part) => {
                part.messages.push(message);
                part.bytes += size;
            }
            None => self.parts.push(Part {
                partition,
                messages: vec![message],
                bytes: size,
            }),
        }
    }

    /// The lowest sequence in it.
    pub(super) fn lowest(&self) -> u64 {
        self.round.lowest
    }

    fn taken(&self) -> (u64, u64) {
        let messages = self.parts.iter().map(|part| part.messages.len() as u64).sum();
        (messages, self.parts.iter().map(|part| part.bytes).sum())
    }
}
