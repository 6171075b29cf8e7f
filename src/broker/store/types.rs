//! What goes in and out of the store.

use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;

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

/// Why an append was refused. Nothing of the batch was stored, but for [`AppendError::Log`].
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
    /// It can never be stored as it is: a sequence so old that nobody knows whether it was stored.
    #[error("{0}")]
    Refused(String),
    /// The disk is full, or a batch before it on its stream was not stored: nothing of it was stored.
    #[error("the log cannot take messages: {0}")]
    NotStored(String),
    /// The log failed while it was being written: it may be stored or not.
    #[error("the log cannot take messages: {0}")]
    Log(String),
}

/// What is damaged on this broker's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamageFound {
    /// Messages that a read, the check in the background or the start found damaged, and that are not served.
    pub messages: u64,
    /// Segments that are kept because of it.
    pub segments: u64,
}

/// An append that was refused, with what was to be appended, so that it can go elsewhere. The permit is given back.
#[derive(Debug)]
pub struct NotAppended {
    /// Why.
    pub error: AppendError,
    /// The batch as it was given.
    pub messages: Vec<NewMessage>,
}

/// An entry that is on this broker's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub entry: EntryId,
    /// Nothing is appended to it any more: it is sealed, or a copy, which may not be whole yet.
    pub sealed: bool,
    /// Positions so far.
    pub positions: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Positions before this one are gone by retention.
    pub start: u64,
}
