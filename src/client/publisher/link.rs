//! The way to one broker: a queue of messages, and the stream that empties it while there is one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::partition::Entry;
use super::session::Session;
use crate::client::backoff::Backoff;

/// Messages for the partitions that one broker owns, ascending by sequence.
pub(super) struct Link {
    pub(super) address: Arc<str>,
    pub(super) queue: VecDeque<Entry>,
    /// When the oldest batch that is not full started to wait.
    pub(super) queued_since: Option<Instant>,
    pub(super) session: Option<Session>,
    /// No new stream before this.
    pub(super) retry_at: Option<Instant>,
    pub(super) backoff: Backoff,
    /// Partitions whose messages go here.
    pub(super) partitions: usize,
    /// The request queue to the connection is full.
    pub(super) is_full: bool,
    /// Since when messages wait for credit; and for how long they did, not yet told.
    pub(super) starved_since: Option<Instant>,
    pub(super) starved_nanos: u64,
    /// Messages handed over for this broker, not yet told.
    pub(super) offered: u64,
}

impl Link {
    pub(super) fn new(address: Arc<str>) -> Self {
        Self {
            address,
            queue: VecDeque::new(),
            queued_since: None,
            session: None,
            retry_at: None,
            backoff: Backoff::of_stream(),
            partitions: 0,
            is_full: false,
            starved_since: None,
            starved_nanos: 0,
            offered: 0,
        }
    }

    /// Adds a new message, which has the highest sequence of all.
    pub(super) fn push(&mut self, entry: Entry, now: Instant) {
        self.queued_since.get_or_insert(now);
        self.offered += 1;
        self.queue.push_back(entry);
    }

    /// Whether a message waits, and nothing but time stands between it and the stream.
    pub(super) fn wants_session(&self) -> bool {
        self.session.is_none() && !self.queue.is_empty()
    }
}
