//! Taking messages for a member, and handing them out.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::hub::Hub;
use super::token::Token;
use super::{Budget, Delivered};
use crate::broker::partition::Partition;
use crate::broker::store::StoredMessage;

/// Offsets that are being read for a member. Dropped, they go back.
#[derive(Debug)]
pub(crate) struct Taken {
    hub: Arc<Hub>,
    pub(crate) partition: Arc<Partition>,
    pub(crate) epoch: u64,
    pub(crate) offsets: Range<u64>,
}

impl Hub {
    /// Takes offsets for a member, or puts it on the list of those that wait.
    pub(crate) fn reserve(self: &Arc<Self>, member: u64, budget: Budget) -> Option<Taken> {
        let store = self.store.upgrade()?;
        let now = Instant::now();
        let mut inner = self.inner.lock();
        if let Some(seat) = inner.seats.get_mut(&member) {
            seat.room = if budget.bytes == 0 { 0 } else { budget.messages };
        }
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
        let mut wants = false;
        if let Some(seat) = inner.seats.get_mut(&member) {
            wants = seat.room > 0;
            seat.waiting = wants;
        }
        if most == 0 && wants {
            // It has its share; what it was woken for is another's.
            inner.wake_neediest(member);
        }
        None
    }

    /// A member takes nothing for now: its share is the others'.
    pub(crate) fn rest(&self, member: u64) {
        let mut inner = self.inner.lock();
        if let Some(seat) = inner.seats.get_mut(&member) {
            seat.room = 0;
            seat.waiting = false;
        }
        inner.wake_one();
    }

    /// Tokens that a member is to be asked to give back.
    pub(crate) fn take_revoked(&self, member: u64) -> Vec<Bytes> {
        let mut inner = self.inner.lock();
        let seat = inner.seats.get_mut(&member);
        seat.map(|seat| std::mem::take(&mut seat.revoked))
            .unwrap_or_default()
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
            seat.room = seat.room.saturating_sub(delivered.len() as u64);
        }
        // There may be more than this member took.
        inner.wake_one();
        delivered
    }

    /// What was taken cannot be read for now.
    pub(crate) fn block(&self, taken: &Taken, reason: &str) {
        const WAIT: Duration = Duration::from_millis(500);
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
            part.cut |= part.state.trim(start, &spans);
            taken.offsets.start = start.clamp(taken.offsets.start, taken.offsets.end);
        }
    }
}

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

/// Bytes of key, headers and body.
pub(crate) fn message_bytes(message: &StoredMessage) -> u64 {
    let headers: usize = message
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    (message.key.len() + message.body.len() + headers) as u64
}
