//! What waits to be sent on a subscription.

use std::collections::VecDeque;

use super::outbox::Queue;
use crate::pb;
use crate::pb::subscribe_response::Response;

/// Answers first, then what was said about partitions, then deliveries.
#[derive(Debug, Default)]
pub struct SubscribeOut {
    first: VecDeque<Response>,
    settled: pb::Settled,
    pending: Option<pb::PendingCredit>,
    deliveries: VecDeque<(pb::Deliveries, u64)>,
    delivery_bytes: u64,
}

impl Queue for SubscribeOut {
    type Item = pb::SubscribeResponse;

    fn pop(&mut self) -> Option<Self::Item> {
        let response = if let Some(first) = self.first.pop_front() {
            first
        } else if !(self.settled.settled.is_empty() && self.settled.refused.is_empty()) {
            Response::Settled(std::mem::take(&mut self.settled))
        } else if let Some(pending) = self.pending.take() {
            Response::Pending(pending)
        } else {
            let (deliveries, bytes) = self.deliveries.pop_front()?;
            self.delivery_bytes -= bytes;
            Response::Deliveries(deliveries)
        };
        Some(pb::SubscribeResponse {
            response: Some(response),
        })
    }
}

impl SubscribeOut {
    /// Something that is said once.
    pub fn say(&mut self, response: Response) {
        self.first.push_back(response);
    }

    /// What became of tokens; merged with answers that were not sent yet.
    pub fn settled(&mut self, settled: pb::Settled) {
        self.settled.settled.extend(settled.settled);
        self.settled.refused.extend(settled.refused);
    }

    /// The credit left; it replaces one that was not sent yet.
    pub fn pending(&mut self, pending: pb::PendingCredit) {
        self.pending = Some(pending);
    }

    /// Messages of `bytes` bytes.
    pub fn deliver(&mut self, deliveries: Vec<pb::Delivery>, bytes: u64) {
        self.delivery_bytes += bytes;
        self.deliveries.push_back((pb::Deliveries { deliveries }, bytes));
    }

    /// Bytes and batches of messages that the client has not read.
    pub fn unread(&self) -> (u64, usize) {
        (self.delivery_bytes, self.deliveries.len())
    }

    /// Answers that the client has not read.
    pub fn waiting_answers(&self) -> usize {
        self.settled.settled.len() + self.settled.refused.len() + self.first.len()
    }
}
