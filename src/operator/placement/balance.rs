//! Who should own how many partitions of which topic: even within one, per topic and in all, with few moves.

use std::collections::BTreeMap;

/// How many partitions each broker has, by topic: `counts[topic][broker]`.
pub type Counts = Vec<Vec<u32>>;

/// For each topic, how many partitions each of `brokers` brokers should own. `totals[t]` is how many partitions
/// topic `t` has, `present[t][b]` how many of them broker `b` owns now.
///
/// In each topic, and over all topics together, no two brokers differ by more than one.
pub fn targets(totals: &[u32], present: &Counts, brokers: usize) -> Counts {
    let Ok(count) = u32::try_from(brokers) else {
        return Vec::new();
    };
    if count == 0 {
        return totals.iter().map(|_| Vec::new()).collect();
    }
    // Every broker gets the same share of a topic; what is left over goes to as many brokers, one each.
    let mut extras: Vec<Vec<bool>> = totals
        .iter()
        .zip(present)
        .map(|(total, present)| first_extras(*total, present, count))
        .collect();
    level(&mut extras, totals, present, brokers);
    totals
        .iter()
        .zip(&extras)
        .map(|(total, extra)| {
            extra
                .iter()
                .map(|extra| total / count + u32::from(*extra))
                .collect()
        })
        .collect()
}

/// Where a topic's left-over partitions need the fewest moves.
fn first_extras(total: u32, present: &[u32], brokers: u32) -> Vec<bool> {
    let share = total / brokers;
    let mut order: Vec<usize> = (0..present.len()).collect();
    order.sort_by_key(|broker| (std::cmp::Reverse(present[*broker].min(share + 1)), *broker));
    let mut extra = vec![false; present.len()];
    for broker in order.into_iter().take((total % brokers) as usize) {
        extra[broker] = true;
    }
    extra
}

/// Passes left-over partitions on from whom has most in all to whom has fewest, until they differ by one at most.
fn level(extras: &mut [Vec<bool>], totals: &[u32], present: &Counts, brokers: usize) {
    let count = u32::try_from(brokers).unwrap_or(u32::MAX).max(1);
    let mut sums: Vec<usize> = (0..brokers)
        .map(|broker| extras.iter().filter(|extra| extra[broker]).count())
        .collect();
    loop {
        let Some(most) = (0..brokers).max_by_key(|broker| (sums[*broker], std::cmp::Reverse(*broker))) else {
            return;
        };
        let Some(fewest) = (0..brokers).min_by_key(|broker| (sums[*broker], *broker)) else {
            return;
        };
        if sums[most] <= sums[fewest] + 1 {
            return;
        }
        // A topic in which the one has a left-over and the other has none; there is one, or the sums were equal.
        let share = |topic: usize| totals[topic] / count;
        let best = (0..extras.len())
            .filter(|topic| extras[*topic][most] && !extras[*topic][fewest])
            .min_by_key(|topic| {
                let loses = u32::from(present[*topic][most] > share(*topic));
                let gains = u32::from(present[*topic][fewest] > share(*topic));
                (loses + 1 - gains, *topic)
            });
        let Some(topic) = best else { return };
        extras[topic][most] = false;
        extras[topic][fewest] = true;
        sums[most] -= 1;
        sums[fewest] += 1;
    }
}

/// A partition that should be owned by another broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shift {
    /// Which topic, by its place.
    pub topic: usize,
    /// Which partition, by its place among the topic's.
    pub partition: usize,
    /// To which broker, by its place.
    pub to: usize,
}

