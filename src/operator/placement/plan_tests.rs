use super::*;

fn broker(ordinal: u32) -> Broker {
    Broker {
        name: format!("orders-{ordinal}"),
        ordinal,
        serving: true,
        current: true,
        stays: true,
        held: Some(BTreeMap::new()),
        ..Broker::default()
    }
}

fn brokers(count: u32) -> Vec<Broker> {
    (0..count).map(broker).collect()
}

fn entry(epoch: u64, broker: u32, sealed_at: Option<u64>) -> ChainEntry {
    ChainEntry {
        epoch,
        brokers: vec![format!("orders-{broker}")],
        sealed_at,
    }
}

fn partition(index: u32, chain: Vec<ChainEntry>) -> PartitionStatus {
    PartitionStatus {
        index,
        epoch: chain.last().map_or(0, |entry| entry.epoch),
        chain,
        ..PartitionStatus::default()
    }
}

fn topic(partitions: Vec<PartitionStatus>) -> Topic {
    Topic {
        name: "t".to_owned(),
        uid: "u".to_owned(),
        wanted: u32::try_from(partitions.len()).expect("few"),
        partitions,
    }
}

fn model(brokers: Vec<Broker>, partitions: Vec<PartitionStatus>) -> Model {
    Model {
        brokers,
        topics: vec![topic(partitions)],
        quiet: true,
        ..Model::default()
    }
}

fn key(partition: u32, epoch: u64) -> EntryKey {
    EntryKey {
        topic_uid: "u".to_owned(),
        partition,
        epoch,
    }
}

#[test]
fn new_partitions_are_spread_over_the_brokers_that_serve() {
    let plan = plan(&model(
        brokers(3),
        (0..6).map(|index| partition(index, vec![])).collect(),
    ));
    assert_eq!(plan.assign.len(), 6);
    for ordinal in 0..3 {
        let name = format!("orders-{ordinal}");
        assert_eq!(plan.assign.iter().filter(|assign| assign.to == name).count(), 2);
    }
}

#[test]
fn a_broker_that_is_not_ready_gets_nothing() {
    let mut brokers = brokers(3);
    brokers[2].serving = false;
    let plan = plan(&model(
        brokers,
        (0..6).map(|index| partition(index, vec![])).collect(),
    ));
    assert!(plan.assign.iter().all(|assign| assign.to != "orders-2"));
    assert_eq!(plan.assign.len(), 6);
}

#[test]
fn a_new_broker_takes_over_its_share_at_once() {
    let owned = (0..4)
        .map(|index| partition(index, vec![entry(1, index % 2, None)]))
        .collect();
    let plan = plan(&model(brokers(4), owned));
    assert_eq!(plan.moves.len(), 2);
    let mut to: Vec<&str> = plan.moves.iter().map(|step| step.to.as_str()).collect();
    to.sort_unstable();
    assert_eq!(to, ["orders-2", "orders-3"]);
}

#[test]
fn a_leaving_broker_loses_all_it_owns_and_gets_nothing_new() {
    let mut brokers = brokers(3);
    (brokers[2].stays, brokers[2].leaving) = (false, true);
    let owned = (0..6)
        .map(|index| partition(index, vec![entry(1, index % 3, None)]))
        .collect();
    let plan = plan(&model(brokers, owned));
    assert_eq!(plan.moves.len(), 2);
    assert!(
        plan.moves
            .iter()
            .all(|step| step.from == "orders-2" && step.to != "orders-2")
    );
}

#[test]
fn without_a_seal_nothing_goes_on_elsewhere() {
    let mut brokers = brokers(3);
    brokers[2].serving = false;
    let owned: Vec<_> = (0..6)
        .map(|index| partition(index, vec![entry(1, index % 3, None)]))
        .collect();
    assert_eq!(plan(&model(brokers.clone(), owned.clone())).moves, []);
    brokers[2].stays = false;
    let plan = plan(&model(brokers, owned));
    assert_eq!((plan.moves, plan.waiting), (vec![], true));
}

