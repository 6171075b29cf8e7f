//! Everything this broker keeps: its topics' partitions on one journal. The face of the core to the service.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;

use super::channel::Permit;
use super::counters::Counters;

/// An offset within a partition: the epoch of the chain's entry above, the position in that entry below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// Bits of the position.
    pub const POSITION_BITS: u32 = 40;

    /// The offset of `position` in the entry of `epoch`.
    pub fn new(epoch: u64, position: u64) -> Self {
        Self((epoch << Self::POSITION_BITS) | (position & ((1 << Self::POSITION_BITS) - 1)))
    }

    /// The epoch of its entry.
    pub fn epoch(self) -> u64 {
        self.0 >> Self::POSITION_BITS
    }

    /// The position in its entry.
    pub fn position(self) -> u64 {
        self.0 & ((1 << Self::POSITION_BITS) - 1)
    }
}

/// One entry of one partition's chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    /// The topic's name.
    pub topic: String,
    /// The MessageTopic's uid.
    pub topic_uid: String,
    /// The partition's index.
    pub partition: u32,
    /// The entry's epoch.
    pub epoch: u64,
}

/// A message on its way in.
#[derive(Debug, Clone, Default)]
pub struct NewMessage {
    /// The key, or empty.
    pub key: Bytes,
    /// Name and value.
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
    /// The publisher's sequence.
    pub sequence: u64,
}

/// A message as it is stored.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// Where it is.
    pub offset: Offset,
    /// The key, or empty.
    pub key: Bytes,
    /// Name and value.
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
    /// The producer that sent it; empty where it gave no id.
    pub producer: String,
    /// The publisher's sequence.
    pub sequence: u64,
    /// When its batch was appended.
    pub published_at: SystemTime,
}

/// How the store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The broker's directory; it and everything in it belong to this broker.
    pub directory: PathBuf,
    /// This broker's name, kept on the disk: a directory of another broker is refused.
    pub broker: String,
    /// The size of a segment file.
    pub segment_bytes: u64,
}

/// What became of one appended message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Where it is.
    pub offset: Offset,
    /// It had been stored before: the same producer sent the same sequence.
    pub duplicate: bool,
}

/// Why an append was refused. Nothing of the batch was stored.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum AppendError {
    /// Another broker owns the partition, or the open entry was sealed here.
    #[error("partition {partition} is owned by {owner:?} since epoch {epoch}")]
    Moved {
        /// The partition.
        partition: u32,
        /// The owner's name; empty while it is not known.
        owner: String,
        /// The epoch of the newest entry this broker knows of.
        epoch: u64,
    },
    /// It cannot append now; try again later.
    #[error("{0}")]
    Unavailable(String),
    /// The disk is full, or the log failed.
    #[error("the log cannot take messages: {0}")]
    Log(String),
}

/// An append that was refused, with what was to be appended, so that it can go elsewhere. The permit is given back.
#[derive(Debug)]
pub struct NotAppended {
    /// Why.
    pub error: AppendError,
    /// The batch as it was given.
    pub messages: Vec<NewMessage>,
}

/// One topic as the operator configured it.
#[derive(Debug, Clone)]
pub struct TopicView {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its partitions, by index.
    pub partitions: Vec<Arc<Partition>>,
    /// How long a delivery may go unacknowledged.
    pub ack_deadline: Duration,
}

/// All that this broker keeps.
#[derive(Debug)]
pub struct Store {}

/// One partition, owned here or not.
#[derive(Debug)]
pub struct Partition {}

/// An append on its way to the disk; wait for it with [`AppendTicket::done`].
#[derive(Debug)]
pub struct AppendTicket {}

/// An entry that is on this broker's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub entry: EntryId,
    /// Nothing is appended to it any more.
    pub sealed: bool,
    /// Positions so far.
    pub positions: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Positions before this one are gone by retention.
    pub start: u64,
}

impl Store {
    /// Opens or makes the store in its directory, recovers what is there. Blocking: call it on a blocking thread.
    ///
    /// # Errors
    /// The directory cannot be used, belongs to another broker, or its log is damaged where it must not be.
    pub fn open(options: StoreOptions, counters: Arc<Counters>) -> Result<Arc<Self>, String> {
        todo!("{options:?} {counters:?}")
    }

