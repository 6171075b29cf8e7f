//! Durability in memory: what is acknowledged before it is in a file is served, in order, and gets there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::support::*;
use crate::broker::channel::Channel;
use crate::broker::log::fault::{Cut, FaultDisk};
use crate::broker::log::{Disk, RealDisk};
use crate::broker::store::{AppendError, Line, Store};
use crate::pb;

fn open_on(directory: &Path, disk: Arc<dyn Disk>) -> Arc<Store> {
    let store = Store::open_on(options(directory, "a"), Arc::default(), disk).unwrap();
    set(&store, 1, pb::Durability::Memory);
    store
}

fn set(store: &Arc<Store>, generation: u64, durability: pb::Durability) {
    let chains = vec![vec![chain_entry(1, "a", None)]; 2];
    let mut all = configuration("a", generation, vec![topic("orders", chains)]);
    all.set_durability(durability);
    assert_eq!(store.configure(&all).unwrap(), vec![]);
}

async fn send(store: &Store, sequence: u64, body: &str) -> Result<u64, AppendError> {
    let sent = append(&partition(store, 0), "", vec![message(sequence, body)]).await?;
    Ok(sent[0].offset.position())
}

async fn found(store: &Store, index: u32) -> Vec<String> {
    bodies(&read_all(store, &entry(index, 1)).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_who_send_at_once_keep_their_order_over_segments_and_are_served_at_once() {
    const STREAMS: u64 = 8;
    const EACH: u64 = 400;
    let directory = tempfile::tempdir().unwrap();
    let store = open_on(directory.path(), Arc::new(RealDisk));
    // Segments have 64 KiB.
    let padding = "x".repeat(100);
    let channel = Channel::new(10_000);
    let mut streams = Vec::new();
    for stream in 0..STREAMS {
        let (store, channel, padding) = (Arc::clone(&store), Arc::clone(&channel), padding.clone());
        streams.push(tokio::spawn(async move {
            let (partition, line) = (
                partition(&store, (stream % 2) as usize),
                Arc::new(Line::default()),
            );
            let mut waiting = std::collections::VecDeque::new();
            for n in 0..EACH {
                let permit = channel.enter(1, 1, Instant::now()).await;
                let body = format!("{stream} {n} {padding}");
                let ticket = partition
                    .append_in_line(vec![message(n, &body)], "", permit, &line)
                    .unwrap();
                waiting.push_back((body, ticket));
                if waiting.len() > (stream * 3) as usize {
                    let (body, ticket) = waiting.pop_front().unwrap();
                    let position = ticket.done().await.unwrap()[0].offset.position();
                    let id = entry((stream % 2) as u32, 1);
                    let read = store.read_batches(&id, position, 1).await.unwrap();
                    let records = crate::broker::log::frame::split(&read.batches[0]).unwrap();
                    let messages = crate::broker::partition::read::decode(&records, 1, position);
                    assert_eq!(
                        bodies(&messages)[0],
                        body,
                        "it is there as soon as it is acknowledged"
                    );
                }
            }
            for (_, ticket) in waiting {
                ticket.done().await.unwrap();
            }
        }));
    }
    for stream in streams {
        stream.await.unwrap();
    }
    assert_eq!(channel.inside(), (0, 0));
    let served = [found(&store, 0).await, found(&store, 1).await];
    close(store).await;
    let store = open_on(directory.path(), Arc::new(RealDisk));
    for (index, served) in served.iter().enumerate() {
        let kept = found(&store, index as u32).await;
        assert_eq!(&kept, served, "and after a restart");
        for stream in (0..STREAMS).filter(|stream| *stream as usize % 2 == index) {
            let prefix = format!("{stream} ");
            let numbers: Vec<u64> = kept
                .iter()
                .filter_map(|body| body.strip_prefix(&prefix)?.split(' ').next()?.parse().ok())
                .collect();
            assert_eq!(numbers, Vec::from_iter(0..EACH));
        }
    }
    close(store).await;
}

#[tokio::test]
async fn what_is_acknowledged_gets_into_the_file_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_on(directory.path(), Arc::new(RealDisk));
    send(&store, 1, "one").await.unwrap();
    until("a copy of the directory has it", async || {
        let copy = snapshot(directory.path());
        let again = open_on(copy.path(), Arc::new(RealDisk));
        let found = found(&again, 0).await;
        close(again).await;
        found == ["one"]
    })
    .await;
    close(store).await;
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged_refuses_the_rest_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let disk = TestDisk::default();
    let store = open_on(directory.path(), Arc::new(disk.clone()));
    let mut acknowledged = vec!["first".to_owned()];
    send(&store, 0, "first").await.unwrap();
    disk.full.store(true, Ordering::SeqCst);
    let mut refusal = None;
    until("the disk is found full", async || {
        let n = acknowledged.len();
        let body = format!("{n}");
        match send(&store, n as u64, &body).await {
            Ok(position) => {
                assert_eq!(position, n as u64);
                acknowledged.push(body);
            }
            Err(error) => refusal = Some(error),
        }
        refusal.is_some()
    })
    .await;
    assert!(
        matches!(&refusal, Some(AppendError::NotStored(why)) if why.contains("full")),
        "{refusal:?}"
    );
    assert_eq!(found(&store, 0).await, acknowledged, "it is served meanwhile");
    disk.full.store(false, Ordering::SeqCst);
    let position = send(&store, 99, "healed").await.unwrap();
    assert_eq!(position, acknowledged.len() as u64, "no gap");
    acknowledged.push("healed".to_owned());
    assert_eq!(found(&store, 0).await, acknowledged);
    close(store).await;
    let store = open_on(directory.path(), Arc::new(RealDisk));
    assert_eq!(found(&store, 0).await, acknowledged);
    close(store).await;
}

#[tokio::test]
async fn the_first_durable_acknowledgement_covers_what_was_acknowledged_from_memory() {
    for count in 1..20 {
        let disk = FaultDisk::default();
        let store = open_on(Path::new("/data"), Arc::new(disk.clone()));
        let mut sent = Vec::new();
        for n in 0..count {
            sent.push(format!("{n}"));
            send(&store, n, &sent[n as usize]).await.unwrap();
        }
        set(&store, 2, pb::Durability::Fsync);
        sent.push("durable".to_owned());
        send(&store, count, "durable").await.unwrap();
        let after = open_on(Path::new("/data"), Arc::new(disk.restart(Cut::Lost)));
        assert_eq!(found(&after, 0).await, sent);
        close(after).await;
        close(store).await;
    }
}
