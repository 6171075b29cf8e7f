//! Reading a partition's messages, wherever its entries are.

use super::{Offset, Store, StoredMessage};
use crate::broker::log::frame;
use crate::broker::partition::entry::Phase;
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
                since: None,
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
}
