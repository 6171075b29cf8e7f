//! What the journal is told.

use std::collections::BTreeMap;

use super::GroupState;
use crate::broker::partition::progress::Progress;

impl GroupState {
    /// What changed since the last call, for the journal; `None` if nothing did.
    pub(crate) fn take_untold(&mut self, told_floor: u64) -> Option<Progress> {
        let nothing =
            self.untold.floor <= told_floor && self.untold.done.len() == 0 && self.untold.counts.is_empty();
        if nothing {
            return None;
        }
        let floor = self.floor;
        Some(std::mem::replace(
            &mut self.untold,
            Progress {
                floor,
                ..Progress::default()
            },
        ))
    }

    /// The journal was not told after all.
    pub(crate) fn untell(&mut self, progress: Progress) {
        for range in progress.done.iter() {
            self.untold.done.insert(range);
        }
        self.untold.done.remove_below(self.floor);
        for (offset, count) in progress.counts {
            self.untold.counts.entry(offset).or_insert(count);
        }
    }

    /// Deliveries so far of every message that is not done.
    pub(crate) fn all_counts(&self) -> BTreeMap<u64, u32> {
        let mut counts = self.counts.clone();
        counts.extend(
            self.outstanding
                .iter()
                .map(|(&offset, outstanding)| (offset, outstanding.count)),
        );
        counts
    }
}
