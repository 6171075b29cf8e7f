//! Which partition a key belongs to: the one place that clients and brokers share.
//!
//! The hash is murmur2 with the seed and the handling of the sign bit of Apache Kafka's default partitioner
//! (`org.apache.kafka.common.utils.Utils.murmur2` and `toPositive`), so that a key lands on the same partition
//! number here as there, for the same number of partitions.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// The 32-bit murmur2 hash of `data`, as Kafka computes it.
pub fn murmur2(data: &[u8]) -> u32 {
    let mut hash = SEED ^ (data.len() as u32);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = word.iter().rev().fold(0, |k, byte| (k << 8) | u32::from(*byte));
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        hash ^= tail.iter().rev().fold(0, |k, byte| (k << 8) | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of `key` in a topic of `partitions` partitions: `(murmur2(key) & 0x7fffffff) % partitions`, and
/// 0 where `partitions` is 0. An empty key means "no key": who has none spreads messages and does not ask here.
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff).checked_rem(partitions).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_kafkas_own_test_vectors() {
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (data, hash) in vectors {
            assert_eq!(
                murmur2(data).cast_signed(),
                hash,
                "{}",
                String::from_utf8_lossy(data)
            );
        }
    }

    #[test]
    fn partitions_are_positive_and_in_range() {
        assert_eq!(
            partition_for_key(b"21", 16),
            (-973_932_308_i32 & i32::MAX) as u32 % 16
        );
        assert_eq!(partition_for_key(b"anything", 1), 0);
        assert_eq!(partition_for_key(b"anything", 0), 0);
        assert!((0..1000_u32).all(|n| partition_for_key(&n.to_be_bytes(), 7) < 7));
    }
}
