//! Flow control (RFC 9113, sections 5.2 and 6.9): how much either side may send.

use super::frame::MAX_WINDOW;

/// What every window is until somebody says otherwise.
pub(super) const DEFAULT_WINDOW: u32 = 65_535;

/// What the peer may still send. It gets back what was used once that is half of the window.
#[derive(Debug)]
pub(super) struct Receiving {
    size: u32,
    left: u32,
    owed: u32,
}

impl Receiving {
    /// A window of `size` bytes.
    pub(super) fn new(size: u32) -> Self {
        Self {
            size,
            left: size,
            owed: 0,
        }
    }

    /// What is left, and what was given back and not told.
    #[cfg(test)]
    pub(super) fn left(&self) -> (u32, u32) {
        (self.left, self.owed)
    }

    /// Takes `bytes` that came. False where the peer was not allowed to send them.
    pub(super) fn take(&mut self, bytes: u32) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Gives back `bytes` that were used. Some where it is time to tell the peer, by how much.
    pub(super) fn give_back(&mut self, bytes: u32) -> Option<u32> {
        self.owed += bytes;
        if self.owed < self.size / 2 {
            return None;
        }
        self.left += self.owed;
        Some(std::mem::take(&mut self.owed))
    }
}

/// What this side may still send; below zero after the peer made its windows smaller.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sending(i64);

impl Sending {
    /// A window of `size` bytes.
    pub(super) fn new(size: u32) -> Self {
        Self(i64::from(size))
    }

    /// Bytes that may be sent.
    pub(super) fn left(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Takes `bytes` that are sent.
    pub(super) fn take(&mut self, bytes: usize) {
        self.0 -= bytes as i64;
    }

    /// The peer allows more, or, with a change of its settings, less. False where that is more than there can be.
    pub(super) fn grow(&mut self, by: i64) -> bool {
        self.0 += by;
        self.0 <= i64::from(MAX_WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_comes_back_in_halves_of_the_window_and_never_more_than_it() {
        let mut window = Receiving::new(100);
        assert!(window.take(100));
        assert!(!window.take(1));
        assert_eq!(window.give_back(49), None);
        assert_eq!(window.give_back(1), Some(50));
        assert!(window.take(50));
        assert!(!window.take(1));
        assert_eq!(window.give_back(50), Some(50));
    }

    #[test]
    fn a_window_that_the_peer_made_smaller_may_be_owed() {
        let mut window = Sending::new(10);
        window.take(10);
        assert!(window.grow(-4));
        assert_eq!(window.left(), 0);
        assert!(window.grow(5));
        assert_eq!(window.left(), 1);
        assert!(!window.grow(i64::from(MAX_WINDOW)));
    }
}
