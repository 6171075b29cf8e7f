//! The store against a model, on a disk that loses what was not synced, tears, fills up, flips bits and fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use super::support::*;
use crate::broker::channel::Channel;
use crate::broker::counters::Counters;
use crate::broker::log::fault::{Cut, FaultDisk};
use crate::broker::log::{Header, Kind};
use crate::broker::store::{AppendError, Line, Store, StoreOptions};

const PARTITIONS: usize = 3;

/// A store on this disk, all partitions open here; an error where the disk failed meanwhile.
fn open_on(disk: &FaultDisk) -> Result<Arc<Store>, String> {
    let options = StoreOptions {
        directory: PathBuf::from("/disk"),
        broker: "a".to_owned(),
        segment_bytes: 16 << 10,
    };
    let store = Store::open_on(options, Arc::new(Counters::default()), Arc::new(disk.clone()))?;
    let chains = vec![vec![chain_entry(1, "a", None)]; PARTITIONS];
    store.configure(&configuration("a", 1, vec![topic("orders", chains)]))?;
    Ok(store)
}

/// What was sent to each partition, in order, by sequence; and how much of it was acknowledged.
#[derive(Debug, Default, Clone)]
struct Sent {
    bodies: Vec<String>,
    acknowledged: usize,
}

type Model = BTreeMap<usize, Sent>;

/// One boot: batches of messages for partitions, sent this many at a time; the power goes after so many operations.
#[derive(Debug, Clone)]
struct Boot {
    batches: Vec<(usize, usize, usize)>,
    at_once: usize,
    operations: u64,
    cut: Cut,
}

fn boot() -> impl Strategy<Value = Boot> {
    let cut = prop_oneof![
        1 => Just(Cut::Lost),
        1 => Just(Cut::Kept),
        2 => (0usize..4000).prop_map(Cut::Torn),
        4 => any::<u64>().prop_map(Cut::Random),
    ];
    let batch = (
        0..PARTITIONS,
        1usize..4,
        prop_oneof![4 => 0usize..300, 1 => 300usize..6000],
    );
    (prop::collection::vec(batch, 0..25), 1usize..6, 0u64..60, cut).prop_map(
        |(batches, at_once, operations, cut)| Boot {
            batches,
            at_once,
            operations,
            cut,
        },
    )
}

fn body(index: usize, sequence: usize, size: usize) -> String {
    format!("{index}/{sequence}/{}", "x".repeat(size))
}

/// Sends what is not acknowledged, and these batches, until the disk fails.
async fn send(store: &Store, model: &mut Model, boot: &Boot) {
    let channel = Channel::new(10_000);
    let mut tickets = Vec::new();
    let mut work: Vec<(usize, usize, usize)> = Vec::new();
    for (index, sent) in model.iter() {
        if sent.acknowledged < sent.bodies.len() {
            work.push((*index, sent.acknowledged, sent.bodies.len()));
        }
    }
    for &(index, count, size) in &boot.batches {
        let sent = model.entry(index).or_default();
        let from = sent.bodies.len();
        sent.bodies
            .extend((from..from + count).map(|sequence| body(index, sequence, size)));
        work.push((index, from, from + count));
    }
    for (n, (index, from, to)) in work.iter().copied().enumerate() {
        let batch = (from..to)
            .map(|sequence| message(sequence as u64 + 1, &model[&index].bodies[sequence]))
            .collect();
        let permit = channel.enter((to - from) as u32, 1, Instant::now()).await;
        if let Ok(ticket) = partition(store, index).append(batch, "p", permit) {
            tickets.push((index, to, ticket));
        }
        if n % boot.at_once == 0 || n + 1 == work.len() {
            for (index, to, ticket) in tickets.drain(..) {
                let Ok(appended) = ticket.done().await else {
                    continue;
                };
                let first = to - appended.len();
                for (n, appended) in appended.iter().enumerate() {
                    assert_eq!(appended.offset.position(), (first + n) as u64);
                }
                let sent = model.entry(index).or_default();
                assert!(sent.acknowledged >= first, "acknowledged out of order");
                sent.acknowledged = sent.acknowledged.max(to);
            }
        }
    }
}

