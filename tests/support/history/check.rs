//! Holds a broker to what it told its clients. In the manner of a linearizability check, made cheap by the offsets:
//! they say in which order everything took effect, so that order only has to be compared with what was seen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::{Answer, Append, Burial, Delivery, Events, Id, Letter, Outcome, Stored, WITHOUT_ID};

/// Something that a broker must never do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// An acknowledged message is not in the log.
    Lost(Id),
    /// A message is in the log, or was delivered, that nobody published there.
    Invented(Id),
    /// A message with a producer id is stored twice.
    StoredTwice(Id, u64, u64),
    /// The acknowledgement named another offset than the one where it is.
    WrongOffset(Id, u64, u64),
    /// Two messages have one offset of one partition.
    OffsetReused(u32, u64),
    /// The first was acknowledged before the second was begun, and has a larger offset.
    RealTimeOrder(Id, Id),
    /// Of one producer, the second comes before the first in the log, and was handed over after it.
    ProducerOrder(Id, Id),
    /// A message was delivered before it was published.
    DeliveredTooEarly(Id),
    /// A message was delivered from where it is not in the log: it was not durable.
    DeliveredUncommitted(Id),
    /// A message was delivered to a group whose acknowledgement of it had been confirmed.
    DeliveredAgain(String, Id),
    /// An answer was taken though its message had been delivered anew, or been answered.
    StaleAccepted(String, Id),
    /// An acknowledged message was never acknowledged by a group.
    Undelivered(String, Id),
    /// Of one key, the second was delivered though the first, which comes before it in the log, was not acknowledged.
    Overtaken(String, Id, Id),
    /// A message of a group has two dead letters.
    BuriedTwice(String, Id),
    /// A message was buried after the group's acknowledgement of it had been confirmed.
    BuriedDone(String, Id),
    /// A message was noted, or confirmed, to be buried, and there is no letter.
    NoLetter(String, u32, u64),
}

/// All violations in a history. The log must have been read to its end; `groups` had the time to finish everything. What retention
/// took away must have been finished by all of them, unless it goes by size.
pub fn check(events: &Events, groups: &[&str]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let places = check_log(events, &mut violations);
    check_appends(events, &places, &mut violations);
    check_order(events, &places, &mut violations);
    check_deliveries(events, &places, &mut violations);
    check_settles(events, &mut violations);
    check_letters(events, &places, &mut violations);
    check_groups(events, groups, &mut violations);
    violations
}

/// Violations of a group that takes the messages of a key in their order: each only when all before it are acknowledged or
/// are being buried.
pub fn check_keys(events: &Events, group: &str, key: impl Fn(Id) -> u64) -> Vec<Violation> {
    let mut acked: HashMap<(u32, u64), Duration> = HashMap::new();
    for settle in events.settles.iter().filter(|one| one.answer == Answer::Ack) {
        let delivery = &events.deliveries[settle.delivery];
        if delivery.group == group {
            let began = acked
                .entry((delivery.partition, delivery.offset))
                .or_insert(settle.began);
            *began = settle.began.min(*began);
        }
    }
    for burial in events.burials.iter().filter(|one| one.group == group) {
        let began = acked
            .entry((burial.partition, burial.offset))
            .or_insert(burial.began);
        *began = burial.began.min(*began);
    }
    // What goes by size is passed over as soon as that is decided, and comes back where a power cut forgets the decision.
    let mut violations = Vec::new();
    let mut delivered: HashMap<(u32, u64), BTreeMap<u64, Id>> = HashMap::new();
    for delivery in events.deliveries.iter().filter(|one| one.group == group) {
        let of_key = delivered
            .entry((delivery.partition, key(delivery.id)))
            .or_default();
        for (&offset, &other) in of_key.iter() {
            let is_acked = acked
                .get(&(delivery.partition, offset))
                .is_some_and(|began| *began < delivery.received);
            let is_due = offset < delivery.offset && !events.is_excused(delivery.partition, offset);
            if is_due && !is_acked {
                violations.push(Violation::Overtaken(group.to_owned(), other, delivery.id));
            }
        }
        let first = of_key.insert(delivery.offset, delivery.id).is_none();
        let is_due = first && !events.is_excused(delivery.partition, delivery.offset);
        if is_due && let Some((_, &later)) = of_key.range(delivery.offset + 1..).next() {
            violations.push(Violation::Overtaken(group.to_owned(), delivery.id, later));
        }
    }
    violations
}

