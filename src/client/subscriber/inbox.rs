//! What was received and the caller has not taken yet. Its size is bounded by the credit of the streams.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::delivery::Delivery;
use crate::client::error::SubscribeError;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Delivery>,
    error: Option<SubscribeError>,
}

impl Inbox {
    pub(super) fn push(&self, deliveries: impl Iterator<Item = Delivery>) {
        let mut state = self.state.lock();
        if state.error.is_some() {
            return;
        }
        state.queue.extend(deliveries);
        drop(state);
        self.ready.notify_one();
    }

    /// No more messages come, for this reason.
    pub(super) fn fail(&self, error: SubscribeError) {
        self.state.lock().error.get_or_insert(error);
        self.ready.notify_one();
    }

    /// Waits for messages; takes at most `max`. Cancel-safe: nothing is taken before it returns.
    pub(super) async fn next(&self, max: usize) -> Result<Vec<Delivery>, SubscribeError> {
        loop {
            if let Some(result) = self.take(max) {
                return result;
            }
            self.ready.notified().await;
        }
    }

    fn take(&self, max: usize) -> Option<Result<Vec<Delivery>, SubscribeError>> {
        let mut state = self.state.lock();
        if state.queue.is_empty() {
            return state.error.clone().map(Err);
        }
        let count = state.queue.len().min(max);
        Some(Ok(state.queue.drain(..count).collect()))
    }

    /// Takes out those that the caller must not see any more.
    pub(super) fn remove(&self, unwanted: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        let mut state = self.state.lock();
        if !state.queue.iter().any(&unwanted) {
            return Vec::new();
        }
        let (removed, kept): (VecDeque<_>, VecDeque<_>) = state.queue.drain(..).partition(unwanted);
        state.queue = kept;
        removed.into()
    }

    /// Takes everything; nothing comes in any more.
    pub(super) fn close(&self) -> Vec<Delivery> {
        let mut state = self.state.lock();
        state.error.get_or_insert(SubscribeError::Closed);
        state.queue.drain(..).collect()
    }
}
