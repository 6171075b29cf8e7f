//! Which sequences of which producer are stored in a partition, so that none is stored twice.

use std::collections::{HashMap, VecDeque};

/// Sequences that are remembered for each producer and partition.
pub(crate) const WINDOW: usize = 1024;

/// A producer that stored nothing here for so many milliseconds of the journal's time is forgotten.
pub(crate) const EXPIRY_MS: u64 = 24 * 3600 * 1000;

/// What is known of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is not stored.
    New,
    /// It is stored at this offset.
    Stored(u64),
    /// It is older than everything remembered: nobody knows. The value is the newest forgotten sequence.
    TooOld(u64),
}

/// Sequences in arithmetic progression at consecutive offsets: what one producer's batches look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    sequence: u64,
    step: u64,
    offset: u64,
    len: u64,
}

impl Run {
    fn last(&self) -> u64 {
        self.sequence + self.step * (self.len - 1)
    }

    fn find(&self, sequence: u64) -> Option<u64> {
        let from = sequence.checked_sub(self.sequence)?;
        let index = from.checked_div(self.step).unwrap_or(0);
        (index < self.len && index * self.step == from).then_some(self.offset + index)
    }

    fn push(&mut self, sequence: u64, offset: u64) -> bool {
        if offset != self.offset + self.len || sequence <= self.last() {
            return false;
        }
        let step = sequence - self.last();
        if self.len == 1 {
            self.step = step;
        }
        let fits = step == self.step;
        self.len += u64::from(fits);
        fits
    }
}

/// The most recent sequences of one producer, in the order in which they were stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Window {
    runs: VecDeque<Run>,
    stored: u64,
    newest: Option<u64>,
    forgotten: Option<u64>,
    used: u64,
}

impl Window {
    /// Looks a sequence up.
    pub(crate) fn look(&self, sequence: u64) -> Known {
        if self.newest.is_none_or(|newest| sequence > newest) {
            return Known::New;
        }
        if let Some(offset) = self.runs.iter().rev().find_map(|run| run.find(sequence)) {
            return Known::Stored(offset);
        }
        match self.forgotten {
            Some(forgotten) if sequence <= forgotten => Known::TooOld(forgotten),
            _ => Known::New,
        }
    }

    /// Remembers a sequence, and forgets the one stored longest ago where there are too many.
    pub(crate) fn store(&mut self, sequence: u64, offset: u64, now: u64) {
        self.used = self.used.max(now);
        self.newest = self.newest.max(Some(sequence));
        if !self.runs.back_mut().is_some_and(|run| run.push(sequence, offset)) {
            self.runs.push_back(Run {
                sequence,
                step: 0,
                offset,
                len: 1,
            });
        }
        self.stored += 1;
        if self.stored > WINDOW as u64
            && let Some(oldest) = self.runs.front_mut()
        {
            self.forgotten = self.forgotten.max(Some(oldest.sequence));
            oldest.sequence += oldest.step;
            oldest.offset += 1;
            oldest.len -= 1;
            if oldest.len == 0 {
                self.runs.pop_front();
            }
            self.stored -= 1;
        }
    }

    /// Takes the newest `count` back, which were not written after all.
    fn take_back(&mut self, count: u64) {
        for _ in 0..count {
            let Some(run) = self.runs.back_mut() else { break };
            run.len -= 1;
            self.stored -= 1;
            if run.len == 0 {
                self.runs.pop_back();
            }
        }
        self.newest = self.runs.iter().map(Run::last).max().max(self.forgotten);
    }

    /// Sequences and offsets in the order in which they were stored.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs
            .iter()
            .flat_map(|run| (0..run.len).map(|i| (run.sequence + run.step * i, run.offset + i)))
    }

    /// When it was last used, in the journal's milliseconds.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Makes a window from what [`Window::iter`] gave.
    pub(crate) fn restore(
        pairs: impl IntoIterator<Item = (u64, u64)>,
        forgotten: Option<u64>,
        used: u64,
    ) -> Self {
        let mut window = Self {
            forgotten,
            used,
            newest: forgotten,
            ..Self::default()
        };
        for (sequence, offset) in pairs {
            window.store(sequence, offset, used);
        }
        window
    }

    /// The newest sequence that was forgotten.
    pub(crate) fn forgotten(&self) -> Option<u64> {
        self.forgotten
    }
}

/// All producers of one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Producers(HashMap<String, Window>);

impl Producers {
    /// Looks a producer's window up.
    pub(crate) fn get(&self, producer: &str) -> Option<&Window> {
        self.0.get(producer)
    }

    /// Remembers a sequence.
    pub(crate) fn store(&mut self, producer: &str, sequence: u64, offset: u64, now: u64) {
        if let Some(window) = self.0.get_mut(producer) {
            window.store(sequence, offset, now);
        } else {
            self.0
                .entry(producer.to_owned())
                .or_default()
                .store(sequence, offset, now);
        }
    }

    /// Takes the newest `count` of a producer back.
    pub(crate) fn take_back(&mut self, producer: &str, count: u64) {
        if let Some(window) = self.0.get_mut(producer) {
            window.take_back(count);
            if window.stored == 0 && window.forgotten.is_none() {
                self.0.remove(producer);
            }
        }
    }

    /// Forgets producers that were not used for [`EXPIRY_MS`].
    pub(crate) fn expire(&mut self, now: u64) {
        self.0.retain(|_, window| window.used + EXPIRY_MS > now);
    }

    /// Puts a whole window.
    pub(crate) fn insert(&mut self, producer: String, window: Window) {
        self.0.insert(producer, window);
    }

    /// Puts what another broker knows of a producer; only the most recent sequences of it.
    pub(crate) fn adopt(&mut self, producer: String, pairs: impl Iterator<Item = (u64, u64)>, now: u64) {
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable();
        // A full window has forgotten what is older.
        let forgotten = pairs
            .first()
            .filter(|_| pairs.len() >= WINDOW)
            .and_then(|first| first.0.checked_sub(1));
        self.0.insert(producer, Window::restore(pairs, forgotten, now));
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Window)> {
        self.0.iter()
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_known_until_it_is_forgotten() {
        let mut window = Window::default();
        for n in 0..WINDOW as u64 + 10 {
            assert_eq!(window.look(n * 3), Known::New);
            window.store(n * 3, 100 + n, 0);
        }
        assert_eq!(window.look(30), Known::Stored(110));
        assert_eq!(window.look(27), Known::TooOld(27));
        assert_eq!(window.look(31), Known::New);
        assert_eq!(window.runs.len(), 1, "a steady producer costs one run");
    }

    #[test]
    fn a_gap_that_is_filled_later_is_stored_once() {
        let mut window = Window::default();
        for sequence in [1, 2, 5, 6, 3] {
            assert_eq!(window.look(sequence), Known::New);
            window.store(sequence, 10 * sequence, 0);
        }
        assert_eq!(window.look(3), Known::Stored(30));
        assert_eq!(window.look(4), Known::New);
        window.take_back(2);
        assert_eq!(window.look(6), Known::New);
        assert_eq!(window.look(3), Known::New);
        assert_eq!(window.look(5), Known::Stored(50));
        let copy = Window::restore(window.iter(), window.forgotten(), window.used());
        assert_eq!(copy.look(5), Known::Stored(50));
    }

    #[test]
    fn producers_expire_by_time_only() {
        let mut producers = Producers::default();
        producers.store("a", 1, 1, 1000);
        producers.store("b", 1, 2, 2000);
        producers.expire(1000 + EXPIRY_MS);
        assert!(producers.get("a").is_none());
        assert!(producers.get("b").is_some());
    }
}
