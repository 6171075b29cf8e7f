//! Changes of one partition's chain. An entry is never extended past unless it is sealed, and epochs only grow.

use crate::api::topic_status::{ChainEntry, PartitionStatus};

/// The largest epoch: offsets keep 24 bits for it.
pub const MAX_EPOCH: u64 = (1 << 24) - 1;

/// The open entry, if there is one.
pub fn open_entry(partition: &PartitionStatus) -> Option<&ChainEntry> {
    partition.chain.last().filter(|entry| entry.sealed_at.is_none())
}

/// The broker that orders this partition's appends, if there is one.
pub fn owner(partition: &PartitionStatus) -> Option<&str> {
    open_entry(partition)?.brokers.first().map(String::as_str)
}

/// A partition that never had an owner gets its first. `false`: it has a chain already.
pub fn assign(partition: &mut PartitionStatus, broker: &str) -> bool {
    if !partition.chain.is_empty() || partition.epoch >= MAX_EPOCH {
        return false;
    }
    partition.epoch += 1;
    partition.chain.push(ChainEntry {
        epoch: partition.epoch,
        brokers: vec![broker.to_owned()],
        sealed_at: None,
    });
    true
}

/// The open entry of `epoch` was sealed with so many positions: the partition goes on at `broker`. `false`: that
/// entry is not the open one (any more), so nothing was changed.
pub fn extend(partition: &mut PartitionStatus, epoch: u64, sealed_at: u64, broker: &str) -> bool {
    if partition.epoch >= MAX_EPOCH {
        return false;
    }
    let Some(entry) = partition.chain.last_mut() else {
        return false;
    };
    if entry.epoch != epoch || entry.sealed_at.is_some_and(|before| before != sealed_at) {
        return false;
    }
    entry.sealed_at = Some(sealed_at);
    partition.epoch += 1;
    partition.chain.push(ChainEntry {
        epoch: partition.epoch,
        brokers: vec![broker.to_owned()],
        sealed_at: None,
    });
    true
}

/// The sealed entry of `epoch` is on `broker` now. `false`: there is no such sealed entry.
pub fn relocate(partition: &mut PartitionStatus, epoch: u64, broker: &str) -> bool {
    let entry = partition
        .chain
        .iter_mut()
        .find(|entry| entry.epoch == epoch && entry.sealed_at.is_some());
    entry.is_some_and(|entry| {
        entry.brokers = vec![broker.to_owned()];
        true
    })
}

/// The sealed entry of `epoch` leaves the chain: nothing is in it. The last entry stays. `false`: nothing changed.
pub fn forget(partition: &mut PartitionStatus, epoch: u64) -> bool {
    let last = partition.chain.len().saturating_sub(1);
    let at = partition
        .chain
        .iter()
        .position(|entry| entry.epoch == epoch && entry.sealed_at.is_some());
    match at {
        Some(at) if at < last => {
            partition.chain.remove(at);
            true
        }
        _ => false,
    }
}

/// Whether a chain is as every chain must be: epochs grow, and only the last entry is open.
pub fn is_sound(partition: &PartitionStatus) -> bool {
    let grows = partition
        .chain
        .windows(2)
        .all(|pair| pair[0].epoch < pair[1].epoch);
    let sealed = partition
        .chain
        .iter()
        .rev()
        .skip(1)
        .all(|entry| entry.sealed_at.is_some());
    let last = partition
        .chain
        .last()
        .is_none_or(|entry| entry.epoch == partition.epoch);
    grows && sealed && last && partition.chain.iter().all(|entry| !entry.brokers.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_move_seals_one_entry_and_opens_the_next() {
        let mut partition = PartitionStatus::default();
        assert!(assign(&mut partition, "a"));
        assert!(!assign(&mut partition, "b"), "it has an owner");
        assert!(!extend(&mut partition, 9, 5, "b"), "another epoch");
        assert!(extend(&mut partition, 1, 5, "b"));
        assert!(!extend(&mut partition, 1, 5, "c"), "somebody was faster");
        assert_eq!(owner(&partition), Some("b"));
        assert!(relocate(&mut partition, 1, "b"));
        assert!(
            !relocate(&mut partition, 2, "c"),
            "an open entry is never relocated"
        );
        assert!(!forget(&mut partition, 2), "nor forgotten");
        assert!(forget(&mut partition, 1));
        assert!(is_sound(&partition));
    }

    proptest! {
        #[test]
        fn whatever_is_done_epochs_only_grow_and_one_entry_is_open(
            steps in proptest::collection::vec((0..4u8, 0..8u64, 0..100u64, "[a-d]"), 0..60)
        ) {
            let mut partition = PartitionStatus::default();
            let mut highest = 0;
            for (what, epoch, sealed_at, broker) in steps {
                match what {
                    0 => { assign(&mut partition, &broker); }
                    1 => { extend(&mut partition, epoch, sealed_at, &broker); }
                    2 => { relocate(&mut partition, epoch, &broker); }
                    _ => { forget(&mut partition, epoch); }
                }
                prop_assert!(is_sound(&partition), "{partition:?}");
                prop_assert!(partition.epoch >= highest);
                highest = partition.epoch;
                prop_assert!(partition.chain.iter().filter(|entry| entry.sealed_at.is_none()).count() <= 1);
            }
        }
    }
}