    /// Takes the operator's configuration: topics, chains, peers, durability. Idempotent. Refuses an older
    /// generation or leader term. Returns the partitions that are to be open here and cannot take appends yet.
    ///
    /// # Errors
    /// The configuration is stale or for another broker.
    pub fn configure(
        &self,
        configuration: &crate::pb::Configuration,
    ) -> Result<Vec<crate::pb::PartitionProblem>, String> {
        todo!("{configuration:?}")
    }

    /// The newest configuration; `None` before the first one after the boot.
    pub fn configuration(&self) -> watch::Receiver<Option<Arc<crate::pb::Configuration>>> {
        todo!()
    }

    /// The topic, if it is configured.
    pub fn topic(&self, name: &str) -> Option<TopicView> {
        todo!("{name}")
    }

    /// Refuses appends to this entry from now on, durably. Returns its number of positions. Idempotent.
    ///
    /// # Errors
    /// The entry is not here, or the log failed.
    pub async fn seal(&self, entry: &EntryId) -> Result<u64, String> {
        todo!("{entry:?}")
    }

    /// Everything on this disk.
    pub fn held(&self) -> Vec<Held> {
        todo!()
    }

    /// Deletes a sealed entry that the configuration does not place here.
    ///
    /// # Errors
    /// The configuration still places it here, or it is open.
    pub async fn drop_entry(&self, entry: &EntryId) -> Result<(), String> {
        todo!("{entry:?}")
    }

    /// Whole batches of an entry as they are on disk, from the one that holds `position`.
    ///
    /// # Errors
    /// The entry is not here, the position is gone by retention, or the data is damaged.
    pub async fn read_batches(
        &self,
        entry: &EntryId,
        position: u64,
        max_bytes: u64,
    ) -> Result<crate::pb::ReadResponse, String> {
        todo!("{entry:?} {position} {max_bytes}")
    }

    /// What the next owner must know of a sealed entry.
    ///
    /// # Errors
    /// The entry is not here or is not sealed.
    pub async fn handoff(&self, entry: &EntryId) -> Result<crate::pb::HandoffResponse, String> {
        todo!("{entry:?}")
    }

    /// Starts copying a sealed entry from another broker, or says how far it is.
    ///
    /// # Errors
    /// The request contradicts what is here.
    pub async fn copy(&self, request: &crate::pb::CopyRequest) -> Result<crate::pb::CopyResponse, String> {
        todo!("{request:?}")
    }

    /// Stops taking appends, commits what was let in, and closes the log.
    pub async fn close(&self) {
        todo!()
    }

    /// The 99th percentile of fdatasync since the last call, in nanoseconds.
    pub fn take_fdatasync_p99(&self) -> u64 {
        todo!()
    }

    /// Messages that some group has not done yet, and the age of the oldest.
    pub fn unconsumed(&self) -> (u64, Duration) {
        todo!()
    }

    /// Messages accepted so far by each partition that is open here: topic, partition, epoch, count.
    pub fn led(&self) -> BTreeMap<(String, u32), (u64, u64)> {
        todo!()
    }
}

impl Partition {
    /// Its index.
    pub fn index(&self) -> u32 {
        todo!()
    }

    /// Whether appends are taken here; otherwise the owner's name (empty while unknown) and the epoch.
    pub fn owner(&self) -> (bool, String, u64) {
        todo!()
    }

    /// Queues a batch for the log, in the order of the calls, and returns at once. The permit is given back when
    /// the batch is committed. With a producer, messages it has stored before are not stored again.
    ///
    /// # Errors
    /// The batch was refused as a whole.
    pub fn append(
        &self,
        messages: Vec<NewMessage>,
        producer: &str,
        permit: Permit,
    ) -> Result<AppendTicket, NotAppended> {
        todo!("{messages:?} {producer} {permit:?}")
    }
}

impl AppendTicket {
    /// Waits until the batch is as durable as the cluster's durability says. One result for each message.
    ///
    /// # Errors
    /// The log failed; the batch may or may not be on the disk.
    pub async fn done(self) -> Result<Vec<Appended>, AppendError> {
        todo!()
    }
}