/// Where each message is.
type Places = HashMap<Id, Vec<Stored>>;

fn check_log(events: &Events, violations: &mut Vec<Violation>) -> Places {
    let published: HashMap<Id, u32> = events.appends.iter().map(|a| (a.id, a.partition)).collect();
    let mut places = Places::new();
    let mut taken = HashMap::new();
    for stored in &events.log {
        if published.get(&stored.id) != Some(&stored.partition) {
            violations.push(Violation::Invented(stored.id));
        }
        let before = taken.insert((stored.partition, stored.offset), stored.id);
        if before.is_some() {
            violations.push(Violation::OffsetReused(stored.partition, stored.offset));
        }
        places.entry(stored.id).or_default().push(*stored);
    }
    for (id, stored) in &places {
        if id.0 < WITHOUT_ID && stored.len() > 1 {
            violations.push(Violation::StoredTwice(*id, stored[0].offset, stored[1].offset));
        }
    }
    places
}

fn check_appends(events: &Events, places: &Places, violations: &mut Vec<Violation>) {
    for append in events.appends.iter().filter(|append| append.acked.is_some()) {
        let Some(places) = places.get(&append.id) else {
            let offset = append.offset;
            if offset.is_some_and(|offset| events.is_removed(append.partition, offset)) {
                continue;
            }
            violations.push(Violation::Lost(append.id));
            continue;
        };
        let first = places[0].offset;
        if let Some(offset) = append.offset
            && places.iter().all(|stored| stored.offset != offset)
            && !events.is_removed(append.partition, offset)
        {
            violations.push(Violation::WrongOffset(append.id, offset, first));
        }
        if let Some(not_after) = append.not_after
            && first > not_after
        {
            violations.push(Violation::WrongOffset(append.id, not_after, first));
        }
    }
}

/// Offsets against real time, and against the order of each producer.
fn check_order(events: &Events, places: &Places, violations: &mut Vec<Violation>) {
    let mut partitions: BTreeMap<u32, Vec<(u64, &Append)>> = BTreeMap::new();
    for append in events.appends.iter().filter(|append| append.id.0 < WITHOUT_ID) {
        if let Some(stored) = places.get(&append.id).and_then(|places| places.first()) {
            partitions
                .entry(append.partition)
                .or_default()
                .push((stored.offset, append));
        }
    }
    for appends in partitions.values_mut() {
        appends.sort_by_key(|(offset, _)| *offset);
        // The one that was begun last, of those with smaller offsets.
        let mut latest: Option<&Append> = None;
        let mut last_of: HashMap<u32, Id> = HashMap::new();
        for (_, append) in appends.iter() {
            if let (Some(latest), Some(acked)) = (latest, append.acked)
                && acked < latest.began
            {
                violations.push(Violation::RealTimeOrder(append.id, latest.id));
            }
            if latest.is_none_or(|latest| append.began > latest.began) {
                latest = Some(append);
            }
            let last = last_of.entry(append.id.0).or_insert(append.id);
            if append.id < *last {
                violations.push(Violation::ProducerOrder(append.id, *last));
            }
            *last = append.id.max(*last);
        }
    }
}

fn check_deliveries(events: &Events, places: &Places, violations: &mut Vec<Violation>) {
    let begun: HashMap<Id, Duration> = events.appends.iter().map(|a| (a.id, a.began)).collect();
    for delivery in &events.deliveries {
        let is_there =
            |stored: &Stored| stored.offset == delivery.offset && stored.partition == delivery.partition;
        match begun.get(&delivery.id) {
            None => violations.push(Violation::Invented(delivery.id)),
            Some(began) if delivery.received < *began => {
                violations.push(Violation::DeliveredTooEarly(delivery.id));
            }
            Some(_)
                if !places
                    .get(&delivery.id)
                    .is_some_and(|places| places.iter().any(is_there))
                    && !events.is_removed(delivery.partition, delivery.offset) =>
            {
                violations.push(Violation::DeliveredUncommitted(delivery.id));
            }
            Some(_) => {}
        }
    }
}

/// One message in one group.
type Place<'a> = (&'a str, u32, u64);

fn place(delivery: &Delivery) -> Place<'_> {
    (&delivery.group, delivery.partition, delivery.offset)
}

