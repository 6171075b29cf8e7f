//! Answers and credit on their way back over one stream, in batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Counters, add};
use crate::pb;

/// Answers that are sent without waiting for more.
const FULL: usize = 256;

/// Filled by the caller's answers, emptied by the stream's task. Bounded: each delivery is answered once and gives
/// its credit back once.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    pub(super) wake: Notify,
    /// Credit that is granted at once, and of which a quarter that came back is granted again.
    window: (u64, u64),
    linger: Duration,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct State {
    settle: pb::Settle,
    answers: usize,
    since: Option<Instant>,
    credit: (u64, u64),
    /// Deliveries that the caller or the inbox still has.
    outstanding: u64,
    is_closed: bool,
}

/// What the caller says of a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    Ack,
    Nack(Duration),
    /// The caller never saw it.
    GiveBack(Duration),
    GiveUp,
}

/// What is to be sent now, and when to look again.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) is_due: bool,
    pub(super) look_again: Option<Instant>,
}

impl Outbox {
    pub(super) fn new(window: (u64, u64), linger: Duration, counters: &Arc<Counters>) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self {
            state,
            wake: Notify::new(),
            window,
            linger,
            counters: counters.clone(),
        })
    }

    pub(super) fn answer(&self, token: Bytes, answer: Answer, bytes: u64) {
        let mut state = self.state.lock();
        state.take_back(bytes);
        if state.is_closed {
            add(&self.counters.stale, 1);
            return;
        }
        match answer {
            Answer::Ack => state.settle.ack.push(token),
            Answer::Nack(delay) | Answer::GiveBack(delay) => state.settle.nack.push(pb::Nack {
                token,
                delay: wire(delay),
                unseen: matches!(answer, Answer::GiveBack(_)),
            }),
            Answer::GiveUp => state.settle.give_up.push(token),
        }
        self.added(state);
    }

    pub(super) fn extend(&self, token: Bytes, deadline: Duration) {
        let mut state = self.state.lock();
        if !state.is_closed {
            state.settle.extend.push(pb::Extend {
                token,
                deadline: wire(deadline),
            });
            self.added(state);
        }
    }

    fn added(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        state.answers += 1;
        let wakes = state.answers == 1 || state.answers == FULL;
        if state.answers == 1 {
            state.since = Some(Instant::now());
        }
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
    }

    /// A delivery was dropped without an answer.
    pub(super) fn give_back(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.take_back(bytes);
        let wakes = !state.is_closed && self.is_credit_due(&state);
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
    }

    /// So many deliveries were handed to the inbox.
    pub(super) fn handed_over(&self, deliveries: u64) {
        self.state.lock().outstanding += deliveries;
    }

    fn is_credit_due(&self, state: &State) -> bool {
        let (messages, bytes) = state.credit;
        messages > 0
            && (messages >= self.window.0.div_ceil(4)
                || bytes >= self.window.1.div_ceil(4)
                || state.outstanding == 0)
    }

    /// Whether something is to be sent now.
    pub(super) fn due(&self) -> Due {
        let state = self.state.lock();
        if self.is_credit_due(&state) || state.answers >= FULL {
            return Due {
                is_due: true,
                look_again: None,
            };
        }
        let look_again = state.since.map(|since| since + self.linger);
        let is_due = look_again.is_some_and(|at| at <= Instant::now());
        Due {
            is_due,
            look_again: look_again.filter(|_| !is_due),
        }
    }

    /// Takes what is to be sent: answers, and credit if it is worth a message and there is room for both.
    pub(super) fn take(&self, has_room: bool) -> (pb::Settle, pb::ConsumerCredit) {
        let mut state = self.state.lock();
        let mut credit = pb::ConsumerCredit::default();
        if self.is_credit_due(&state) && (has_room || state.answers == 0) {
            (credit.messages, credit.bytes) = std::mem::take(&mut state.credit);
        }
        state.answers = 0;
        state.since = None;
        (std::mem::take(&mut state.settle), credit)
    }

    /// The stream is gone: answers that were not sent, and those that still come, are too late.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let late = state.settle.ack.len() + state.settle.nack.len() + state.settle.give_up.len();
        state.settle = pb::Settle::default();
        add(&self.counters.stale, late as u64);
    }
}

impl State {
    fn take_back(&mut self, bytes: u64) {
        self.credit.0 += 1;
        self.credit.1 += bytes;
        self.outstanding = self.outstanding.saturating_sub(1);
    }
}

fn wire(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}
