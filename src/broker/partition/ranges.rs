//! A set of whole numbers, kept as ranges: what is done in a partition is mostly contiguous.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, non-adjacent half-open ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&before, &before_end)) = self.0.range(..=start).next_back()
            && before_end >= start
        {
            if before_end >= end {
                return;
            }
            start = before;
        }
        while let Some((&next, &next_end)) = self.0.range(start..=end).next() {
            self.0.remove(&next);
            end = end.max(next_end);
        }
        self.0.insert(start, end);
    }

    /// Removes a range.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        let overlaps: Vec<Range<u64>> = self.within(range).collect();
        for overlap in overlaps {
            let Some((&start, &end)) = self.0.range(..=overlap.start).next_back() else {
                continue;
            };
            self.0.remove(&start);
            for rest in [start..overlap.start, overlap.end..end] {
                if !rest.is_empty() {
                    self.0.insert(rest.start, rest.end);
                }
            }
        }
    }

    /// Removes everything below `bound`.
    pub(crate) fn remove_below(&mut self, bound: u64) {
        while let Some((&start, &end)) = self.0.first_key_value() {
            if start >= bound {
                return;
            }
            self.0.remove(&start);
            if end > bound {
                self.0.insert(bound, end);
                return;
            }
        }
    }

    /// The end of the range that holds `value`, if one does.
    pub(crate) fn end_of(&self, value: u64) -> Option<u64> {
        let (_, &end) = self.0.range(..=value).next_back()?;
        (end > value).then_some(end)
    }

    /// Whether `value` is in it.
    pub(crate) fn contains(&self, value: u64) -> bool {
        self.end_of(value).is_some()
    }

    /// The start of the first range at or after `value`.
    pub(crate) fn next_start(&self, value: u64) -> Option<u64> {
        self.0.range(value..).next().map(|(&start, _)| start)
    }

    /// The ranges, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(&start, &end)| start..end)
    }

    /// How many ranges.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What of it lies in `range`, ascending.
    pub(crate) fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let before = self.0.range(..range.start).next_back();
        let inside = self.0.range(range.start..range.end.max(range.start));
        before
            .into_iter()
            .chain(inside)
            .map(move |(&start, &end)| start.max(range.start)..end.min(range.end))
            .filter(|overlap| !overlap.is_empty())
    }

    /// How many of its numbers lie in `range`.
    pub(crate) fn count_in(&self, range: Range<u64>) -> u64 {
        self.within(range)
            .map(|overlap| overlap.end - overlap.start)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((0u64..60, 0u64..8, 0u8..4), 0..40)) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for (start, len, what) in steps {
                match what {
                    0 | 1 => {
                        ranges.insert(start..start + len);
                        model.extend(start..start + len);
                    }
                    2 => {
                        ranges.remove(start..start + len);
                        model.retain(|value| !(start..start + len).contains(value));
                    }
                    _ => {
                        ranges.remove_below(start / 4);
                        model.retain(|value| *value >= start / 4);
                    }
                }
                for value in 0..80 {
                    prop_assert_eq!(ranges.contains(value), model.contains(&value));
                    let next = (value..100).find(|v| model.contains(v) && (*v == 0 || !model.contains(&(v - 1))));
                    prop_assert_eq!(ranges.next_start(value), next);
                }
                prop_assert_eq!(ranges.count_in(5..50), model.range(5..50).count() as u64);
                let mut last = None;
                for range in ranges.iter() {
                    prop_assert!(last.is_none_or(|end| range.start > end), "adjacent ranges are joined");
                    last = Some(range.end);
                }
            }
        }
    }
}
