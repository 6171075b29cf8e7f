//! What is found through the indexes of finished segments is what was there before they were written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::support::*;
use crate::broker::group::Start;
use crate::broker::log::FrameAt;
use crate::broker::log::fault::{Cut, FaultDisk};
use crate::broker::partition::index::{Index, Part, Run};
use crate::broker::store::{Store, StoreOptions, StoredMessage};

fn open_on(disk: &FaultDisk) -> Arc<Store> {
    let options = StoreOptions {
        directory: PathBuf::from("/disk"),
        broker: "a".to_owned(),
        segment_bytes: 16 << 10,
    };
    let store = Store::open_on(options, Arc::default(), Arc::new(disk.clone())).unwrap();
    let chains = vec![vec![chain_entry(1, "a", None)]; 2];
    let configured = store.configure(&configuration("a", 1, vec![topic("orders", chains)]));
    assert_eq!(configured.unwrap(), vec![]);
    store
}

/// Runs and pieces of an entry.
fn parts(store: &Store) -> (usize, usize) {
    let entry = store.registry.get(&entry(0, 1)).unwrap();
    let state = entry.state();
    let runs = state.index.iter().filter(|part| matches!(part, Part::Run(_)));
    let runs = runs.count();
    (runs, state.index.iter().count() - runs)
}

/// The journal's clock has milliseconds: the next record has another one.
fn next_millisecond(after: SystemTime) {
    while SystemTime::now() < after + Duration::from_millis(2) {
        std::thread::yield_now();
    }
}

/// From a time on, exactly the messages of that time and later.
fn check_times(store: &Store, messages: &[StoredMessage]) {
    for message in messages {
        let time = message.published_at;
        let first = messages.iter().find(|one| one.published_at >= time).unwrap();
        let found = store
            .start_offset(&partition(store, 0), Start::Time(time))
            .unwrap();
        assert_eq!(found, first.offset);
    }
    let latest = messages.last().unwrap();
    let found = store
        .start_offset(
            &partition(store, 0),
            Start::Time(latest.published_at + Duration::from_millis(1)),
        )
        .unwrap();
    assert_eq!(
        found.position(),
        latest.offset.position() + 1,
        "nothing is so new"
    );
    let found = store
        .start_offset(&partition(store, 0), Start::Time(SystemTime::UNIX_EPOCH))
        .unwrap();
    assert_eq!(found.position(), 0, "everything is newer");
}

#[tokio::test]
async fn start_at_a_time_is_exact_in_finished_segments_and_after_a_restart() {
    let disk = FaultDisk::default();
    let store = open_on(&disk);
    for n in 0..60 {
        let body = "x".repeat(900 + n * 10);
        append(&partition(&store, n % 2), "", vec![message(n as u64, &body)])
            .await
            .unwrap();
        next_millisecond(SystemTime::now());
    }
    let messages = read_all(&store, &entry(0, 1)).await.unwrap();
    assert_eq!(messages.len(), 30);
    let (runs, pieces) = parts(&store);
    assert!(runs >= 3 && pieces < 15, "{runs} runs and {pieces} pieces");
    check_times(&store, &messages);
    close(store).await;

    let disk = disk.restart(Cut::Lost);
    let store = open_on(&disk);
    assert_eq!(parts(&store), (runs, pieces), "found in the indexes");
    assert_eq!(
        bodies(&read_all(&store, &entry(0, 1)).await.unwrap()),
        bodies(&messages)
    );
    check_times(&store, &messages);
    close(store).await;

    // Without any index.
    for (path, content) in disk.contents() {
        disk.flip(&path, content.len() - 20, 0);
    }
    let store = open_on(&disk.restart(Cut::Lost));
    let (runs, pieces) = parts(&store);
    assert_eq!((runs, pieces), (0, 30), "found by scanning");
    assert_eq!(
        bodies(&read_all(&store, &entry(0, 1)).await.unwrap()),
        bodies(&messages)
    );
    check_times(&store, &messages);
    close(store).await;
}

/// `count` positions from `base` on, in `segment`.
fn run(segment: u32, base: u64, count: u32) -> Part {
    let at = FrameAt {
        segment,
        offset: 0,
        len: 64,
    };
    Part::Run(Run {
        base,
        count,
        bytes: 10 * count,
        first: 1,
        last: 2,
        at,
    })
}

#[test]
fn of_a_run_that_is_a_copy_in_part_the_rest_counts() {
    // 104 and 105 were moved from segment 6 to 8, where new ones came behind them, and segment 6 is there still.
    let mut index = Index::default();
    for part in [run(5, 76, 28), run(6, 104, 2), run(8, 104, 47), run(9, 151, 48)] {
        index.insert(part);
    }
    let parts: Vec<_> = index.iter().copied().collect();
    assert_eq!(
        parts,
        [run(5, 76, 28), run(6, 104, 2), run(8, 106, 45), run(9, 151, 48)]
    );
    assert_eq!(index.bytes(), 1230);
    // One that has everything fills the gaps only, and changes nothing where there is none.
    for _ in 0..2 {
        index.insert(run(7, 70, 140));
        let spans: Vec<_> = index.iter().map(|part| (part.base(), part.end())).collect();
        assert_eq!(
            spans,
            [
                (70, 76),
                (76, 104),
                (104, 106),
                (106, 151),
                (151, 199),
                (199, 210)
            ]
        );
    }
}

#[test]
fn runs_of_a_segment_are_found_also_before_those_of_older_ones() {
    // The oldest were moved to segment 5, which was finished and goes on, for want of room for another.
    let mut index = Index::default();
    for part in [run(5, 0, 23), run(4, 23, 83), run(5, 106, 5)] {
        index.insert(part);
    }
    let (groups, runs) = index.in_segment(5);
    assert!(groups.is_empty());
    assert_eq!(
        runs.into_iter().map(Part::Run).collect::<Vec<_>>(),
        [run(5, 106, 5), run(5, 0, 23)]
    );
}
