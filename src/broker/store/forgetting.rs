//! Groups that nobody uses any more: forgotten after a time, and bounded in number, so that a client that invents names
//! fills neither memory nor disk. See `docs/decisions/0017-groups-are-bounded-and-forgotten.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Store;
use super::topic::Topic;
use crate::broker::group::Hub;
use crate::broker::partition::Partition;
use crate::broker::partition::ops::Change;

/// A group without members for so long is forgotten. A restart of the broker begins the time anew.
pub(crate) const UNUSED: Duration = Duration::from_hours(7 * 24);
/// Groups of a topic, at most: what a group costs is kept for each partition, and written into each segment.
pub(crate) const MOST_GROUPS: usize = 10_000;

impl Store {
    /// Forgets groups that have had no members for this long. To be called now and then: a group's time begins with
    /// the first call that finds it without members.
    pub(crate) fn forget_groups(&self, unused: Duration) {
        let now = Instant::now();
        for topic in self.all_topics() {
            topic.forget_groups(now, unused);
        }
    }
}

impl Topic {
    /// Whether a group of this name may be used: it is known, or there are not too many.
    pub(crate) fn has_room(&self, hubs: &BTreeMap<String, Arc<Hub>>, group: &str) -> bool {
        if hubs.contains_key(group) {
            return true;
        }
        let mut most = hubs.len();
        for entry in self
            .partitions()
            .iter()
            .filter_map(|partition| partition.served())
        {
            let state = entry.state();
            if state.groups.contains_key(group) {
                return true;
            }
            most = most.max(state.groups.len());
        }
        most < MOST_GROUPS
    }

    fn forget_groups(&self, now: Instant, unused: Duration) {
        let partitions = self.partitions();
        // Nobody joins meanwhile.
        let mut hubs = self.hubs.lock();
        let mut idle = self.idle.lock();
        let mut names: BTreeSet<String> = hubs.keys().cloned().collect();
        for entry in partitions.iter().filter_map(|partition| partition.served()) {
            names.extend(entry.state().groups.keys().cloned());
        }
        idle.retain(|name, _| names.contains(name));
        for name in names {
            let hub = hubs.get(&name);
            if hub.is_some_and(|hub| hub.has_members()) {
                idle.remove(&name);
                continue;
            }
            let since = *idle.entry(name.clone()).or_insert(now);
            // Somebody still settles something for it.
            let is_busy = hub.is_some_and(|hub| Arc::strong_count(hub) > 1);
            if now.duration_since(since) < unused || is_busy {
                continue;
            }
            idle.remove(&name);
            hubs.remove(&name);
            for partition in &partitions {
                forget(partition, &name);
            }
            tracing::info!(
                topic = self.name,
                group = name,
                "a group is forgotten: it had no members for {} days",
                unused.as_secs() / 86_400
            );
        }
    }
}

/// Here at once, so that a member that joins from now on starts anew; and on the disk, before anything that it does.
fn forget(partition: &Arc<Partition>, name: &str) {
    let Some(entry) = partition.served() else { return };
    let was_there = entry.state().groups.remove(name).is_some();
    if was_there {
        drop(partition.submit(&entry, Change::Forget(name.to_owned())));
    }
}
