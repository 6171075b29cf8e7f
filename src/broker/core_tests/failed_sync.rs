//! What a failed sync leaves: the page cache has the data and takes it for clean, so that after a restart of the
//! process a sync has nothing to do.

use std::path::Path;
use std::sync::Arc;

use super::support::*;
use crate::broker::log::fault::{Cut, FaultDisk};
use crate::broker::store::Store;

fn open_on(disk: &FaultDisk) -> Arc<Store> {
    let options = options(Path::new("/data"), "a");
    let store = Store::open_on(options, Arc::default(), Arc::new(disk.clone())).unwrap();
    let chains = vec![vec![chain_entry(1, "a", None)]];
    store
        .configure(&configuration("a", 1, vec![topic("orders", chains)]))
        .unwrap();
    store
}

async fn send(store: &Store, sequence: u64, body: &str) -> bool {
    let sent = append(&partition(store, 0), "p", vec![message(sequence, body)]).await;
    sent.is_ok()
}

#[tokio::test]
async fn what_is_served_after_a_failed_sync_survives_the_next_power_cut() {
    let disk = FaultDisk::default();
    let store = open_on(&disk);
    assert!(send(&store, 1, "one").await);
    disk.fail_syncs(true);
    assert!(!send(&store, 2, "two").await, "it is not acknowledged");
    close(store).await;

    // The process starts again; the machine did not.
    let disk = disk.restart(Cut::Kept);
    let store = open_on(&disk);
    assert!(send(&store, 2, "two").await, "now it is");
    assert!(send(&store, 3, "three").await);
    close(store).await;

    let store = open_on(&disk.restart(Cut::Lost));
    let found = bodies(&read_all(&store, &entry(0, 1)).await.unwrap());
    assert_eq!(found, ["one", "two", "three"]);
    close(store).await;
}
