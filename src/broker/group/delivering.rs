//! Taking messages for a member, and handing them out.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::hub::Hub;
use super::settling::MOST;
use super::state::{Placed, Reserved};
use super::token::Token;
use super::{Budget, Delivered, Order};
use crate::broker::clock;
use crate::broker::partition::Partition;
use crate::broker::store::{Offset, StoredMessage};

/// Offsets that are being read for a member. Dropped, they go back.
#[derive(Debug)]
pub(crate) struct Taken {
    hub: Arc<Hub>,
    pub(crate) partition: Arc<Partition>,
    pub(crate) epoch: u64,
    pub(crate) reserved: Reserved,
    /// What was not delivered went back already.
    is_over: bool,
}

impl Hub {
    /// Takes offsets for a member, or puts it on the list of those that wait.
    pub(crate) fn reserve(self: &Arc<Self>, member: u64, budget: Budget) -> Option<Taken> {
        let store = self.store.upgrade()?;
        let now = clock::now();
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
                    reserved,
                    is_over: false,
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
        self: &Arc<Self>,
        mut taken: Taken,
        member: u64,
        messages: Vec<StoredMessage>,
        budget: Budget,
    ) -> Vec<Delivered> {
        let settings = self.topic.upgrade().map(|topic| topic.settings());
        let (ack_deadline, most) = settings.map_or((Duration::ZERO, 0), |settings| {
            (settings.ack_deadline, settings.max_deliveries)
        });
        let deadline = clock::now() + ack_deadline;
        let index = taken.partition.index();
        let mut dead = Vec::new();
        let mut buffer = BytesMut::new();
        let mut delivered = Vec::with_capacity(messages.len());
        let mut inner = self.inner.lock();
        if !inner.seats.contains_key(&member) {
            return delivered;
        }
        let is_ordered = inner.order == Order::ByKey;
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
            if offset != taken.reserved.offsets.start {
                continue;
            }
            if !taken.reserved.wants(offset) {
                taken.reserved.advance(offset + 1);
                continue;
            }
            let size = message_bytes(&message);
            let full = bytes + size > budget.bytes || delivered.len() as u64 >= budget.messages;
            if full && !delivered.is_empty() {
                break;
            }
            taken.reserved.advance(offset + 1);
            let has_key = is_ordered && !message.key.is_empty();
            let key = has_key.then(|| self.hasher.hash_one(&message.key));
            let (delivery, count) = match part.state.deliver(offset, key, member, deadline, most) {
                Placed::Delivered(delivery, count) => (delivery, count),
                Placed::GivenUp(given_up) => {
                    dead.push(self.dead(part, &given_up, MOST, None));
                    continue;
                }
                Placed::Kept => continue,
            };
            bytes += size;
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
        part.state.release(&taken.reserved);
        taken.is_over = true;
        if let Some(seat) = inner.seats.get_mut(&member) {
            seat.held += delivered.len() as u64;
            seat.room = seat.room.saturating_sub(delivered.len() as u64);
        }
        // There may be more than this member took.
        inner.wake_one();
        drop(inner);
        self.bury(dead);
        delivered
    }

    /// What was taken cannot be read for now.
    pub(crate) fn block(&self, taken: &Taken, reason: &str) {
        const WAIT: Duration = Duration::from_millis(500);
        let mut inner = self.inner.lock();
        if let Some(part) = inner.part(taken.partition.index(), taken.epoch) {
            part.blocked = Some((clock::now() + WAIT, reason.to_owned()));
        }
    }

    /// Offsets from the first taken one up to `end` are damaged: they are never delivered.
    pub(crate) fn skip(&self, taken: &mut Taken, end: u64) {
        let mut inner = self.inner.lock();
        if let Some(part) = inner.part(taken.partition.index(), taken.epoch) {
            part.state.skip(&mut taken.reserved, end);
        }
    }

    /// Offsets below are gone by retention, of the same epoch.
    pub(crate) fn trim(&self, taken: &mut Taken, start: u64) {
        let Some(store) = self.store.upgrade() else { return };
        let mut inner = self.inner.lock();
        if let Some(part) = inner.part(taken.partition.index(), taken.epoch) {
            let spans = part.partition.spans(&store.registry);
            let first = Offset::new(Offset(start).epoch(), 0).0;
            part.state.lose(first..start, &spans);
            taken.reserved.advance(start);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut inner = self.hub.inner.lock();
        if let Some(part) = inner.part(self.partition.index(), self.epoch) {
            part.state.release(&self.reserved);
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
