//! Reading a partition's messages, wherever its entries are.

use std::time::SystemTime;

use super::{Offset, Store, StoredMessage};
use crate::broker::group::Start;
use crate::broker::log::frame;
use crate::broker::partition::entry::Phase;
use crate::broker::partition::index::Part;
use crate::broker::partition::read::{self, ReadError};
use crate::broker::partition::{Link, Partition};
use crate::pb;

/// Bytes that are asked of another broker at a time.
const PEER_BYTES: u64 = 256 << 10;

impl Store {
    /// Messages from an offset on, as many as lie together: from this disk, or from the broker that has the entry.
    pub(crate) async fn read_messages(
        &self,
        partition: &Partition,
        offset: Offset,
    ) -> Result<Vec<StoredMessage>, ReadError> {
        let id = partition.entry_id(offset.epoch());
        if let Some(entry) = self.registry.get(&id)
            && !matches!(entry.state().phase, Phase::Copying { .. })
        {
            return read::messages(&self.journal, &entry, offset.position()).await;
        }
        let link = partition
            .view()
            .sealed
            .iter()
            .find(|link| link.epoch == offset.epoch())
            .cloned();
        let link = link.ok_or_else(|| {
            ReadError::Unavailable(format!("epoch {} is not in the chain any more", offset.epoch()))
        })?;
        self.read_from_peers(partition, &link, offset.position()).await
    }

    async fn read_from_peers(
        &self,
        partition: &Partition,
        link: &Link,
        position: u64,
    ) -> Result<Vec<StoredMessage>, ReadError> {
        let peers = self.peers().map_err(ReadError::Unavailable)?;
        let id = partition.entry_id(link.epoch);
        let mut problem = format!("no broker holds epoch {}", link.epoch);
        for broker in link.brokers.iter().filter(|broker| **broker != self.broker) {
            let request = pb::ReadRequest {
                entry: Some(id.to_wire()),
                position,
                max_bytes: PEER_BYTES,
            };
            let read = match self.control_address(broker) {
                Ok(address) => peers.read(&address, request).await,
                Err(why) => Err(why),
            };
            let response = match read {
                Ok(response) => response,
                Err(why) => {
                    problem = format!("broker {broker}, which holds epoch {}: {why}", link.epoch);
                    continue;
                }
            };
            if response.start_position > position {
                return Err(ReadError::Gone(response.start_position));
            }
            let mut batches = Vec::new();
            for raw in &response.batches {
                match frame::split(raw) {
                    Ok(records) => batches.extend(records),
                    Err(_) => break,
                }
            }
            let messages = read::decode(&batches, link.epoch, position);
            if !messages.is_empty() {
                return Ok(messages);
            }
            problem = format!(
                "broker {broker} brings nothing at position {position} of epoch {}",
                link.epoch
            );
        }
        Err(ReadError::Unavailable(problem))
    }

    /// The first position of a part whose record has this time or a later one: exact to the batch. A part of a finished
    /// segment is looked up in that segment's index, a small read.
    fn since(&self, entry: u32, part: &Part, millis: u64) -> u64 {
        match part {
            Part::Run(run) if run.first < millis => match self.journal.pieces(entry, run) {
                Ok(pieces) => {
                    let index = pieces.partition_point(|piece| piece.timestamp < millis);
                    pieces.get(index).map_or(run.base, |piece| piece.base)
                }
                Err(error) => {
                    tracing::warn!(%error, "an index cannot be read: a start by time begins too early");
                    run.base
                }
            },
            part => part.base(),
        }
    }

    /// Where a group starts that has no progress in a partition.
    pub(crate) fn start_offset(&self, partition: &Partition, start: Start) -> Offset {
        let spans = partition.spans(&self.registry);
        match start {
            Start::Earliest => Offset(spans.first().map_or(0, |span| span.start)),
            Start::Latest => Offset(spans.last().map_or(0, |span| span.end)),
            Start::Offset(offset) => offset,
            Start::Time(time) => {
                // The journal keeps whole milliseconds, rounded down.
                let since = time.duration_since(SystemTime::UNIX_EPOCH);
                let millis = since.map_or(0, |since| since.as_millis() as u64);
                let mut found = spans.last().map_or(0, |span| span.end);
                // Backwards, up to the first entry that has something older. What an entry elsewhere has is not
                // known: it may be new enough.
                for span in spans.iter().rev() {
                    let offset = Offset(span.start);
                    let Some(entry) = self.registry.get(&partition.entry_id(offset.epoch())) else {
                        found = span.start;
                        continue;
                    };
                    let (since, start, older) = {
                        let state = entry.state();
                        let older = state.index.first().is_some_and(|first| first.first() < millis);
                        (state.index.since(millis), state.start, older)
                    };
                    if let Some(part) = since {
                        let base = self.since(entry.number, &part, millis);
                        found = Offset::new(offset.epoch(), base.max(start)).0;
                    }
                    if older {
                        break;
                    }
                }
                Offset(found)
            }
        }
    }
}
