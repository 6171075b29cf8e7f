//! Which broker owns which partition, as the brokers push it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom as _;
use tokio::sync::{Notify, watch};

use super::backoff::Backoff;
use super::pool::Pool;
use crate::pb;

/// A broker that only knows of an older topology is believed after nobody knew a newer one for so long.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// The newest topology that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Grows with every change; 0 before the first topology.
    pub generation: u64,
    /// Addresses by broker name.
    pub brokers: BTreeMap<String, Arc<str>>,
    /// Owners of each topic's partitions, by index.
    pub topics: HashMap<String, Vec<Owner>>,
}

/// Who takes the appends of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// The epoch of the partition's newest entry.
    pub epoch: u64,
    /// The owner's address; `None` while nobody owns it.
    pub address: Option<Arc<str>>,
}

impl ClusterView {
    /// The owners of a topic's partitions; empty where the topic does not exist (yet).
    pub fn owners(&self, topic: &str) -> &[Owner] {
        self.topics.get(topic).map_or(&[], Vec::as_slice)
    }
}

impl From<pb::Topology> for ClusterView {
    fn from(topology: pb::Topology) -> Self {
        let brokers: BTreeMap<String, Arc<str>> = topology
            .brokers
            .into_iter()
            .map(|broker| (broker.name, broker.address.into()))
            .collect();
        let owners = |partitions: Vec<pb::PartitionOwner>| {
            let count = partitions
                .iter()
                .map(|partition| partition.partition + 1)
                .max()
                .unwrap_or(0);
            let mut owners = vec![Owner::default(); count as usize];
            for partition in partitions {
                owners[partition.partition as usize] = Owner {
                    epoch: partition.epoch,
                    address: brokers.get(&partition.broker).cloned(),
                };
            }
            owners
        };
        let topics = topology
            .topics
            .into_iter()
            .map(|topic| (topic.topic, owners(topic.partitions)))
            .collect();
        Self {
            generation: topology.generation,
            brokers,
            topics,
        }
    }
}

/// Follows the topology from any broker that answers, for as long as somebody looks at it.
pub(crate) struct Watcher {
    pub(crate) pool: Arc<Pool>,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) view: watch::Sender<Arc<ClusterView>>,
    /// Somebody has reason to think that the broker we follow is behind.
    pub(crate) refresh: Arc<Notify>,
    /// What the last try said, for who waits for the first topology.
    pub(crate) problem: watch::Sender<String>,
}

impl Watcher {
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        let mut older_since = None;
        loop {
            for address in self.candidates() {
                let before = self.view.borrow().generation;
                let outcome = tokio::select! {
                    outcome = self.follow(&address, &mut older_since) => outcome,
                    () = self.refresh.notified() => Ok(()),
                };
                if let Err(problem) = outcome {
                    tracing::debug!(%address, %problem, "cannot follow the topology here");
                    self.problem.send_replace(format!("{address}: {problem}"));
                }
                if self.view.borrow().generation != before {
                    backoff.reset();
                }
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }

    /// All addresses that may answer, in random order: known brokers first, then where we started.
    fn candidates(&self) -> Vec<String> {
        let view = self.view.borrow().clone();
        let mut known: Vec<String> = view.brokers.values().map(ToString::to_string).collect();
        let mut bootstrap: Vec<String> = self
            .bootstrap
            .iter()
            .filter(|address| !known.contains(address))
            .cloned()
            .collect();
        known.shuffle(&mut rand::rng());
        bootstrap.shuffle(&mut rand::rng());
        // One that we started with comes early: the known ones may not be reachable from here at all.
        known.extend(bootstrap.split_off(bootstrap.len().min(1)));
        bootstrap.extend(known);
        bootstrap
    }

    async fn follow(&self, address: &str, older_since: &mut Option<Instant>) -> Result<(), String> {
        let mut broker = self.pool.broker(address).map_err(|error| error.to_string())?;
        let request = pb::WatchTopologyRequest { topics: Vec::new() };
        let mut topologies = broker
            .watch_topology(request)
            .await
            .map_err(|status| describe(&status))?
            .into_inner();
        while let Some(topology) = topologies.message().await.map_err(|status| describe(&status))? {
            let view = ClusterView::from(topology);
            let known = self.view.borrow().generation;
            if view.generation < known && older_since.get_or_insert_with(Instant::now).elapsed() < STALE_AFTER
            {
                return Err(format!(
                    "it knows generation {}, we know {known}",
                    view.generation
                ));
            }
            *older_since = None;
            let bootstrap = &self.bootstrap;
            self.pool.retain(|address| {
                bootstrap.iter().any(|known| known == address)
                    || view.brokers.values().any(|known| &**known == address)
            });
            self.view.send_if_modified(|current| {
                let modified = **current != view;
                if modified {
                    *current = Arc::new(view);
                }
                modified
            });
        }
        Ok(())
    }
}

/// A status in words, with the cause that tonic hides in its source.
pub(crate) fn describe(status: &tonic::Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
