//! How far a group is in a partition, as the journal has it.

use std::collections::BTreeMap;

use super::ranges::Ranges;

/// All offsets here are whole ones: epoch and position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Every offset below is done.
    pub(crate) floor: u64,
    /// Done above the floor.
    pub(crate) done: Ranges,
    /// Deliveries so far of messages that are not done.
    pub(crate) counts: BTreeMap<u64, u32>,
}

impl Progress {
    /// Takes in what happened since: a higher floor, more that is done, higher counts.
    pub(crate) fn apply(&mut self, delta: &Self) {
        self.floor = self.floor.max(delta.floor);
        for range in delta.done.iter() {
            self.done.insert(range);
        }
        for (&offset, &count) in &delta.counts {
            let known = self.counts.entry(offset).or_default();
            *known = count.max(*known);
        }
        self.done.remove_below(self.floor);
        if let Some(end) = self.done.end_of(self.floor) {
            self.floor = end;
            self.done.remove_below(end);
        }
        let (floor, done) = (self.floor, &self.done);
        if self
            .counts
            .first_key_value()
            .is_some_and(|(&first, _)| first < floor)
            || delta.done.len() > 0
        {
            self.counts
                .retain(|&offset, _| offset >= floor && !done.contains(offset));
        }
    }

    /// As the wire has it.
    pub(crate) fn to_wire(&self, group: &str) -> crate::pb::GroupProgress {
        crate::pb::GroupProgress {
            group: group.to_owned(),
            floor: self.floor,
            done: self.done.iter().flatten().collect(),
            counts: self
                .counts
                .iter()
                .map(|(&offset, &count)| crate::pb::DeliveryCount { offset, count })
                .collect(),
        }
    }

    /// From the wire.
    pub(crate) fn from_wire(wire: &crate::pb::GroupProgress) -> Self {
        let mut progress = Self {
            floor: wire.floor,
            ..Self::default()
        };
        for &offset in &wire.done {
            progress.done.insert(offset..offset + 1);
        }
        progress
            .counts
            .extend(wire.counts.iter().map(|count| (count.offset, count.count)));
        progress
    }
}
