//! What is found after a kill, a power cut, a torn write or a flipped bit.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::support::*;

/// The newest segment's file, and the end of its records.
fn tail(directory: &Path) -> (PathBuf, usize) {
    let mut segments: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    let path = segments.pop().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| (last + 1).next_multiple_of(8));
    (path, end)
}

#[tokio::test]
async fn a_torn_tail_never_costs_an_earlier_record() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    append(&partition(&store, 0), "", vec![message(1, "one")])
        .await
        .unwrap();
    append(&partition(&store, 0), "", vec![message(2, "two")])
        .await
        .unwrap();
    let before = tail(directory.path()).1;
    append(&partition(&store, 0), "", vec![message(3, "three")])
        .await
        .unwrap();
    let whole = snapshot(directory.path());
    let (path, end) = tail(whole.path());
    let name = path.file_name().unwrap().to_owned();
    for cut in before..end {
        for garbage in [false, true] {
            let copy = snapshot(whole.path());
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(copy.path().join(&name))
                .unwrap();
            if garbage {
                file.write_all_at(&vec![0xa5; end - cut], cut as u64).unwrap();
            } else {
                file.set_len(cut as u64).unwrap();
            }
            let store = simple(copy.path(), 1);
            let found = bodies(&read_all(&store, &entry(0, 1)).await.unwrap());
            // Only padding is cut in the last bytes of a record.
            assert_eq!(found[..2], ["one", "two"], "cut at {cut}, {garbage}");
            let is_torn = found.len() == 2;
            if garbage {
                let counted = store.counters.recovery_cut_bytes.get();
                let torn = if is_torn { end - before } else { 0 };
                assert_eq!(counted, torn as u64, "what is cut is counted");
            }
            append(&partition(&store, 0), "", vec![message(4, "four")])
                .await
                .unwrap();
            let count = found.len();
            store.close().await;
            drop(store);
            let store = open(copy.path(), "a");
            let found = bodies(&read_all(&store, &entry(0, 1)).await.unwrap());
            assert_eq!(found.len(), count + 1);
            assert_eq!(found[count], "four");
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_is_reported_and_costs_only_its_own_batch() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 2);
    for (index, body) in [
        (0, "good-0"),
        (1, "other-0"),
        (0, "to be damaged"),
        (1, "other-1"),
        (0, "good-2"),
    ] {
        append(&partition(&store, index), "", vec![message(1, body)])
            .await
            .unwrap();
    }
    close(store).await;
    let (path, _) = tail(directory.path());
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(13)
        .position(|window| window == b"to be damaged")
        .unwrap();
    for offset in [at, at - 40] {
        let copy = snapshot(directory.path());
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(copy.path().join(path.file_name().unwrap()))
            .unwrap();
        file.write_all_at(&[bytes[offset] ^ 4], offset as u64).unwrap();
        let before = std::fs::read(copy.path().join(path.file_name().unwrap())).unwrap();
        let store = simple(copy.path(), 2);
        let other = bodies(&read_all(&store, &entry(1, 1)).await.unwrap());
        assert_eq!(other, ["other-0", "other-1"], "another partition is served");
        let refused = store.read_batches(&entry(0, 1), 1, 1000).await.unwrap_err();
        assert!(refused.contains("data lost"), "{refused}");
        let after = store.read_batches(&entry(0, 1), 2, 1000).await.unwrap();
        assert_eq!((after.batches.len(), after.next_position), (1, 3));
        let appended = append(&partition(&store, 0), "", vec![message(1, "new")])
            .await
            .unwrap();
        assert_eq!(appended[0].offset.position(), 3);
        let now = std::fs::read(copy.path().join(path.file_name().unwrap())).unwrap();
        assert_eq!(now, before, "damaged data is left as it is");
    }
}

#[tokio::test]
async fn positions_of_an_unreadable_newest_batch_are_not_given_out_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 2);
    append(&partition(&store, 0), "", vec![message(1, "kept")])
        .await
        .unwrap();
    append(&partition(&store, 0), "", vec![message(1, "to be damaged")])
        .await
        .unwrap();
    append(&partition(&store, 1), "", vec![message(1, "other")])
        .await
        .unwrap();
    close(store).await;
    let (path, _) = tail(directory.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(13)
        .position(|window| window == b"to be damaged")
        .unwrap();
    bytes[at - 40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let store = simple(directory.path(), 2);
    let appended = append(&partition(&store, 0), "", vec![message(1, "new")])
        .await
        .unwrap();
    assert!(appended[0].offset.position() > 1, "{appended:?}");
    let other = append(&partition(&store, 1), "", vec![message(1, "new")])
        .await
        .unwrap();
    assert_eq!(
        other[0].offset.position(),
        1,
        "seen later than the damage, so not touched by it"
    );
}

#[tokio::test]
async fn damage_that_comes_while_running_is_noticed_by_the_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = simple(directory.path(), 1);
    for body in ["one", "to be damaged", "three"] {
        append(&partition(&store, 0), "", vec![message(1, body)])
            .await
            .unwrap();
    }
    let (path, _) = tail(directory.path());
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(13)
        .position(|window| window == b"to be damaged")
        .unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"T", at as u64).unwrap();
    assert_eq!(store.damage().messages, 0);
    for _ in 0..2 {
        let refused = read_all(&store, &entry(0, 1)).await.unwrap_err();
        assert!(refused.contains("data lost"), "{refused}");
        assert_eq!(store.damage().messages, 1, "counted once");
    }
    let after = store.read_batches(&entry(0, 1), 2, 1000).await.unwrap();
    assert_eq!(after.batches.len(), 1);
}

#[tokio::test]
async fn many_segments_read_back_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path(), "a");
    options.segment_bytes = 16 << 10;
    let store = crate::broker::store::Store::open(options.clone(), std::sync::Arc::default()).unwrap();
    let chains = vec![vec![chain_entry(1, "a", None)]];
    let configuration = configuration("a", 1, vec![topic("orders", chains)]);
    store.configure(&configuration).unwrap();
    let body = "x".repeat(500);
    for n in 0..200 {
        append(
            &partition(&store, 0),
            "p",
            vec![message(n, &format!("{n}-{body}"))],
        )
        .await
        .unwrap();
    }
    let copy = snapshot(directory.path());
    options.directory = copy.path().to_owned();
    let store = crate::broker::store::Store::open(options, std::sync::Arc::default()).unwrap();
    store.configure(&configuration).unwrap();
    let found = read_all(&store, &entry(0, 1)).await.unwrap();
    assert_eq!(found.len(), 200);
    assert!(
        found
            .iter()
            .enumerate()
            .all(|(n, message)| message.sequence == n as u64)
    );
    let again = append(&partition(&store, 0), "p", vec![message(150, "x")])
        .await
        .unwrap();
    assert!(again[0].duplicate);
}
