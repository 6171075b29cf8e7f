//! Moving partitions: seal, read, handoff, drop.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{EntryId, Store};
use crate::broker::partition::entry::{Entry, Phase};
use crate::broker::partition::ops::{Change, EntryOp};
use crate::broker::partition::progress::Progress;
use crate::broker::partition::read::{self, ReadError};
use crate::broker::partition::{Link, Partition, Producers};
use crate::pb;

/// Until a handoff that failed is tried again, at first.
const FIRST_WAIT: Duration = Duration::from_millis(50);

impl Store {
    /// Refuses appends to this entry from now on, durably. Returns its number of positions. Idempotent.
    ///
    /// # Errors
    /// The entry is not here, or the log failed.
    pub async fn seal(&self, id: &EntryId) -> Result<u64, String> {
        let entry = self.entry(id)?;
        let (partition, answer) = {
            let _no_configuration_meanwhile = self.configuring.lock();
            let partition = self
                .find_topic(&id.topic)
                .and_then(|topic| topic.partition(id.partition));
            let partition = partition.filter(|partition| partition.entry_id(id.epoch) == *id);
            if let Some(partition) = &partition {
                partition.begin_seal(id);
            }
            let (op, answer) = EntryOp::new(&entry, Change::Seal);
            self.journal.submit(op);
            (partition, answer)
        };
        let ending = EndSeal {
            partition,
            entry: &entry,
        };
        let sealed = answer
            .await
            .map_err(|_| "the broker stopped".to_owned())?
            .map_err(|e| e.to_string());
        drop(ending);
        sealed
    }

    /// Deletes a sealed entry that the configuration does not place here. Idempotent.
    ///
    /// # Errors
    /// There is no configuration since the boot, it still places the entry here, or the entry is open.
    pub async fn drop_entry(&self, id: &EntryId) -> Result<(), String> {
        let entry = {
            let _no_configuration_meanwhile = self.configuring.lock();
            if self.configuration.borrow().is_none() {
                return Err("not before the first configuration after the boot".to_owned());
            }
            if self.is_placed(id) {
                return Err("the configuration places it here".to_owned());
            }
            let Some(entry) = self.registry.get(id) else {
                return Ok(());
            };
            match entry.state().phase {
                Phase::Open | Phase::Opening => return Err("it is open; seal it first".to_owned()),
                Phase::Sealed | Phase::Copying { .. } | Phase::Dropped => {}
            }
            self.stop_copy(id);
            entry
        };
        let (op, answer) = EntryOp::new(&entry, Change::Drop(Arc::clone(&self.registry)));
        self.journal.submit(op);
        answer
            .await
            .map_err(|_| "the broker stopped".to_owned())?
            .map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Whole batches of an entry as they are on disk, from the one that holds `position`.
    ///
    /// # Errors
    /// The entry is not here, the position is gone by retention, or the data is damaged.
    pub async fn read_batches(
        &self,
        id: &EntryId,
        position: u64,
        max_bytes: u64,
    ) -> Result<pb::ReadResponse, String> {
        const MOST: u64 = 4 << 20;
        let entry = self.entry(id)?;
        let max_bytes = max_bytes.clamp(1, MOST);
        let mut batches: Vec<Bytes> = Vec::new();
        let mut bytes = 0;
        let mut next = position.max(entry.state().start);
        'pieces: while bytes < max_bytes {
            let (piece, raw) = match read::piece(&self.journal, &entry, next).await {
                Ok(Some(found)) => found,
                Err(error) if batches.is_empty() => return Err(error.to_string()),
                Ok(None) | Err(_) => break,
            };
            for record in read::records(&entry, &raw, &piece) {
                if record.end <= next {
                    continue;
                }
                match record.good {
                    Some(_) => {
                        bytes += record.raw.len() as u64;
                        batches.push(record.raw);
                        next = record.end;
                    }
                    None if batches.is_empty() => return Err(ReadError::Damaged(record.end).to_string()),
                    None => break 'pieces,
                }
            }
        }
        let state = entry.state();
        Ok(pb::ReadResponse {
            batches,
            next_position: next,
            end_position: state.committed,
            sealed: state.is_sealed(),
            start_position: state.start,
        })
    }

    /// What the next owner must know of a sealed entry.
    ///
    /// # Errors
    /// The entry is not here or is not sealed.
    pub async fn handoff(&self, id: &EntryId) -> Result<pb::HandoffResponse, String> {
        let entry = self.entry(id)?;
        let state = entry.state();
        if !state.is_sealed() {
            return Err(format!("epoch {} is not sealed here", id.epoch));
        }
        if state.needs_handoff {
            return Err(format!(
                "epoch {} never got the handoff of the one before",
                id.epoch
            ));
        }
        let producers = state.producers.iter().map(|(producer, window)| {
            let (sequences, offsets) = window.iter().unzip();
            pb::ProducerState {
                producer_id: producer.clone(),
                sequences,
                offsets,
            }
        });
        Ok(pb::HandoffResponse {
            groups: state
                .groups
                .iter()
                .map(|(group, progress)| progress.to_wire(group))
                .collect(),
            producers: producers.collect(),
        })
    }

    pub(super) fn entry(&self, id: &EntryId) -> Result<Arc<Entry>, String> {
        self.registry.get(id).ok_or_else(|| {
            format!(
                "epoch {} of {}/{} (uid {}) is not here",
                id.epoch, id.topic, id.partition, id.topic_uid
            )
        })
    }

