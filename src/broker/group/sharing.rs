//! Fair shares: how many messages a member may take while others want some, and what those that hold more are
//! asked to give back.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::Budget;
use super::member::BATCH;
use super::seats::Inner;
use super::token::Token;
use crate::broker::store::Store;

/// The most that a member is asked for at once.
const MOST_ASKED: usize = 4096;
/// A member that was asked is asked for more only after this time.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl Inner {
    /// How many messages a member may take: all that it asks for, or up to its fair share of everything that is
    /// outstanding or available if others want messages too.
    pub(super) fn share(&self, member: u64, budget: Budget, store: &Store) -> u64 {
        if budget.bytes == 0 {
            return 0;
        }
        let most = budget.messages.min(BATCH.messages);
        let others_want = self.seats.iter().any(|(&id, seat)| id != member && seat.room > 0);
        if !others_want {
            return most;
        }
        let level = self.level(self.held() + self.available(store));
        let mine = self.seats.get(&member).map_or(0, |seat| seat.held);
        most.min(level.saturating_sub(mine))
    }

    fn held(&self) -> u64 {
        self.seats.values().map(|seat| seat.held).sum()
    }

    fn available(&self, store: &Store) -> u64 {
        let parts = self.parts.values();
        parts
            .map(|part| part.state.available(&part.partition.spans(&store.registry)))
            .sum()
    }

    /// The most that each member should have of `total` messages, so that all of them are at somebody: a member
    /// that takes less leaves its part to the others (max-min fairness).
    fn level(&self, total: u64) -> u64 {
        let wanted = || {
            let wanted = self
                .seats
                .values()
                .map(|seat| seat.held.saturating_add(seat.room));
            wanted.filter(|&wanted| wanted > 0)
        };
        let members = wanted().count() as u64;
        if members == 0 {
            return total;
        }
        let mut level = total.div_ceil(members);
        loop {
            let below = wanted().filter(|&wanted| wanted < level);
            let (count, sum) = below.fold((0, 0), |(count, sum), wanted| (count + 1, sum + wanted));
            if count == members {
                return level;
            }
            let next = total.saturating_sub(sum).div_ceil(members - count);
            if next <= level {
                return level;
            }
            level = next;
        }
    }

    /// Asks members that hold more than their share to give as much back as members that wait are short of: the
    /// messages that they were given last, which they have most likely not begun with.
    pub(super) fn revoke(&mut self, now: Instant, store: &Store, nonce: u32) {
        if !self.seats.values().any(|seat| seat.waiting && seat.room > 0) {
            return;
        }
        let available = self.available(store);
        let level = self.level(self.held() + available);
        let short: u64 = self
            .seats
            .values()
            .filter(|seat| seat.waiting)
            .map(|seat| {
                seat.held
                    .saturating_add(seat.room)
                    .min(level)
                    .saturating_sub(seat.held)
            })
            .sum();
        let mut short = short.saturating_sub(available);
        let holders: Vec<(u64, u64)> = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.held > level && seat.asked.is_none_or(|at| at + ASK_AGAIN <= now))
            .map(|(&id, seat)| (id, seat.held - level))
            .collect();
        for (id, more) in holders {
            let asked = self.ask(id, more.min(short) as usize, nonce);
            short -= asked;
            if short == 0 {
                return;
            }
            if let Some(seat) = self.seats.get_mut(&id) {
                seat.asked = Some(now);
            }
        }
    }

    /// Asks one member for so many of its newest messages. Each delivery is asked for once.
    fn ask(&mut self, member: u64, count: usize, nonce: u32) -> u64 {
        let mut newest: Vec<_> = self
            .parts
            .iter()
            .flat_map(|(&index, part)| {
                let revocable = part.state.revocable(member);
                revocable.map(move |(deadline, offset, delivery)| (deadline, delivery, offset, index))
            })
            .collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        newest.truncate(count.min(MOST_ASKED));
        let mut buffer = BytesMut::new();
        let mut tokens = Vec::with_capacity(newest.len());
        for (_, delivery, offset, index) in newest {
            let Some(part) = self.parts.get_mut(&index) else {
                continue;
            };
            part.state.ask(offset);
            let token = Token {
                nonce,
                epoch: part.entry.id.epoch as u32,
                partition: index,
                offset,
                delivery,
            };
            tokens.push(token.write(&mut buffer));
        }
        let asked = tokens.len() as u64;
        if let Some(seat) = self.seats.get_mut(&member).filter(|_| asked > 0) {
            seat.revoked.extend(tokens);
            seat.bells.revoke.notify_one();
        }
        asked
    }

    /// Wakes the member that waits and holds least, if it holds less than `member`, which has its share.
    pub(super) fn wake_neediest(&mut self, member: u64) {
        let mine = self.seats.get(&member).map_or(0, |seat| seat.held);
        let neediest = self
            .seats
            .iter_mut()
            .filter(|(id, seat)| **id != member && seat.waiting && seat.held < mine)
            .min_by_key(|(_, seat)| seat.held);
        if let Some((_, seat)) = neediest {
            seat.waiting = false;
            seat.bells.wake.notify_one();
        }
    }
}
