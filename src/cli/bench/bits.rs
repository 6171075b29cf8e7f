//! A set of message numbers, one bit each.

/// Numbers from 0, as dense as messages are: a million take 125 KB.
#[derive(Debug, Default, Clone)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Adds a number; returns whether it is new.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        is_new
    }

    /// How many there are that `others` has not.
    pub(super) fn missing_in(&self, others: &Self) -> u64 {
        let other = |index: usize| others.words.get(index).copied().unwrap_or(0);
        let missing = self
            .words
            .iter()
            .enumerate()
            .map(|(index, word)| word & !other(index));
        missing.map(|word| u64::from(word.count_ones())).sum()
    }

    /// The lowest of them that `others` has not, at most `most`.
    pub(super) fn first_missing_in(&self, others: &Self, most: usize) -> Vec<u64> {
        let other = |index: usize| others.words.get(index).copied().unwrap_or(0);
        let numbers = self.words.iter().enumerate().flat_map(|(index, word)| {
            let missing = word & !other(index);
            (0..64)
                .filter(move |bit| missing >> bit & 1 == 1)
                .map(move |bit| index as u64 * 64 + bit)
        });
        numbers.take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_counted_and_named() {
        let (mut acked, mut delivered) = (Bits::default(), Bits::default());
        for number in [0, 63, 64, 1000] {
            assert!(acked.insert(number));
        }
        assert!(!acked.insert(63));
        delivered.insert(63);
        delivered.insert(5);
        assert_eq!(acked.missing_in(&delivered), 3);
        assert_eq!(acked.first_missing_in(&delivered, 2), [0, 64]);
        assert_eq!(delivered.first_missing_in(&acked, 9), [5]);
    }
}
