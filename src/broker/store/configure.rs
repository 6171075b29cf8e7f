//! Taking the operator's configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::topic::{Settings, Topic};
use super::{EntryId, Store};
use crate::broker::partition::entry::{Entry, EntryState, Phase, Watcher};
use crate::broker::partition::ops::{Change, TermOp};
use crate::broker::partition::{Link, Partition, SEALED_HERE, View};
use crate::pb;

impl Store {
    /// Takes the operator's configuration: topics, chains, peers, durability. Idempotent. Refuses an older
    /// generation or leader term. Returns the partitions that are to be open here and cannot take appends yet.
    ///
    /// It does not wait for the disk: the record that opens an entry is queued before any append to it.
    ///
    /// # Errors
    /// The configuration is stale or for another broker.
    pub fn configure(&self, configuration: &pb::Configuration) -> Result<Vec<pb::PartitionProblem>, String> {
        let _one_at_a_time = self.configuring.lock();
        self.check_fresh(configuration)?;
        let term = configuration.leader_term;
        if self.registry.term.fetch_max(term, Ordering::Relaxed) < term {
            self.journal
                .submit(Box::new(TermOp(Arc::clone(&self.registry), term)));
        }
        self.journal
            .set_fsync(configuration.durability() != pb::Durability::Memory);
        // Known at once, since an entry that is opened below looks up its peers in it. It is announced when all of it
        // is in place: who waits for a topic looks once when it is told, and would miss one that came a moment later.
        self.configuration.send_if_modified(|known| {
            *known = Some(Arc::new(configuration.clone()));
            false
        });

        let mut topics = BTreeMap::new();
        let mut problems = Vec::new();
        for wanted in &configuration.topics {
            let topic = self
                .find_topic(&wanted.name)
                .filter(|known| known.uid == wanted.uid)
                .unwrap_or_else(|| Topic::new(&wanted.name, &wanted.uid));
            topic.set_settings(Settings::from_wire(wanted));
            let partitions = wanted.partitions.iter().map(|partition| {
                let known = topic.partition(partition.index);
                let known = known.unwrap_or_else(|| {
                    Partition::new(&wanted.name, &wanted.uid, partition.index, &self.journal)
                });
                if let Some(reason) = self.place(&known, partition) {
                    problems.push(pb::PartitionProblem {
                        topic: wanted.name.clone(),
                        partition: partition.index,
                        reason,
                    });
                }
                self.fetch_handoffs(&known);
                known
            });
            let mut partitions: Vec<_> = partitions.collect();
            partitions.sort_by_key(|partition| partition.index());
            topic.set_partitions(partitions);
            topics.insert(wanted.name.clone(), topic);
        }
        let before = std::mem::replace(&mut *self.topics.write(), topics.clone());
        for (name, topic) in before {
            if topics.get(&name).is_none_or(|now| !Arc::ptr_eq(now, &topic)) {
                for partition in topic.partitions() {
                    partition.set_view(View::default());
                }
                topic.set_gone();
            }
        }
        for hub in topics.values().flat_map(|topic| topic.hubs()) {
            hub.refresh();
        }
        self.start_background();
        self.configuration.send_modify(|_| ());
        Ok(problems)
    }

    fn check_fresh(&self, new: &pb::Configuration) -> Result<(), String> {
        if new.broker != self.broker {
            return Err(format!(
                "this configuration is for broker {:?}, this is {:?}",
                new.broker, self.broker
            ));
        }
        let term = self.registry.term.load(Ordering::Relaxed);
        if new.leader_term < term {
            return Err(format!(
                "leader term {} is over, this broker has seen {term}",
                new.leader_term
            ));
        }
        match &*self.configuration.borrow() {
            Some(old) if old.leader_term == new.leader_term && new.generation < old.generation => Err(
                format!("generation {} is older than {}", new.generation, old.generation),
            ),
            _ => Ok(()),
        }
    }

    /// Brings one partition to what is wanted of it. Returns why the open entry, if it is to be here, takes no appends.
    fn place(&self, partition: &Arc<Partition>, wanted: &pb::PartitionConfiguration) -> Option<String> {
        let newest = self.newest_epoch(partition);
        let epoch = wanted.chain.last().map_or(wanted.epoch, |entry| entry.epoch);
        if epoch < newest {
            return Some(format!("epoch {epoch} is stale: epoch {newest} is known here"));
        }
        let link = |entry: &pb::ChainEntry| Link {
            epoch: entry.epoch,
            sealed_at: entry.sealed_at,
            brokers: entry.brokers.clone(),
        };
        let mut view = View {
            epoch,
            ..View::default()
        };
        let Some((last, before)) = wanted.chain.split_last() else {
            partition.set_view(view);
            return None;
        };
        view.sealed = before.iter().map(link).collect();
        if last.sealed_at.is_some() {
            view.sealed.push(link(last));
            partition.set_view(view);
            return None;
        }
        view.owner = last.brokers.first().cloned().unwrap_or_default();
        if view.owner == self.broker {
            let predecessor = before.last();
            match self.open_entry(partition, &partition.entry_id(last.epoch), predecessor.is_some()) {
                Ok(entry) => {
                    let watcher: std::sync::Weak<dyn Watcher> = Arc::downgrade(partition) as _;
                    entry.watch(watcher);
                    if entry.state().needs_handoff {
                        let from = predecessor.and_then(|entry| entry.brokers.first());
                        view.problem =
                            from.map(|from| format!("waiting for the handoff of epoch {epoch} from {from}"));
                    }
                    view.open = Some(entry);
                }
                Err(problem) => view.problem = Some(problem),
            }
        }
        let problem = view.problem.clone();
        partition.set_view(view);
        problem
    }

    fn newest_epoch(&self, partition: &Partition) -> u64 {
        let id = partition.entry_id(0);
        let on_disk = self
            .registry
            .newest_epoch(&id.topic, &id.topic_uid, id.partition)
            .unwrap_or(0);
        on_disk.max(partition.view().epoch)
    }

    fn open_entry(
        &self,
        partition: &Partition,
        id: &EntryId,
        has_predecessor: bool,
    ) -> Result<Arc<Entry>, String> {
        if let Some(entry) = self.registry.get(id) {
            let phase = entry.state().phase;
            return match phase {
                Phase::Open | Phase::Opening if partition.is_sealing(id) => {
                    Err("being sealed here".to_owned())
                }
                Phase::Open => Ok(entry),
                Phase::Opening => {
                    // The disk may have been full. It is written once, however often it is asked for.
                    drop(partition.submit(&entry, Change::Open));
                    Ok(entry)
                }
                Phase::Sealed => Err(SEALED_HERE.to_owned()),
                Phase::Copying { .. } | Phase::Dropped => {
                    Err(format!("its entry is here already, {phase:?}"))
                }
            };
        }
        let entry = self
            .registry
            .insert(id, EntryState::new(Phase::Opening, has_predecessor));
        // The answer is not needed: appends behind it are refused if it fails, and the next configuration tries again.
        drop(partition.submit(&entry, Change::Open));
        Ok(entry)
    }

    /// Whether the configuration places an entry on this broker.
    pub(super) fn is_placed(&self, id: &EntryId) -> bool {
        let configuration = self.configuration.borrow();
        configuration
            .iter()
            .flat_map(|configuration| &configuration.topics)
            .filter(|topic| topic.name == id.topic && topic.uid == id.topic_uid)
            .flat_map(|topic| &topic.partitions)
            .filter(|partition| partition.index == id.partition)
            .flat_map(|partition| &partition.chain)
            .any(|entry| entry.epoch == id.epoch && entry.brokers.contains(&self.broker))
    }
}
