//! One partition as a publisher sees it: at any time its messages are on their way over one link only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::Done;
use crate::client::backoff::Backoff;
use crate::pb::Payload;

/// A message on its way.
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) partition: u32,
    pub(super) bytes: u64,
    pub(super) accepted: Instant,
    pub(super) payload: Payload,
    pub(super) done: Done,
}

/// Where a partition's messages are. Those in a link's queue are not counted here.
pub(super) struct Partition {
    /// The link whose queue takes its messages; `None`: they are parked.
    pub(super) link: Option<usize>,
    /// Its messages that are sent and not answered, all of them over one link.
    pub(super) in_flight: usize,
    /// Refused or lost ones that wait until `in_flight` is 0.
    pub(super) returned: Vec<Entry>,
    /// Messages that wait for an owner, ascending.
    pub(super) parked: VecDeque<Entry>,
    /// Not to be sent before this.
    pub(super) not_before: Option<Instant>,
    /// What a broker said of the owner, if that is newer than the topology.
    pub(super) hint: Option<(u64, Arc<str>)>,
    /// The owner's epoch when it was last looked at.
    pub(super) epoch: u64,
    pub(super) backoff: Backoff,
    /// The acknowledgement that last named an offset, and the offset.
    pub(super) acked: (u64, u64),
    /// The last sequence in the acknowledgement that is being worked on.
    pub(super) acked_sequence: u64,
}

impl Partition {
    pub(super) fn new() -> Self {
        Self {
            link: None,
            in_flight: 0,
            returned: Vec::new(),
            parked: VecDeque::new(),
            not_before: None,
            hint: None,
            epoch: 0,
            backoff: Backoff::of_stream(),
            acked: (0, 0),
            acked_sequence: 0,
        }
    }

    /// Puts what came back in front of what waits, in order, once nothing is in flight any more.
    pub(super) fn take_back(&mut self) {
        if self.in_flight > 0 || self.returned.is_empty() {
            return;
        }
        self.returned.sort_unstable_by_key(|entry| entry.sequence);
        for entry in self.returned.drain(..).rev() {
            self.parked.push_front(entry);
        }
    }

    /// Whether its messages may be given to a link now.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.link.is_none() && self.in_flight == 0 && self.not_before.is_none_or(|time| time <= now)
    }
}

/// Merges two ascending queues into one.
pub(super) fn merge(left: VecDeque<Entry>, right: VecDeque<Entry>) -> VecDeque<Entry> {
    let last_left = left.back().map_or(0, |entry| entry.sequence);
    let in_order = right.front().is_none_or(|entry| entry.sequence > last_left);
    let mut merged = left;
    merged.extend(right);
    if !in_order {
        merged.make_contiguous().sort_by_key(|entry| entry.sequence);
    }
    merged
}