#[test]
fn an_entry_that_was_sealed_before_a_crash_is_extended() {
    let mut brokers = brokers(1);
    let held = Held {
        sealed: true,
        positions: 7,
        ..Held::default()
    };
    brokers[0].held = Some(BTreeMap::from([(key(0, 1), held)]));
    let plan = plan(&model(brokers, vec![partition(0, vec![entry(1, 0, None)])]));
    assert_eq!(plan.moves.len(), 1);
    assert_eq!(
        (plan.moves[0].from.as_str(), plan.moves[0].to.as_str()),
        ("orders-0", "orders-0")
    );
}

#[test]
fn sealed_data_follows_its_owner_and_empty_entries_just_go() {
    let chain = vec![entry(1, 0, Some(9)), entry(2, 0, Some(0)), entry(3, 1, None)];
    let plan = plan(&model(
        brokers(2),
        vec![partition(0, chain.clone()), partition(1, vec![entry(1, 0, None)])],
    ));
    assert_eq!(plan.forget, [key(0, 2)]);
    assert_eq!(plan.copies.len(), 1);
    assert_eq!(
        (plan.copies[0].from.as_str(), plan.copies[0].to.as_str()),
        ("orders-0", "orders-1")
    );
}

#[test]
fn nothing_leaves_a_chain_before_the_new_owner_takes_appends() {
    let chain = vec![entry(1, 0, Some(9)), entry(2, 0, Some(0)), entry(3, 1, None)];
    for spoil in [
        |broker: &mut Broker| broker.current = false,
        |broker: &mut Broker| broker.problems = [("t".to_owned(), 0)].into(),
    ] {
        let mut brokers = brokers(2);
        spoil(&mut brokers[1]);
        let plan = plan(&model(
            brokers,
            vec![partition(0, chain.clone()), partition(1, vec![entry(1, 0, None)])],
        ));
        assert!(plan.forget.is_empty() && plan.copies.is_empty() && plan.waiting);
    }
}

#[test]
fn expired_data_is_not_copied() {
    let mut brokers = brokers(2);
    let held = Held {
        sealed: true,
        positions: 9,
        start: 9,
        ..Held::default()
    };
    brokers[0].held = Some(BTreeMap::from([(key(0, 1), held)]));
    let chain = vec![entry(1, 0, Some(9)), entry(2, 1, None)];
    let plan = plan(&model(
        brokers,
        vec![partition(0, chain), partition(1, vec![entry(1, 0, None)])],
    ));
    assert_eq!((plan.forget, plan.copies), (vec![key(0, 1)], vec![]));
}

#[test]
fn only_what_no_chain_places_there_is_dropped() {
    let held = |sealed| Held {
        topic: "t".to_owned(),
        sealed,
        ..Held::default()
    };
    let foreign = EntryKey {
        topic_uid: "gone".to_owned(),
        partition: 0,
        epoch: 1,
    };
    let unreadable = EntryKey {
        topic_uid: "bad".to_owned(),
        partition: 0,
        epoch: 1,
    };
    let mut brokers = brokers(2);
    brokers[0].held = Some(BTreeMap::from([
        (key(0, 1), held(true)),  // moved away
        (key(0, 5), held(false)), // newer than anything known
        (foreign.clone(), held(false)),
        (unreadable, held(true)),
    ]));
    // The owner is getting a copy of epoch 1 from elsewhere; that is not garbage.
    brokers[1].held = Some(BTreeMap::from([
        (key(0, 2), held(true)),
        (key(0, 3), held(false)),
    ]));
    let chain = vec![entry(2, 0, Some(4)), entry(3, 1, None)];
    let mut model = model(brokers, vec![partition(0, chain)]);
    model.unreadable.insert("bad".to_owned());
    let dropped: Vec<EntryKey> = plan(&model).drops.into_iter().map(|job| job.key).collect();
    assert_eq!(dropped, [foreign, key(0, 1)]);
}

#[test]
fn paused_is_paused() {
    let mut model = model(
        brokers(2),
        (0..4)
            .map(|index| partition(index, vec![entry(1, 0, None)]))
            .collect(),
    );
    model.frozen = true;
    let plan = plan(&model);
    assert!(
        plan.moves.is_empty() && plan.assign.is_empty() && plan.copies.is_empty() && plan.forget.is_empty()
    );
}
