//! Mostly dead segments are emptied and go, whatever happens meanwhile; damage is found before somebody asks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::support::*;
use crate::broker::log::fault::{Cut, FaultDisk};
use crate::broker::store::{Store, StoreOptions};
use crate::pb;

fn open_on(disk: &FaultDisk) -> Result<Arc<Store>, String> {
    let options = StoreOptions {
        directory: PathBuf::from("/disk"),
        broker: "a".to_owned(),
        segment_bytes: 16 << 10,
    };
    let store = Store::open_on(options, Arc::default(), Arc::new(disk.clone()))?;
    let mut topic = topic("orders", vec![vec![chain_entry(1, "a", None)]; 2]);
    topic.retention = Some(pb::Retention {
        bytes: 6000,
        ..pb::Retention::default()
    });
    store.configure(&configuration("a", 1, vec![topic]))?;
    Ok(store)
}

/// Many segments with one small message each of partition 0, which stays, and much of partition 1, which goes.
async fn mostly_dead() -> (FaultDisk, Vec<String>) {
    let disk = FaultDisk::default();
    let store = open_on(&disk).unwrap();
    let mut kept = Vec::new();
    for n in 0..40u64 {
        append(&partition(&store, 1), "", vec![message(n, &"x".repeat(3000))])
            .await
            .unwrap();
        if n % 4 == 0 {
            let body = format!("kept {n}");
            append(&partition(&store, 0), "p", vec![message(n + 1, &body)])
                .await
                .unwrap();
            kept.push(body);
        }
    }
    close(store).await;
    (disk.restart(Cut::Lost), kept)
}

fn segments(disk: &FaultDisk) -> usize {
    disk.contents().len()
}

/// A round of retention, on a thread where it may block.
async fn retain(store: &Arc<Store>) {
    let store = Arc::clone(store);
    // Where the disk fails meanwhile, the thread ends.
    _ = tokio::task::spawn_blocking(move || store.retain()).await;
}

/// Rounds of retention until few segments are left, or the disk is off.
async fn settle(store: &Arc<Store>, disk: &FaultDisk) {
    until("few segments are left", async || {
        retain(store).await;
        disk.is_off() || segments(disk) <= 4
    })
    .await;
}

#[tokio::test]
async fn one_old_batch_does_not_keep_its_segment() {
    let (disk, kept) = mostly_dead().await;
    let before = segments(&disk);
    let store = open_on(&disk).unwrap();
    assert!(before >= 8, "{before} segments");
    settle(&store, &disk).await;
    assert_eq!(bodies(&read_all(&store, &entry(0, 1)).await.unwrap()), kept);
    let again = append(&partition(&store, 0), "p", vec![message(1, "again")])
        .await
        .unwrap();
    assert!(again[0].duplicate);
    close(store).await;
    let store = open_on(&disk.restart(Cut::Lost)).unwrap();
    assert_eq!(bodies(&read_all(&store, &entry(0, 1)).await.unwrap()), kept);
    let again = append(&partition(&store, 0), "p", vec![message(1, "again")])
        .await
        .unwrap();
    assert!(again[0].duplicate);
    close(store).await;
}

#[tokio::test]
async fn a_power_cut_at_any_step_of_it_loses_nothing() {
    let (image, kept) = mostly_dead().await;
    let mut steps = 0;
    loop {
        let disk = image.restart(Cut::Lost);
        let store = open_on(&disk).unwrap();
        disk.cut_power_after(steps);
        settle(&store, &disk).await;
        let cut = disk.is_off();
        close(store).await;
        let disk = disk.restart(Cut::Random(steps));
        let store = open_on(&disk).unwrap();
        let found = bodies(&read_all(&store, &entry(0, 1)).await.unwrap());
        assert_eq!(found, kept, "cut after {steps} steps");
        // And it goes on from there.
        settle(&store, &disk).await;
        let found = bodies(&read_all(&store, &entry(0, 1)).await.unwrap());
        assert_eq!(found, kept, "cut after {steps} steps");
        close(store).await;
        if !cut {
            break;
        }
        steps += 1;
    }
    assert!(steps > 20, "{steps} steps");
}

#[tokio::test]
async fn damage_is_found_by_the_check_and_its_segment_is_kept() {
    let disk = FaultDisk::default();
    let store = open_on(&disk).unwrap();
    for n in 0..20 {
        let body = format!("{n} {}", "y".repeat(1500));
        append(&partition(&store, (n % 2) as usize), "", vec![message(n, &body)])
            .await
            .unwrap();
    }
    let first: &Path = Path::new("/disk/000001.log");
    let content = &disk.contents()[first];
    let at = content.windows(5).position(|window| window == b"4 yyy").unwrap();
    disk.flip(first, at + 9, 3);
    let damaged = store.registry.get(&entry(0, 1)).unwrap();
    assert!(!damaged.state().damaged.contains(2), "nobody has looked yet");
    let checking = Arc::clone(&store);
    tokio::task::spawn_blocking(move || checking.scrub())
        .await
        .unwrap();
    assert!(damaged.state().damaged.contains(2), "the check found it");
    for _ in 0..2 {
        retain(&store).await;
    }
    assert!(
        disk.contents().contains_key(first),
        "a person may want to look at it"
    );
    close(store).await;
}
