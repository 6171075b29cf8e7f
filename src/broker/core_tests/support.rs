//! Stores, configurations and messages for tests.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::broker::channel::Channel;
use crate::broker::counters::Counters;
use crate::broker::log::{Disk, DiskFile, RealDisk};
use crate::broker::service::{Limits, Parts, Peers, Shared};
use crate::broker::store::{
    AppendError, Appended, EntryId, NewMessage, Partition, Store, StoreOptions, StoredMessage, partition_of,
};
use crate::pb;

/// The topic's uid.
pub(crate) const UID: &str = "uid-1";

/// A real disk whose syncs can be held or fail and whose writes can fail. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct TestDisk(Arc<Faults>);

#[derive(Debug, Default)]
pub(crate) struct Faults {
    held: Mutex<bool>,
    released: Condvar,
    pub(crate) full: AtomicBool,
    pub(crate) failing_syncs: AtomicBool,
    /// Syncs that have begun, and those that were done.
    pub(crate) syncing: AtomicU64,
    pub(crate) syncs: AtomicU64,
}

impl std::ops::Deref for TestDisk {
    type Target = Faults;

    fn deref(&self) -> &Faults {
        &self.0
    }
}

impl Faults {
    pub(crate) fn hold_syncs(&self, hold: bool) {
        *self.held.lock() = hold;
        self.released.notify_all();
    }
}

