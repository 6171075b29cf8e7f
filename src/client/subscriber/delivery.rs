//! One message as it came, and the caller's answer to it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::outbox::{Answer, Outbox};
use crate::pb;

/// A message, delivered once to this member. Answer it with [`Delivery::ack`], [`Delivery::nack`] or
/// [`Delivery::give_up`]; dropped without an answer, it is delivered again after its deadline.
#[derive(Debug)]
pub struct Delivery {
    /// Its partition.
    pub partition: u32,
    /// Its offset: increasing within the partition, otherwise opaque.
    pub offset: u64,
    /// 1 for the first delivery.
    pub delivery_count: u32,
    /// The key, or empty.
    pub key: Bytes,
    /// Names and values, in their order.
    pub headers: Vec<(String, Bytes)>,
    /// The content.
    pub body: Bytes,
    /// When the broker stored it.
    pub published_at: Option<SystemTime>,
    /// The producer that sent it; empty where it gave no id.
    pub producer_id: String,
    /// The producer's sequence.
    pub sequence: u64,
    pub(super) handle: Handle,
}

/// The right to answer once. However it ends, the message's credit goes back.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) outbox: Arc<Outbox>,
    pub(super) token: Bytes,
    bytes: u64,
    is_answered: bool,
}

impl Delivery {
    pub(super) fn new(delivery: pb::Delivery, outbox: Arc<Outbox>) -> Self {
        let headers: Vec<_> = delivery
            .headers
            .into_iter()
            .map(|header| (header.name, header.value))
            .collect();
        let header_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = (delivery.key.len() + delivery.body.len() + header_bytes) as u64;
        Self {
            partition: delivery.partition,
            offset: delivery.offset,
            delivery_count: delivery.delivery_count,
            key: delivery.key,
            headers,
            body: delivery.body,
            published_at: delivery
                .published_at
                .and_then(|time| SystemTime::try_from(time).ok()),
            producer_id: delivery.producer_id,
            sequence: delivery.sequence,
            handle: Handle {
                outbox,
                token: delivery.token,
                bytes,
                is_answered: false,
            },
        }
    }

    /// Done: it is not delivered to this group again. Answers are sent in batches; that it was too late is counted
    /// in [`super::SubscriberStats::stale`].
    pub fn ack(self) {
        self.handle.answer(Answer::Ack);
    }

    /// Deliver it again, to any member, no sooner than after `delay`.
    pub fn nack(self, delay: Duration) {
        self.handle.answer(Answer::Nack(delay));
    }

    /// As [`Delivery::nack`], for one that the caller never saw: the delivery is not counted.
    pub(super) fn give_back(self, delay: Duration) {
        self.handle.answer(Answer::GiveBack(delay));
    }

    /// To the dead-letter topic where there is one, and done.
    pub fn give_up(self) {
        self.handle.answer(Answer::GiveUp);
    }

    /// Moves its deadline to now plus `deadline`.
    pub fn extend(&self, deadline: Duration) {
        self.handle.outbox.extend(self.handle.token.clone(), deadline);
    }
}

impl Handle {
    fn answer(mut self, answer: Answer) {
        self.is_answered = true;
        let token = std::mem::take(&mut self.token);
        self.outbox.answer(token, answer, self.bytes);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.is_answered {
            self.outbox.give_back(self.bytes);
        }
    }
}