async fn cuts(boots: Vec<Boot>) {
    let mut disk = FaultDisk::default();
    disk.set_zeroes_ahead(true);
    let mut model = Model::new();
    for boot in boots {
        disk.cut_power_after(boot.operations);
        if let Ok(store) = open_on(&disk) {
            send(&store, &mut model, &boot).await;
            close(store).await;
        }
        disk = disk.restart(boot.cut);
        let store = open_on(&disk).unwrap();
        check(&store, &model).await;
        close(store).await;
        disk = disk.restart(Cut::Lost);
    }
    // Sent again, what is missing is added and nothing is there twice.
    let store = open_on(&disk).unwrap();
    let rest = Boot {
        batches: vec![(0, 1, 1)],
        at_once: 3,
        operations: 0,
        cut: Cut::Lost,
    };
    send(&store, &mut model, &rest).await;
    for (index, sent) in &model {
        let found = bodies(&read_all(&store, &entry(*index as u32, 1)).await.unwrap());
        assert_eq!(found, sent.bodies, "partition {index}");
    }
    close(store).await;
    assert_eq!(disk.failures(), Vec::<String>::new());
}

/// Nothing acknowledged is missing, nothing is there that was not sent, all in order.
async fn check(store: &Store, model: &Model) {
    for (index, sent) in model {
        let found = bodies(&read_all(store, &entry(*index as u32, 1)).await.unwrap());
        assert!(
            found.len() >= sent.acknowledged,
            "partition {index}: {} of {} acknowledged messages are left",
            found.len(),
            sent.acknowledged
        );
        assert_eq!(found[..], sent.bodies[..found.len()], "partition {index}");
    }
}

/// Segments are finished and begun on the way, so their indexes and checkpoints are cut, too.
#[test]
fn a_power_cut_at_any_operation_is_never_taken_for_damage() {
    let mut operations = 0;
    loop {
        let mut off = true;
        for seed in 0..6 {
            let boot = Boot {
                batches: vec![
                    (0, 1, 5000),
                    (1, 2, 1000),
                    (2, 1, 3000),
                    (0, 3, 900),
                    (1, 1, 5000),
                    (2, 1, 5000),
                ],
                at_once: 1,
                operations,
                cut: Cut::Random(seed),
            };
            off &= run(cut_once(&boot));
        }
        if !off {
            break;
        }
        operations += 1;
    }
    assert!(operations > 20, "{operations} operations");
}

/// Whether the power was cut before all was done.
async fn cut_once(boot: &Boot) -> bool {
    let disk = FaultDisk::default();
    disk.cut_power_after(boot.operations);
    let mut model = Model::new();
    if let Ok(store) = open_on(&disk) {
        send(&store, &mut model, boot).await;
        close(store).await;
    }
    let off = disk.is_off();
    let store = open_on(&disk.restart(boot.cut)).unwrap();
    check(&store, &model).await;
    assert!(
        store.registry.damaged_segments.lock().is_empty(),
        "taken for damage"
    );
    close(store).await;
    off
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_acknowledged_is_lost_by_power_cuts_and_torn_writes(boots in prop::collection::vec(boot(), 1..5)) {
        run(cuts(boots));
    }

    #[test]
    fn a_flipped_bit_costs_its_own_batch_at_most_and_is_reported(
        batches in prop::collection::vec((0..PARTITIONS, 1usize..4, 0usize..3000), 10..40),
        place in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        run(flip(batches, place, bit));
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test)
}

/// A record on the disk: its file, its bytes without reserved ones and padding, its partition and positions.
struct Record {
    path: PathBuf,
    bytes: Vec<usize>,
    partition: usize,
    positions: std::ops::Range<u64>,
}