fn check_settles(events: &Events, violations: &mut Vec<Violation>) {
    let mut deliveries: HashMap<Place<'_>, Vec<usize>> = HashMap::new();
    for (index, delivery) in events.deliveries.iter().enumerate() {
        deliveries.entry(place(delivery)).or_default().push(index);
    }
    let confirmed = events
        .settles
        .iter()
        .filter(|settle| settle.outcome == Outcome::Confirmed);
    // When each delivery was first known to be answered.
    let mut answered: HashMap<usize, Duration> = HashMap::new();
    for settle in confirmed.clone() {
        if let Some(ended) = settle.ended {
            let first = answered.entry(settle.delivery).or_insert(ended);
            *first = ended.min(*first);
        }
    }
    for settle in confirmed {
        let (Some(ended), delivery) = (settle.ended, &events.deliveries[settle.delivery]) else {
            continue;
        };
        let stale = || Violation::StaleAccepted(delivery.group.clone(), delivery.id);
        if answered[&settle.delivery] < settle.began {
            violations.push(stale());
        }
        for other in deliveries[&place(delivery)]
            .iter()
            .filter(|other| **other != settle.delivery)
        {
            let other = &events.deliveries[*other];
            let is_newer = other.began > delivery.received;
            if is_newer && other.received < settle.began {
                violations.push(stale());
            }
            if settle.answer != Answer::Nack && other.began > ended {
                violations.push(Violation::DeliveredAgain(delivery.group.clone(), delivery.id));
            }
        }
    }
}

fn check_letters(events: &Events, places: &Places, violations: &mut Vec<Violation>) {
    let mut letters: HashMap<Place<'_>, Id> = HashMap::new();
    for Letter { group, of } in &events.letters {
        let is_there = places.get(&of.id).is_some_and(|places| places.contains(of));
        if !is_there && !events.is_removed(of.partition, of.offset) {
            violations.push(Violation::Invented(of.id));
        }
        if letters.insert((group, of.partition, of.offset), of.id).is_some() {
            violations.push(Violation::BuriedTwice(group.clone(), of.id));
        }
    }
    // Of a message that is not there any more there is nothing to bury.
    let may_be_gone = |place: &Place<'_>| events.is_excused(place.1, place.2);
    let mut burials: HashMap<Place<'_>, Vec<&Burial>> = HashMap::new();
    for burial in &events.burials {
        let place = (&burial.group[..], burial.partition, burial.offset);
        burials.entry(place).or_default().push(burial);
    }
    let confirmed = events
        .settles
        .iter()
        .filter(|one| one.outcome == Outcome::Confirmed);
    for settle in confirmed {
        let delivery = &events.deliveries[settle.delivery];
        let place = place(delivery);
        if settle.answer == Answer::GiveUp && !letters.contains_key(&place) && !may_be_gone(&place) {
            violations.push(Violation::NoLetter(place.0.to_owned(), place.1, place.2));
        }
        let first = burials.get(&place).map(|burials| burials[0].began);
        let is_first = settle
            .ended
            .zip(first)
            .is_some_and(|(ended, began)| ended < began);
        if settle.answer == Answer::Ack && is_first && letters.contains_key(&place) {
            violations.push(Violation::BuriedDone(place.0.to_owned(), delivery.id));
        }
    }
    for (place, burials) in &burials {
        let done = burials.iter().filter_map(|burial| burial.done).min();
        if done.is_some() && !letters.contains_key(place) && !may_be_gone(place) {
            violations.push(Violation::NoLetter(place.0.to_owned(), place.1, place.2));
        }
    }
    for delivery in &events.deliveries {
        let burials = burials.get(&place(delivery)).into_iter().flatten();
        let done = burials.filter_map(|burial| burial.done).min();
        if done.is_some_and(|done| delivery.began > done) {
            violations.push(Violation::DeliveredAgain(delivery.group.clone(), delivery.id));
        }
    }
}

fn check_groups(events: &Events, groups: &[&str], violations: &mut Vec<Violation>) {
    let mut finished: HashSet<(&str, Id)> = HashSet::new();
    for settle in &events.settles {
        let delivery = &events.deliveries[settle.delivery];
        if settle.answer == Answer::Ack && settle.outcome != Outcome::Stale {
            finished.insert((&delivery.group, delivery.id));
        }
    }
    finished.extend(
        events
            .letters
            .iter()
            .map(|letter| (&letter.group[..], letter.of.id)),
    );
    let kept = |append: &&Append| append.acked.is_some() && !events.is_append_excused(append);
    for append in events.appends.iter().filter(kept) {
        for group in groups {
            if !finished.contains(&(*group, append.id)) {
                violations.push(Violation::Undelivered((*group).to_owned(), append.id));
            }
        }
    }
}