impl Disk for TestDisk {
    fn claim(&self, directory: &Path, broker: &str) -> Result<Box<dyn Any + Send + Sync>, String> {
        RealDisk.claim(directory, broker)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(directory)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.open(path)?;
        Ok(Arc::new(TestFile(self.clone(), file)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.create(path)?;
        Ok(Arc::new(TestFile(self.clone(), file)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn fail(&self, why: &str) -> ! {
        RealDisk.fail(why)
    }
}

#[derive(Debug)]
struct TestFile(TestDisk, Arc<dyn DiskFile>);

impl DiskFile for TestFile {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.read(buffer, offset)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.0.full.load(Ordering::SeqCst) {
            // As a full disk does: a part fits.
            self.1.write(&bytes[..bytes.len() / 2], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.1.write(bytes, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.1.size()
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        self.1.resize(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.syncing.fetch_add(1, Ordering::SeqCst);
        let mut held = self.0.held.lock();
        while *held {
            self.0.released.wait(&mut held);
        }
        drop(held);
        if self.0.failing_syncs.load(Ordering::SeqCst) {
            return Err(io::Error::other("the device reports an error"));
        }
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        self.1.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.1.sync_all()
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

/// What the operator asks for where an entry is to be copied. Here brokers are reached by their names.
pub(crate) fn copy_request(id: &EntryId, sealed_at: u64, from: &str) -> pb::CopyRequest {
    pb::CopyRequest {
        entry: Some(id.to_wire()),
        sealed_at,
        from_broker: from.to_owned(),
        from_control_address: from.to_owned(),
    }
}

/// All messages that are kept of an entry, through the wire's form.
pub(crate) async fn read_all(store: &Store, id: &EntryId) -> Result<Vec<StoredMessage>, String> {
    let mut messages = Vec::new();
    let mut position = store.registry.get(id).map_or(0, |entry| entry.state().start);
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

/// The service's state over a store of broker "a".
pub(crate) fn shared(store: &Arc<Store>) -> Arc<Shared> {
    Shared::new(Parts {
        name: "a".to_owned(),
        cluster: String::new(),
        store: Arc::clone(store),
        counters: Arc::default(),
        peers: Arc::new(Peers::new()),
        limits: Limits {
            max_connections: 10,
            max_streams_per_connection: 1,
            max_message_bytes: 1 << 20,
            max_inflight_bytes: 4 << 20,
        },
        channel_capacity: 64,
        topic_wait: Duration::ZERO,
    })
}

/// Lets go of a store and everything of it, as a process does that ends.
pub(crate) async fn close(store: Arc<Store>) {
    store.close().await;
    // A look at retention that has begun holds on to it, and with it to the directory. By the real clock, since a test's may stand.
    let began = Instant::now();
    while Arc::strong_count(&store) > 1 && began.elapsed().as_secs() < 60 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Arc::strong_count(&store), 1, "somebody still has the store");
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

/// Stores that reach each other by name, unless they are cut off.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    stores: Mutex<std::collections::BTreeMap<String, std::sync::Weak<Store>>>,
    pub(crate) cut: AtomicBool,
    pub(crate) reads: AtomicU64,
}

impl Wire {
    pub(crate) fn join(self: &Arc<Self>, name: &str, store: &Arc<Store>) {
        self.stores.lock().insert(name.to_owned(), Arc::downgrade(store));
        store.set_peers(Arc::<Self>::clone(self));
        store.set_dead_letters(Arc::<Self>::clone(self));
    }

    fn find(&self, name: &str) -> Result<Arc<Store>, String> {
        if self.cut.load(Ordering::SeqCst) {
            return Err("cut off".to_owned());
        }
        self.stores
            .lock()
            .get(name)
            .and_then(std::sync::Weak::upgrade)
            .ok_or_else(|| "not there".to_owned())
    }
}

impl crate::broker::peer::PeerReader for Wire {
    fn read<'a>(
        &'a self,
        control_address: &'a str,
        request: pb::ReadRequest,
    ) -> crate::broker::peer::PeerFuture<'a, pb::ReadResponse> {
        Box::pin(async move {
            self.reads.fetch_add(1, Ordering::SeqCst);
            self.find(control_address)?.answer_read(request).await
        })
    }

    fn handoff<'a>(
        &'a self,
        control_address: &'a str,
        request: pb::HandoffRequest,
    ) -> crate::broker::peer::PeerFuture<'a, pb::HandoffResponse> {
        Box::pin(async move {
            let id = EntryId::from_wire(&request.entry.unwrap());
            self.find(control_address)?.handoff(&id).await
        })
    }
}

impl crate::broker::peer::DeadLetters for Wire {
    fn publish<'a>(
        &'a self,
        topic: &'a str,
        producer: &'a str,
        message: NewMessage,
    ) -> crate::broker::peer::PeerFuture<'a, ()> {
        Box::pin(async move {
            let names: Vec<String> = self.stores.lock().keys().cloned().collect();
            for name in names {
                let partitions = self.find(&name)?.topic(topic).map(|topic| topic.partitions);
                let Some(partitions) = partitions.filter(|partitions| !partitions.is_empty()) else {
                    continue;
                };
                let index = partition_of(&message.key, producer, partitions.len() as u32);
                let partition = &partitions[index as usize];
                if partition.is_ours() {
                    let ticket = partition
                        .append_with(vec![message], producer, None, None)
                        .map_err(|refused| refused.error.to_string())?;
                    return ticket.done().await.map(drop).map_err(|error| error.to_string());
                }
            }
            Err("nobody takes it".to_owned())
        })
    }
}

/// Configures a store with one topic "orders" of one partition.
pub(crate) fn place(store: &Store, broker: &str, generation: u64, chain: Vec<pb::ChainEntry>) -> Vec<String> {
    let configuration = configuration(broker, generation, vec![topic("orders", vec![chain])]);
    store
        .configure(&configuration)
        .unwrap()
        .into_iter()
        .map(|problem| problem.reason)
        .collect()
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

pub(crate) const ALL: crate::broker::group::Budget = crate::broker::group::Budget {
    messages: 10_000,
    bytes: 1 << 30,
};

/// The next deliveries; what cannot be served is passed over.
pub(crate) async fn deliveries(
    member: &mut crate::broker::group::Member,
    budget: crate::broker::group::Budget,
) -> Vec<crate::broker::group::Delivered> {
    loop {
        match member.next(budget).await {
            crate::broker::group::Next::Deliveries(delivered) => return delivered,
            crate::broker::group::Next::Unavailable(..) => {}
            crate::broker::group::Next::Gone => panic!("the topic is gone"),
        }
    }
}

/// So many deliveries, in as many calls as it takes.
pub(crate) async fn take(
    member: &mut crate::broker::group::Member,
    count: usize,
) -> Vec<crate::broker::group::Delivered> {
    let mut all = Vec::new();
    while all.len() < count {
        let messages = (count - all.len()) as u64;
        let budget = crate::broker::group::Budget { messages, ..ALL };
        let wait = std::time::Duration::from_secs(60);
        all.extend(
            tokio::time::timeout(wait, deliveries(member, budget))
                .await
                .expect("messages come"),
        );
    }
    all
}

pub(crate) fn texts(delivered: &[crate::broker::group::Delivered]) -> Vec<String> {
    delivered
        .iter()
        .map(|one| String::from_utf8_lossy(&one.message.body).into_owned())
        .collect()
}

/// Whether nothing comes for a while.
pub(crate) async fn nothing_comes(member: &mut crate::broker::group::Member) -> bool {
    let wait = std::time::Duration::from_millis(300);
    tokio::time::timeout(wait, deliveries(member, ALL)).await.is_err()
}

/// Acknowledges everything.
pub(crate) async fn ack(
    member: &crate::broker::group::Member,
    delivered: &[crate::broker::group::Delivered],
) {
    let answers = delivered
        .iter()
        .map(|one| (one.token.clone(), crate::broker::group::Answer::Ack))
        .collect();
    assert!(member.settle(answers).await.iter().all(Result::is_ok));
}

/// A store with one partition of "orders" that has so many messages: m0, m1, ...
pub(crate) async fn filled(directory: &Path, messages: u64) -> Arc<Store> {
    let store = simple(directory, 1);
    let batch = (0..messages).map(|n| message(n, &format!("m{n}"))).collect();
    append(&partition(&store, 0), "", batch).await.unwrap();
    store
}

/// A member of group "g" of "orders", from the beginning.
pub(crate) fn join(store: &Arc<Store>) -> crate::broker::group::Member {
    let start = crate::broker::group::Start::Earliest;
    crate::broker::group::Member::join(store, "orders", "g", start).unwrap()
}