/// Every record on a disk.
fn records_of(disk: &FaultDisk, numbers: &BTreeMap<u32, usize>) -> Vec<Record> {
    let mut records = Vec::new();
    for (path, content) in disk.contents() {
        let mut at = 0;
        while let Some(header) = content.get(at..).and_then(Header::parse) {
            let meta = header.meta;
            let payload = at + 56..at + 56 + header.len as usize;
            let is_batch = meta.kind == Kind::Batch;
            records.push(Record {
                path: path.clone(),
                bytes: (at..at + 52).chain(payload).collect(),
                partition: numbers.get(&meta.entry).copied().unwrap_or(0),
                positions: meta.base..meta.base + u64::from(meta.count) * u64::from(is_batch),
            });
            at += header.frame_len();
        }
    }
    records
}

async fn flip(sizes: Vec<(usize, usize, usize)>, place: prop::sample::Index, bit: u8) {
    let disk = FaultDisk::default();
    let store = open_on(&disk).unwrap();
    let mut sent: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (index, count, size) in sizes {
        let bodies = sent.entry(index).or_default();
        let from = bodies.len();
        bodies.extend((from..from + count).map(|n| body(index, n, size)));
        let batch = (from..from + count)
            .map(|n| message(n as u64 + 1, &bodies[n]))
            .collect();
        append(&partition(&store, index), "p", batch).await.unwrap();
    }
    let all = store.registry.all();
    let numbers = all
        .iter()
        .map(|entry| (entry.number, entry.id.partition as usize))
        .collect();
    close(store).await;
    let disk = disk.restart(Cut::Lost);
    let mut records = records_of(&disk, &numbers);
    let victim = records.swap_remove(place.index(records.len()));
    disk.flip(&victim.path, victim.bytes[place.index(victim.bytes.len())], bit);

    let store = open_on(&disk).unwrap();
    let mut refused = BTreeSet::new();
    for (index, bodies) in &sent {
        for position in 0..bodies.len() as u64 {
            let id = entry(*index as u32, 1);
            match store.read_batches(&id, position, 1).await {
                Ok(response) => {
                    let records = crate::broker::log::frame::split(&response.batches[0]).unwrap();
                    let found = crate::broker::partition::read::decode(&records, 1, position);
                    assert_eq!(found[0].offset.position(), position);
                    assert_eq!(found[0].body, bodies[position as usize]);
                }
                Err(why) => {
                    assert!(why.contains("data lost"), "{why}");
                    refused.insert((*index, position));
                }
            }
        }
    }
    let expected = victim
        .positions
        .clone()
        .map(|position| (victim.partition, position));
    assert_eq!(refused, expected.collect(), "what is refused");
    let damaged = store.registry.get(&entry(victim.partition as u32, 1)).unwrap();
    let damaged = damaged.state().damaged.clone();
    assert!(
        victim
            .positions
            .clone()
            .all(|position| damaged.contains(position)),
        "reported"
    );
    for index in 0..PARTITIONS {
        append(&partition(&store, index), "", vec![message(1, "more")])
            .await
            .expect("the partition takes messages");
    }
    close(store).await;
}

#[tokio::test]
async fn a_full_disk_refuses_publishes_serves_reads_and_heals() {
    let disk = FaultDisk::default();
    disk.set_zeroes_ahead(true);
    disk.set_capacity(Some(40 << 10));
    let mut store = open_on(&disk).unwrap();
    let mut stored = Vec::new();
    for round in 0..3 {
        let refused = loop {
            let text = body(0, stored.len(), 700);
            match append(&partition(&store, 0), "", vec![message(1, &text)]).await {
                Ok(_) => stored.push(text),
                Err(refused) => break refused,
            }
        };
        assert!(
            matches!(&refused, AppendError::NotStored(why) if why.contains("the disk is full")),
            "{refused}"
        );
        assert!(disk.used() <= (40 + 20 * round) << 10);
        let found = read_all(&store, &entry(0, 1)).await.unwrap();
        assert_eq!(bodies(&found), stored, "round {round}: reading goes on");
        if round == 1 {
            // Also a restart finds all of it.
            close(store).await;
            store = open_on(&disk.restart(Cut::Lost)).unwrap();
            let found = read_all(&store, &entry(0, 1)).await.unwrap();
            assert_eq!(bodies(&found), stored, "after a restart");
            return;
        }
        disk.set_capacity(Some((60 + 20 * round) << 10));
    }
}

