//! One message of a key at a time, for ordered groups.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;

/// The keys of which a message is somewhere between its delivery and done, and what waits behind it. Keys are kept
/// as keyed hashes: two that collide wait for each other, and that is all.
#[derive(Debug, Default)]
pub(super) struct Keys {
    lanes: HashMap<u64, Lane>,
    /// The key of each lane's head, by its offset.
    heads: HashMap<u64, u64>,
    /// Messages behind heads.
    behind: usize,
}

#[derive(Debug)]
struct Lane {
    head: u64,
    /// Ascending, since an ordered group's messages are looked at in their order.
    behind: VecDeque<u64>,
}

impl Keys {
    /// Whether a message may be delivered now. If another one of its key is under way, it waits behind that.
    pub(super) fn admit(&mut self, key: u64, offset: u64) -> bool {
        match self.lanes.entry(key) {
            Entry::Vacant(lane) => {
                lane.insert(Lane {
                    head: offset,
                    behind: VecDeque::new(),
                });
                self.heads.insert(offset, key);
                true
            }
            Entry::Occupied(lane) if lane.get().head == offset => true,
            Entry::Occupied(mut lane) => {
                lane.get_mut().behind.push_back(offset);
                self.behind += 1;
                false
            }
        }
    }

    /// A message is done, or lost. Returns the next one of its key, whose turn it is: one that `is_done` no more waits.
    pub(super) fn finish(&mut self, offset: u64, is_done: impl Fn(u64) -> bool) -> Option<u64> {
        let key = self.heads.remove(&offset)?;
        let lane = self.lanes.get_mut(&key)?;
        while let Some(next) = lane.behind.pop_front() {
            self.behind -= 1;
            if !is_done(next) {
                lane.head = next;
                self.heads.insert(next, key);
                return Some(next);
            }
        }
        self.lanes.remove(&key);
        None
    }

    /// Offsets are gone. Returns those whose turn it is for that, and that are not done.
    pub(super) fn forget(&mut self, gone: &Range<u64>, is_done: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut heads = Vec::new();
        let mut behind = 0;
        self.lanes.retain(|&key, lane| {
            let mut is_cut = false;
            while gone.contains(&lane.head) || (is_cut && is_done(lane.head)) {
                self.heads.remove(&lane.head);
                is_cut = true;
                match lane.behind.pop_front() {
                    Some(next) => lane.head = next,
                    None => return false,
                }
            }
            if is_cut {
                self.heads.insert(lane.head, key);
                heads.push(lane.head);
            }
            behind += lane.behind.len();
            true
        });
        self.behind = behind;
        heads
    }

    /// Messages that wait behind others of their key.
    pub(super) fn behind(&self) -> usize {
        self.behind
    }

    /// Whether no message is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_on_with_its_next_message_and_leaves_nothing_behind() {
        let mut keys = Keys::default();
        let none = |_| false;
        assert!(keys.admit(7, 1) && !keys.admit(7, 2) && !keys.admit(7, 5) && keys.admit(8, 3));
        assert!(keys.admit(7, 1), "the head itself may come again");
        assert_eq!(keys.behind(), 2);
        assert_eq!(keys.finish(2, none), None, "not its turn yet");
        assert_eq!(keys.finish(1, none), Some(2));
        assert_eq!(keys.forget(&(0..3), none), [5]);
        assert_eq!((keys.finish(5, none), keys.finish(3, none)), (None, None));
        assert!(keys.is_empty() && keys.heads.is_empty());
        assert_eq!(keys.behind(), 0);
    }
}
