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
        // Told again after a failure, a count may be of a message that is done meanwhile.
        let counts = delta.counts.iter();
        for (&offset, &count) in counts.filter(|(offset, _)| **offset >= floor && !done.contains(**offset)) {
            let known = self.counts.entry(offset).or_default();
            *known = count.max(*known);
        }
    }

    /// As the wire has it.
    pub(crate) fn to_wire(&self, group: &str) -> crate::pb::GroupProgress {
        let mut wire = crate::pb::GroupProgress {
            group: group.to_owned(),
            floor: self.floor,
            ..crate::pb::GroupProgress::default()
        };
        let mut last = self.floor;
        for range in self.done.iter() {
            wire.done
                .extend([range.start.wrapping_sub(last), range.end - range.start]);
            last = range.end;
        }
        let mut last = self.floor;
        for (&offset, &count) in &self.counts {
            wire.counts.extend([offset.wrapping_sub(last), u64::from(count)]);
            last = offset;
        }
        wire
    }

    /// From the wire.
    pub(crate) fn from_wire(wire: &crate::pb::GroupProgress) -> Self {
        let mut progress = Self {
            floor: wire.floor,
            ..Self::default()
        };
        let mut last = wire.floor;
        for pair in wire.done.chunks_exact(2) {
            let start = last.wrapping_add(pair[0]);
            last = start.saturating_add(pair[1]);
            progress.done.insert(start..last);
        }
        let mut last = wire.floor;
        for pair in wire.counts.chunks_exact(2) {
            last = last.wrapping_add(pair[0]);
            progress
                .counts
                .insert(last, u32::try_from(pair[1]).unwrap_or(u32::MAX));
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn progress_goes_over_the_wire(
            floor in 0u64..1 << 50,
            done in prop::collection::vec((1u64..1000, 1u64..1000), 0..20),
            counts in prop::collection::btree_map(0u64..100_000, 1u32..9, 0..20),
        ) {
            let mut progress = Progress { floor, ..Progress::default() };
            let mut last = floor;
            for (distance, length) in done {
                progress.done.insert(last + distance..last + distance + length);
                last += distance + length;
            }
            progress.counts = counts.into_iter().map(|(offset, count)| (floor + offset, count)).collect();
            prop_assert_eq!(Progress::from_wire(&progress.to_wire("g")), progress);
        }
    }

    #[test]
    fn a_count_that_is_told_again_when_its_message_is_done_is_not_kept() {
        let mut progress = Progress::default();
        progress.done.insert(5..6);
        progress.apply(&Progress {
            counts: BTreeMap::from([(5, 2), (7, 1)]),
            ..Progress::default()
        });
        assert_eq!(progress.counts, BTreeMap::from([(7, 1)]));
    }

    #[test]
    fn what_is_done_in_one_piece_costs_nothing_to_hand_over() {
        use prost::Message as _;
        let mut progress = Progress {
            floor: 1 << 40,
            ..Progress::default()
        };
        progress.done.insert((1 << 40) + 1..(1 << 40) + 100_000_000);
        assert!(progress.to_wire("g").encoded_len() < 40);
        // A message in ten is open, and was delivered.
        for n in 0..100_000 {
            let offset = (1 << 41) + 10 * n;
            progress.done.insert(offset + 1..offset + 10);
            progress.counts.insert(offset, 1);
        }
        assert!(progress.to_wire("g").encoded_len() < 500_000);
    }
}