#[tokio::test]
async fn what_came_behind_a_batch_that_did_not_fit_does_not_overtake_it() {
    let disk = FaultDisk::default();
    disk.set_zeroes_ahead(true);
    disk.set_capacity(Some(40 << 10));
    let store = open_on(&disk).unwrap();
    let (line, channel) = (Arc::new(Line::default()), Channel::new(1000));
    let first = partition(&store, 0);
    let in_line = async |sequence, size| {
        let permit = channel.enter(1, 1, Instant::now()).await;
        let messages = vec![message(sequence, &body(0, 0, size))];
        let ticket = first.append_in_line(messages, "p", permit, &line);
        ticket.map_err(|refused| refused.error)?.done().await
    };
    in_line(1, 700).await.unwrap();
    in_line(2, 100 << 10).await.unwrap_err();
    in_line(3, 700).await.unwrap_err();
    // Another stream is not held up by it, and neither is the one on which it comes again.
    append(&first, "q", vec![message(1, "other")]).await.unwrap();
    append(&first, "p", vec![message(2, "again")]).await.unwrap();
    let found = read_all(&store, &entry(0, 1)).await.unwrap();
    assert_eq!(bodies(&found)[1..], ["other", "again"]);
    close(store).await;
}

#[tokio::test]
async fn a_failed_sync_acknowledges_nothing_and_ends_the_writer() {
    let disk = FaultDisk::default();
    let store = open_on(&disk).unwrap();
    append(&partition(&store, 0), "", vec![message(1, "kept")])
        .await
        .unwrap();
    assert!(disk.syncs() > 0);
    disk.fail_syncs(true);
    let refused = append(&partition(&store, 0), "", vec![message(2, "lost")]).await;
    assert!(matches!(refused, Err(AppendError::Log(_))), "{refused:?}");
    disk.fail_syncs(false);
    let refused = append(&partition(&store, 0), "", vec![message(3, "late")]).await;
    assert!(refused.is_err(), "a sync that works later proves nothing");
    assert!(disk.failures()[0].contains("fdatasync failed"));
    close(store).await;
    let store = open_on(&disk.restart(Cut::Lost)).unwrap();
    let found = read_all(&store, &entry(0, 1)).await.unwrap();
    assert_eq!(bodies(&found), ["kept"]);
    close(store).await;
}

/// Runs itself: the part in the other process must end with a signal, and must not answer.
#[test]
fn a_failed_sync_ends_the_process() {
    const INSIDE: &str = "SLUICE_TEST_FAILING_SYNC";
    if let Some(directory) = std::env::var_os(INSIDE) {
        run(fail_for_real(Path::new(&directory)));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let name = concat!(module_path!(), "::a_failed_sync_ends_the_process");
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name.split_once("::").unwrap().1, "--exact", "--nocapture"])
        .env(INSIDE, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert_eq!(signal, Some(libc::SIGABRT), "{said}");
    assert!(
        said.contains("the journal failed: fdatasync failed: the device reports an error"),
        "{said}"
    );
    assert!(!said.contains("answered"), "{said}");
}

async fn fail_for_real(directory: &Path) {
    let disk = TestDisk::default();
    let opened = Store::open_on(options(directory, "a"), Arc::default(), Arc::new(disk.clone()));
    let store = opened.unwrap();
    place(&store, "a", 1, vec![chain_entry(1, "a", None)]);
    append(&partition(&store, 0), "", vec![message(1, "kept")])
        .await
        .unwrap();
    disk.failing_syncs
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let answer = append(&partition(&store, 0), "", vec![message(2, "lost")]).await;
    eprintln!("answered {answer:?}");
}
