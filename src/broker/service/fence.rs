//! Keeps the order of a partition on a stream after payloads of it were refused: what came after them and was on
//! its way already is refused as well, until the client sends the refused ones again.

use std::collections::{HashMap, VecDeque};

/// More refused sequences of one partition than this are forgotten, oldest first.
const MOST: usize = 1 << 16;

/// The refused sequences of one stream, by partition.
#[derive(Debug, Default)]
pub(super) struct Fence {
    refused: HashMap<u32, VecDeque<Refused>>,
    refusals: u64,
}

#[derive(Debug)]
struct Refused {
    sequence: u64,
    /// Which refusal of the stream it was, the newest one.
    refusal: u64,
}

impl Fence {
    /// Notes a refusal.
    pub(super) fn refuse(&mut self, partition: u32, sequence: u64) {
        self.refusals += 1;
        let new = Refused {
            sequence,
            refusal: self.refusals,
        };
        let refused = self.refused.entry(partition).or_default();
        if refused.back().is_none_or(|last| last.sequence < sequence) {
            refused.push_back(new);
            if refused.len() > MOST {
                refused.pop_front();
            }
            return;
        }
        match find(refused, sequence) {
            Ok(at) => refused[at] = new,
            Err(at) => refused.insert(at, new),
        }
    }

    /// Whether payloads before this one were refused and have not come again. For what was let in before that.
    pub(super) fn blocks(&self, partition: u32, sequence: u64) -> bool {
        !self.refused.is_empty()
            && self
                .refused
                .get(&partition)
                .and_then(VecDeque::front)
                .is_some_and(|first| first.sequence < sequence)
    }

    /// Whether this payload must be refused to keep the order. One that was refused before and comes again says
    /// that those before it have come again or went elsewhere, unless they were refused after it: it was on its way
    /// then, behind them.
    pub(super) fn holds(&mut self, partition: u32, sequence: u64) -> bool {
        if self.refused.is_empty() {
            return false;
        }
        let Some(refused) = self.refused.get_mut(&partition) else {
            return false;
        };
        match find(refused, sequence) {
            Ok(at) => {
                let known = refused[at].refusal;
                if refused.range(..at).any(|earlier| earlier.refusal > known) {
                    return true;
                }
                refused.drain(..=at);
                if refused.is_empty() {
                    self.refused.remove(&partition);
                }
                false
            }
            // One below all that were refused was sent before them.
            Err(0) => false,
            Err(_) => true,
        }
    }
}

/// Where a sequence is, or would be.
fn find(refused: &VecDeque<Refused>, sequence: u64) -> Result<usize, usize> {
    refused.binary_search_by_key(&sequence, |refused| refused.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_on_its_way_behind_a_refused_payload_waits_for_it() {
        let mut fence = Fence::default();
        assert!(!fence.holds(0, 1));
        fence.refuse(0, 5);
        assert!(fence.holds(0, 6));
        fence.refuse(0, 6);
        assert!(!fence.holds(1, 7), "another partition");
        assert!(!fence.holds(0, 5), "it came again");
        assert!(fence.holds(0, 7), "6 is still to come again");
        fence.refuse(0, 7);
        assert!(!fence.holds(0, 6));
        assert!(!fence.holds(0, 7));
        assert!(!fence.holds(0, 8));
    }

    #[test]
    fn a_client_that_sent_the_refused_ones_elsewhere_goes_on() {
        let mut fence = Fence::default();
        fence.refuse(0, 5);
        assert!(fence.holds(0, 9));
        fence.refuse(0, 9);
        assert!(!fence.holds(0, 9), "the second time it is taken");
        assert!(!fence.holds(0, 10));
    }

    #[test]
    fn what_comes_again_behind_payloads_that_are_refused_again_waits_for_them() {
        let mut fence = Fence::default();
        for sequence in 1..=4 {
            fence.refuse(0, sequence);
        }
        // They come again in two batches, and the first one is refused before the second one is here.
        assert!(!fence.holds(0, 1) && !fence.holds(0, 2));
        fence.refuse(0, 1);
        fence.refuse(0, 2);
        for sequence in 3..=4 {
            assert!(fence.holds(0, sequence));
            fence.refuse(0, sequence);
        }
        for sequence in 1..=4 {
            assert!(!fence.holds(0, sequence));
        }
        assert!(!fence.holds(0, 5));
    }
}
