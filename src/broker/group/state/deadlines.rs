//! When deliveries are over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use tokio::time::Instant;

use super::Outstanding;

/// Deadline, offset, delivery.
type Entry = (Instant, u64, u64);

/// The deadlines of all deliveries. At most about twice as many as are outstanding.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Ascending, since all deliveries have the same time. What is not outstanding any more is left out when it
    /// comes up.
    queue: VecDeque<Entry>,
    /// Those out of that order, extended ones for instance. What is answered is taken out at once.
    moved: BTreeSet<Entry>,
}

impl Deadlines {
    /// A delivery that was just made.
    pub(super) fn note(
        &mut self,
        deadline: Instant,
        offset: u64,
        delivery: u64,
        outstanding: &BTreeMap<u64, Outstanding>,
    ) {
        if self.queue.back().is_some_and(|(last, ..)| *last > deadline) {
            self.moved.insert((deadline, offset, delivery));
            return;
        }
        if self.queue.len() > 64 && self.queue.len() > 2 * outstanding.len() {
            self.queue.retain(|entry| is_current(entry, outstanding));
            self.queue.shrink_to(2 * outstanding.len() + 64);
        }
        self.queue.push_back((deadline, offset, delivery));
    }

    /// A delivery that is outstanding may take until `deadline`.
    pub(super) fn extend(&mut self, deadline: Instant, offset: u64, outstanding: &mut Outstanding) {
        self.forget(offset, outstanding);
        outstanding.deadline = deadline;
        outstanding.is_begun = true;
        self.moved.insert((deadline, offset, outstanding.delivery));
    }

    /// A delivery is over.
    pub(super) fn forget(&mut self, offset: u64, outstanding: &Outstanding) {
        if !self.moved.is_empty() {
            self.moved
                .remove(&(outstanding.deadline, offset, outstanding.delivery));
        }
    }

    /// Offsets are gone.
    pub(super) fn forget_all(&mut self, gone: &Range<u64>) {
        self.moved.retain(|(_, offset, _)| !gone.contains(offset));
    }

    /// Takes out what is over its deadline.
    pub(super) fn due(&mut self, now: Instant, outstanding: &BTreeMap<u64, Outstanding>) -> Vec<u64> {
        let mut due = Vec::new();
        while let Some(entry) = self.queue.front() {
            let current = is_current(entry, outstanding);
            if current && entry.0 > now {
                break;
            }
            due.extend(current.then_some(entry.1));
            self.queue.pop_front();
        }
        while let Some(entry) = self.moved.first() {
            let current = is_current(entry, outstanding);
            if current && entry.0 > now {
                break;
            }
            due.extend(current.then_some(entry.1));
            self.moved.pop_first();
        }
        due
    }

    /// How many are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.moved.len()
    }
}

fn is_current(entry: &Entry, outstanding: &BTreeMap<u64, Outstanding>) -> bool {
    let (at, offset, delivery) = *entry;
    outstanding
        .get(&offset)
        .is_some_and(|outstanding| outstanding.delivery == delivery && outstanding.deadline == at)
}
