//! What is published, and where a group starts to read.

use std::time::SystemTime;

use bytes::Bytes;

use crate::pb;

/// One message to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Decides the partition, as [`crate::api::partitioner`] says; empty: the publisher spreads.
    pub key: Bytes,
    /// Names and values, in their order.
    pub headers: Vec<(String, Bytes)>,
    /// The content.
    pub body: Bytes,
    /// The partition, where the caller chooses it; otherwise by key.
    pub partition: Option<u32>,
}

impl Message {
    /// A message without a key and headers.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    /// The same with this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = key.into();
        self
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same for this partition, whatever its key.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// Bytes that a payload counts for: key, headers and body, and what framing adds at most, so that it is never less
/// than what a broker counts.
pub(crate) fn payload_bytes(message: &Message) -> u64 {
    const FRAME: usize = 40;
    let headers: usize = message
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + 16)
        .sum();
    (message.key.len() + message.body.len() + headers + FRAME) as u64
}

/// Where a group starts in a partition in which it has no progress yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message kept.
    #[default]
    Earliest,
    /// At the next one.
    Latest,
    /// At this offset, or the first one after it.
    Offset(u64),
    /// At the first message appended at or after this time.
    Time(SystemTime),
}

impl From<Start> for pb::StartPosition {
    fn from(start: Start) -> Self {
        use pb::start_position::Start as Wire;
        let start = match start {
            Start::Earliest => Wire::Earliest(true),
            Start::Latest => Wire::Latest(true),
            Start::Offset(offset) => Wire::Offset(offset),
            Start::Time(time) => Wire::Time(time.into()),
        };
        Self { start: Some(start) }
    }
}
