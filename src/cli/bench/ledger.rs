//! What was delivered: the check of every message for duplication and order.

use std::collections::{HashMap, VecDeque};

use super::bits::Bits;
use super::body::Header;

/// Numbers whose place is remembered together.
const CHUNK: usize = 4096;
/// Chunks of places that are kept, 16 KB each: the last 16 million messages.
const CHUNKS: usize = 4096;

/// What a delivery turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    New,
    /// The same message of the same place, again.
    Redelivered,
    /// The same message at another place: it was stored twice.
    Duplicated,
}

/// Every delivery so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By run and producer.
    producers: HashMap<(u64, u32), Producer>,
    /// The chunks of places, oldest first.
    chunks: VecDeque<((u64, u32), usize)>,
    pub(super) delivered: u64,
    pub(super) redelivered: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
}

#[derive(Debug, Default)]
struct Producer {
    delivered: Bits,
    /// A fingerprint of partition and offset for each number, while it is remembered.
    places: Vec<Option<Box<[u32; CHUNK]>>>,
    /// The highest offset seen in each partition, and the number there.
    last: HashMap<u32, (u64, u64)>,
}

impl Ledger {
    /// Enters one delivery.
    pub(super) fn enter(&mut self, header: &Header, partition: u32, offset: u64, count: u32) -> Verdict {
        let key = (header.run, header.producer);
        let producer = self.producers.entry(key).or_default();
        let place = fingerprint(partition, offset);
        let (chunk, index) = (
            (header.number / CHUNK as u64) as usize,
            header.number as usize % CHUNK,
        );
        if !producer.delivered.insert(header.number) {
            let known = producer
                .places
                .get(chunk)
                .and_then(Option::as_ref)
                .map(|places| places[index]);
            // Too long ago to know its place: the broker's word decides.
            let is_same_place = known.map_or(count > 1, |known| known == place);
            return if is_same_place {
                self.redelivered += 1;
                Verdict::Redelivered
            } else {
                self.duplicated += 1;
                Verdict::Duplicated
            };
        }
        if chunk >= producer.places.len() {
            producer.places.resize_with(chunk + 1, || None);
        }
        let mut is_new_chunk = false;
        let places = producer.places[chunk].get_or_insert_with(|| {
            is_new_chunk = true;
            Box::new([0; CHUNK])
        });
        places[index] = place;
        let last = producer.last.entry(partition).or_insert((offset, header.number));
        if (offset > last.0) != (header.number > last.1) {
            self.reordered += 1;
        }
        if offset > last.0 {
            *last = (offset, header.number);
        }
        self.delivered += 1;
        if is_new_chunk {
            self.remember(key, chunk);
        }
        Verdict::New
    }

    /// Keeps a new chunk, and forgets the oldest one if there are too many.
    fn remember(&mut self, key: (u64, u32), chunk: usize) {
        self.chunks.push_back((key, chunk));
        if self.chunks.len() > CHUNKS
            && let Some((key, chunk)) = self.chunks.pop_front()
            && let Some(producer) = self.producers.get_mut(&key)
        {
            producer.places[chunk] = None;
        }
    }

    /// What was delivered of one producer.
    pub(super) fn delivered_of(&self, run: u64, producer: u32) -> Bits {
        self.producers
            .get(&(run, producer))
            .map(|producer| producer.delivered.clone())
            .unwrap_or_default()
    }
}

/// Never 0, which stands for "not delivered".
fn fingerprint(partition: u32, offset: u64) -> u32 {
    let mixed = (offset ^ u64::from(partition).rotate_left(48)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 32) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(number: u64) -> Header {
        Header {
            run: 1,
            producer: 2,
            number,
            intended: 0,
        }
    }

    #[test]
    fn a_second_delivery_is_a_redelivery_at_the_same_place_and_a_duplicate_at_another() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.enter(&header(0), 3, 100, 1), Verdict::New);
        assert_eq!(ledger.enter(&header(0), 3, 100, 1), Verdict::Redelivered);
        assert_eq!(ledger.enter(&header(0), 3, 101, 1), Verdict::Duplicated);
        assert_eq!(ledger.enter(&header(0), 4, 100, 1), Verdict::Duplicated);
        assert_eq!(
            (ledger.delivered, ledger.redelivered, ledger.duplicated),
            (1, 1, 2)
        );
    }

    #[test]
    fn order_is_that_of_offsets_within_a_partition_however_deliveries_arrive() {
        let mut ledger = Ledger::default();
        for (number, partition, offset) in [(0, 0, 10), (2, 0, 12), (1, 0, 11), (3, 1, 5), (4, 0, 13)] {
            ledger.enter(&header(number), partition, offset, 1);
        }
        assert_eq!(ledger.reordered, 0);
        ledger.enter(&header(6), 0, 14, 1);
        ledger.enter(&header(5), 0, 15, 1);
        assert_eq!(ledger.reordered, 1, "5 is stored after 6");
    }

    #[test]
    fn memory_is_bounded_and_the_brokers_count_decides_what_was_forgotten() {
        let mut ledger = Ledger::default();
        for chunk in 0..=CHUNKS as u64 {
            ledger.enter(&header(chunk * CHUNK as u64), 0, chunk, 1);
        }
        assert_eq!(ledger.chunks.len(), CHUNKS);
        assert_eq!(ledger.enter(&header(0), 0, 0, 2), Verdict::Redelivered);
        assert_eq!(ledger.enter(&header(0), 0, 0, 1), Verdict::Duplicated);
    }
}
