//! Stores, configurations and messages for tests.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::broker::channel::Channel;
use crate::broker::counters::Counters;
use crate::broker::log::{Disk, RealDisk};
use crate::broker::store::{
    AppendError, Appended, EntryId, NewMessage, Partition, Store, StoreOptions, StoredMessage,
};
use crate::pb;

/// The topic's uid.
pub(crate) const UID: &str = "uid-1";

/// A disk whose syncs can be held and whose writes can fail.
#[derive(Debug, Default)]
pub(crate) struct TestDisk {
    held: Mutex<bool>,
    released: Condvar,
    pub(crate) full: AtomicBool,
    pub(crate) syncs: AtomicU64,
}

impl TestDisk {
    pub(crate) fn hold_syncs(&self, hold: bool) {
        *self.held.lock() = hold;
        self.released.notify_all();
    }
}

impl Disk for TestDisk {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            // As a full disk does: a part fits.
            RealDisk.write(file, &bytes[..bytes.len() / 2], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        RealDisk.write(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut held = self.held.lock();
        while *held {
            self.released.wait(&mut held);
        }
        drop(held);
        self.syncs.fetch_add(1, Ordering::SeqCst);
        RealDisk.sync(file)
    }
}

pub(crate) fn options(directory: &Path, broker: &str) -> StoreOptions {
    StoreOptions {
        directory: directory.to_owned(),
        broker: broker.to_owned(),
        segment_bytes: 64 << 10,
    }
}

pub(crate) fn open(directory: &Path, broker: &str) -> Arc<Store> {
    Store::open(options(directory, broker), Arc::new(Counters::default())).unwrap()
}

pub(crate) fn chain_entry(epoch: u64, broker: &str, sealed_at: Option<u64>) -> pb::ChainEntry {
    pb::ChainEntry {
        epoch,
        brokers: vec![broker.to_owned()],
        sealed_at,
    }
}

/// A topic with one chain for each partition.
pub(crate) fn topic(name: &str, chains: Vec<Vec<pb::ChainEntry>>) -> pb::TopicConfiguration {
    let partitions = chains
        .into_iter()
        .enumerate()
        .map(|(index, chain)| pb::PartitionConfiguration {
            index: index as u32,
            epoch: chain.last().map_or(0, |entry| entry.epoch),
            chain,
        });
    pb::TopicConfiguration {
        name: name.to_owned(),
        uid: UID.to_owned(),
        partitions: partitions.collect(),
        ..pb::TopicConfiguration::default()
    }
}

pub(crate) fn configuration(
    broker: &str,
    generation: u64,
    topics: Vec<pb::TopicConfiguration>,
) -> pb::Configuration {
    let peer = |name: &str| pb::PeerEndpoint {
        name: name.to_owned(),
        address: name.to_owned(),
        control_address: name.to_owned(),
    };
    pb::Configuration {
        generation,
        broker: broker.to_owned(),
        durability: pb::Durability::Fsync as i32,
        brokers: ["a", "b", "c"].map(peer).to_vec(),
        topics,
        leader_term: 1,
        ..pb::Configuration::default()
    }
}

/// A store of broker "a" with topic "orders" and so many partitions, all open here with epoch 1.
pub(crate) fn simple(directory: &Path, partitions: usize) -> Arc<Store> {
    let store = open(directory, "a");
    let chains = vec![vec![chain_entry(1, "a", None)]; partitions];
    assert_eq!(
        store
            .configure(&configuration("a", 1, vec![topic("orders", chains)]))
            .unwrap(),
        vec![]
    );
    store
}

pub(crate) fn partition(store: &Store, index: usize) -> Arc<Partition> {
    store.topic("orders").unwrap().partitions[index].clone()
}

pub(crate) fn entry(partition: u32, epoch: u64) -> EntryId {
    EntryId {
        topic: "orders".into(),
        topic_uid: UID.into(),
        partition,
        epoch,
    }
}

pub(crate) fn message(sequence: u64, body: &str) -> NewMessage {
    NewMessage {
        body: Bytes::copy_from_slice(body.as_bytes()),
        sequence,
        ..NewMessage::default()
    }
}

/// Appends and waits.
pub(crate) async fn append(
    partition: &Partition,
    producer: &str,
    messages: Vec<NewMessage>,
) -> Result<Vec<Appended>, AppendError> {
    let channel = Channel::new(1000);
    let permit = channel.enter(messages.len() as u32, 1, Instant::now()).await;
    let ticket = partition
        .append(messages, producer, permit)
        .map_err(|refused| refused.error)?;
    ticket.done().await
}

/// All messages of an entry, through the wire's form.
pub(crate) async fn read_all(store: &Store, id: &EntryId) -> Result<Vec<StoredMessage>, String> {
    let mut messages = Vec::new();
    let mut position = 0;
    loop {
        let response = store.read_batches(id, position, 1 << 20).await?;
        for raw in &response.batches {
            let records = crate::broker::log::frame::split(raw).map_err(|at| format!("damaged at {at}"))?;
            let more = crate::broker::partition::read::decode(&records, id.epoch, position);
            position = more.last().map_or(position, |last| last.offset.position() + 1);
            messages.extend(more);
        }
        if position >= response.end_position {
            return Ok(messages);
        }
    }
}

pub(crate) fn bodies(messages: &[StoredMessage]) -> Vec<String> {
    messages
        .iter()
        .map(|message| String::from_utf8_lossy(&message.body).into_owned())
        .collect()
}

/// Lets go of a store and everything of it, as a process does that ends.
pub(crate) async fn close(store: Arc<Store>) {
    store.close().await;
    drop(store);
    tokio::task::yield_now().await;
}

/// Copies a directory as a kill would leave it: without a word to the store.
pub(crate) fn snapshot(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        std::fs::copy(item.path(), to.path().join(item.file_name())).unwrap();
    }
    to
}