/// What must move so that `targets` is met. `owners[t][p]` is the place of the broker that owns partition `p` of
/// topic `t`, or `None` if nobody that stays does.
pub fn shifts(owners: &[Vec<Option<usize>>], targets: &Counts) -> Vec<Shift> {
    let mut shifts = Vec::new();
    for (topic, (owners, target)) in owners.iter().zip(targets).enumerate() {
        let mut have: BTreeMap<usize, u32> = BTreeMap::new();
        let mut homeless = Vec::new();
        for (partition, owner) in owners.iter().enumerate() {
            match owner {
                Some(broker) if have.get(broker).copied().unwrap_or(0) < target[*broker] => {
                    *have.entry(*broker).or_insert(0) += 1;
                }
                _ => homeless.push(partition),
            }
        }
        let mut room = target.iter().enumerate().flat_map(|(broker, target)| {
            let free = target.saturating_sub(have.get(&broker).copied().unwrap_or(0));
            std::iter::repeat_n(broker, free as usize)
        });
        for partition in homeless {
            let Some(to) = room.next() else { break };
            shifts.push(Shift { topic, partition, to });
        }
    }
    shifts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(owners: &[Vec<Option<usize>>], brokers: usize) -> Counts {
        owners
            .iter()
            .map(|owners| {
                (0..brokers)
                    .map(|broker| {
                        u32::try_from(owners.iter().filter(|owner| **owner == Some(broker)).count())
                            .expect("few")
                    })
                    .collect()
            })
            .collect()
    }

    fn balanced(owners: &mut [Vec<Option<usize>>], brokers: usize) -> Vec<Shift> {
        let totals: Vec<u32> = owners
            .iter()
            .map(|owners| u32::try_from(owners.len()).expect("few"))
            .collect();
        let targets = targets(&totals, &counts(owners, brokers), brokers);
        let shifts = shifts(owners, &targets);
        for shift in &shifts {
            owners[shift.topic][shift.partition] = Some(shift.to);
        }
        shifts
    }

    fn spread(values: impl Iterator<Item = u32> + Clone) -> u32 {
        values.clone().max().unwrap_or(0) - values.min().unwrap_or(0)
    }

    #[test]
    fn a_new_broker_gets_its_share_and_nothing_else_moves() {
        let mut owners = vec![(0..16).map(|partition| Some(partition % 3)).collect::<Vec<_>>()];
        let shifts = balanced(&mut owners, 4);
        assert_eq!(shifts.len(), 4);
        assert!(shifts.iter().all(|shift| shift.to == 3));
    }

    #[test]
    fn many_small_topics_spread_as_well() {
        let mut owners = vec![vec![Some(0)]; 100];
        balanced(&mut owners, 2);
        assert_eq!(owners.iter().filter(|owners| owners[0] == Some(1)).count(), 50);
    }

    proptest! {
        #[test]
        fn every_topic_and_the_sum_are_even_and_a_second_look_moves_nothing(
            brokers in 1..7usize,
            topics in proptest::collection::vec(proptest::collection::vec(proptest::option::of(0..7usize), 0..20), 0..8)
        ) {
            let mut owners: Vec<Vec<Option<usize>>> = topics
                .into_iter()
                .map(|topic| topic.into_iter().map(|owner| owner.filter(|broker| *broker < brokers)).collect())
                .collect();
            balanced(&mut owners, brokers);
            let counts = counts(&owners, brokers);
            for topic in &counts {
                prop_assert!(spread(topic.iter().copied()) <= 1);
            }
            let sums: Vec<u32> = (0..brokers).map(|broker| counts.iter().map(|topic| topic[broker]).sum()).collect();
            prop_assert!(spread(sums.iter().copied()) <= 1);
            prop_assert!(owners.iter().flatten().all(Option::is_some));
            prop_assert_eq!(balanced(&mut owners, brokers), Vec::new());
        }

        #[test]
        fn one_topic_moves_as_few_partitions_as_evenness_needs(
            brokers in 1..7usize,
            topic in proptest::collection::vec(0..7usize, 1..30)
        ) {
            let mut owners = vec![topic.into_iter().map(|owner| Some(owner % brokers)).collect::<Vec<_>>()];
            let present = counts(&owners, brokers);
            let total = u32::try_from(owners[0].len()).expect("few");
            let (share, left) = (total / u32::try_from(brokers).expect("few"), total as usize % brokers);
            let mut sorted = present[0].clone();
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            let least: u32 = sorted
                .iter()
                .enumerate()
                .map(|(at, have)| have.saturating_sub(share + u32::from(at < left)))
                .sum();
            let moved = balanced(&mut owners, brokers).len();
            prop_assert_eq!(moved, least as usize);
        }
    }
}