    /// The oldest of a partition's entries on this disk that has not got the state of the one before it. It may be sealed:
    /// a partition can be moved on before that came.
    pub(crate) fn waits_for_handoff(&self, partition: &Partition) -> Option<Arc<Entry>> {
        let view = partition.view();
        let sealed = view.sealed.iter().map(|link| partition.entry_id(link.epoch));
        let mut entries = sealed
            .filter_map(|id| self.registry.get(&id))
            .chain(view.open.clone());
        entries.find(|entry| entry.state().needs_handoff)
    }

    /// Fetches the states that a partition's entries on this disk wait for, in the background, until they are here or not
    /// needed any more.
    pub(super) fn fetch_handoffs(&self, partition: &Arc<Partition>) {
        let (Ok(runtime), Some(store)) = (tokio::runtime::Handle::try_current(), self.me.upgrade()) else {
            return;
        };
        if self.waits_for_handoff(partition).is_none() || !partition.begin_handoff() {
            return;
        }
        let partition = Arc::clone(partition);
        let store = Arc::downgrade(&store);
        runtime.spawn(async move {
            let mut wait = FIRST_WAIT;
            while let Some(store) = store.upgrade() {
                let next = || store.waits_for_handoff(&partition).filter(|_| !store.is_closed());
                let Some(entry) = next() else {
                    partition.end_handoff();
                    // One may have come to wait in this very moment, and found that somebody is at it.
                    if next().is_none() || !partition.begin_handoff() {
                        return;
                    }
                    continue;
                };
                let epoch = entry.id.epoch;
                match store.import_handoff(&partition, &entry).await {
                    Ok(()) => {
                        partition.set_problem(epoch, None);
                        wait = FIRST_WAIT;
                    }
                    Err(why) => {
                        tracing::warn!(?partition, epoch, why, "no handoff yet");
                        partition.set_problem(epoch, Some(format!("no handoff of the entry before: {why}")));
                        drop(store);
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(Duration::from_secs(2));
                    }
                }
            }
            partition.end_handoff();
        });
    }

    /// Takes in what the owner before knew of its entry.
    ///
    /// # Errors
    /// It cannot be reached or has not sealed the entry, or the log failed.
    pub(crate) async fn import_handoff(
        &self,
        partition: &Arc<Partition>,
        entry: &Arc<Entry>,
    ) -> Result<(), String> {
        let before = {
            let view = partition.view();
            let mut older = view.sealed.iter().rev();
            older.find(|link| link.epoch < entry.id.epoch).cloned()
        };
        let response = match before {
            Some(link) => self.handoff_of(partition, &link).await?,
            // The chain has no older entry any more: there is nothing to come.
            None => pb::HandoffResponse::default(),
        };
        let change = handoff_change(response, crate::broker::clock::now_millis());
        let answer = partition.submit(entry, change);
        answer
            .await
            .map_err(|_| "the broker stopped".to_owned())?
            .map_err(|e| e.to_string())?;
        Ok(())
    }

    async fn handoff_of(&self, partition: &Partition, link: &Link) -> Result<pb::HandoffResponse, String> {
        let id = partition.entry_id(link.epoch);
        if self
            .registry
            .get(&id)
            .is_some_and(|entry| entry.state().is_sealed())
        {
            return self.handoff(&id).await;
        }
        let peers = self.peers()?;
        let mut problem = "no broker holds it".to_owned();
        for broker in link.brokers.iter().filter(|broker| **broker != self.broker) {
            let request = pb::HandoffRequest {
                entry: Some(id.to_wire()),
            };
            let address = self.control_address(broker)?;
            match peers.handoff(&address, request).await {
                Ok(response) => return Ok(response),
                Err(why) => problem = format!("broker {broker}: {why}"),
            }
        }
        Err(problem)
    }
}

/// Takes the mark of a seal under way back, also where the caller goes away.
struct EndSeal<'a> {
    partition: Option<Arc<Partition>>,
    entry: &'a Arc<Entry>,
}

impl Drop for EndSeal<'_> {
    fn drop(&mut self) {
        if let Some(partition) = &self.partition {
            // Without an answer it may still be queued: appends behind it are refused by the journal's thread.
            let sealed = self.entry.state().is_sealed();
            partition.end_seal(self.entry, sealed);
        }
    }
}

/// The change that takes a handoff in.
pub(super) fn handoff_change(response: pb::HandoffResponse, now: u64) -> Change {
    let groups = response
        .groups
        .iter()
        .map(|group| (group.group.clone(), Progress::from_wire(group)))
        .collect();
    let mut producers = Producers::default();
    for state in response.producers {
        let pairs = state.sequences.into_iter().zip(state.offsets);
        producers.adopt(state.producer_id, pairs, now);
    }
    Change::Handoff(groups, producers)
}

impl EntryId {
    /// As the wire has it.
    pub fn to_wire(&self) -> pb::EntryId {
        pb::EntryId {
            topic: self.topic.clone(),
            partition: self.partition,
            epoch: self.epoch,
            topic_uid: self.topic_uid.clone(),
        }
    }

    /// From the wire.
    pub fn from_wire(wire: &pb::EntryId) -> Self {
        Self {
            topic: wire.topic.clone(),
            topic_uid: wire.topic_uid.clone(),
            partition: wire.partition,
            epoch: wire.epoch,
        }
    }
}
