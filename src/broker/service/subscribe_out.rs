//! What waits to be sent on a subscription.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;

use super::delivery;
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

    /// Takes messages back that were not sent yet. Returns their tokens and their bytes.
    pub fn retract(&mut self, unwanted: &HashSet<Bytes>) -> (Vec<Bytes>, u64) {
        let mut tokens = Vec::new();
        let mut all = 0;
        for (batch, bytes) in &mut self.deliveries {
            let mut back = 0;
            batch.deliveries.retain(|one| {
                let keep = !unwanted.contains(&one.token);
                if !keep {
                    back += delivery::wire_size(one);
                    tokens.push(one.token.clone());
                }
                keep
            });
            *bytes = bytes.saturating_sub(back);
            all += back;
        }
        self.deliveries.retain(|(batch, _)| !batch.deliveries.is_empty());
        self.delivery_bytes = self.delivery_bytes.saturating_sub(all);
        (tokens, all)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_is_taken_back_with_its_bytes() {
        let one = |token: &'static str| pb::Delivery {
            token: Bytes::from_static(token.as_bytes()),
            body: Bytes::from_static(b"12345"),
            ..pb::Delivery::default()
        };
        let mut out = SubscribeOut::default();
        out.deliver(vec![one("a"), one("b")], 10);
        out.deliver(vec![one("c")], 5);
        let unwanted = ["b", "c", "sent"].map(|token| Bytes::from_static(token.as_bytes()));
        let (tokens, bytes) = out.retract(&HashSet::from(unwanted));
        assert_eq!((tokens, bytes), (vec![Bytes::from("b"), Bytes::from("c")], 10));
        assert_eq!(out.unread(), (5, 1));
        let Some(Response::Deliveries(left)) = out.pop().and_then(|response| response.response) else {
            panic!("no deliveries")
        };
        assert_eq!(left.deliveries, [one("a")]);
        assert!(out.pop().is_none());
    }
}
