//! Taking up partitions: where the group was, or where it starts.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use super::hub::Hub;
use super::seats::{Inner, Part};
use super::state::GroupState;
use super::{Order, Start};
use crate::broker::partition::Partition;
use crate::broker::partition::entry::Entry;
use crate::broker::partition::progress::Progress;
use crate::broker::store::{Offset, Store};

/// A broker that did not say where the group starts is asked again after this time.
const AGAIN: Duration = Duration::from_millis(500);

impl Hub {
    /// Takes a partition up, if it is served here; or begins to ask where the group starts in it.
    pub(super) fn take_up(self: &Arc<Self>, inner: &mut Inner, partition: &Arc<Partition>) {
        let Some(store) = self.store.upgrade() else { return };
        if inner.parts.contains_key(&partition.index()) {
            return;
        }
        let Some(entry) = partition.served() else { return };
        let known = entry.state().groups.get(self.name()).cloned();
        if let Some(progress) = known {
            return self.take_up_at(inner, partition, entry, progress);
        }
        match (store.start_offset(partition, inner.start), inner.start) {
            (Some(offset), _) => self.start_at(inner, partition, entry, offset),
            (None, Start::Time(time)) => self.ask_start(inner, partition, entry, time),
            (None, _) => {}
        }
    }

    fn start_at(&self, inner: &mut Inner, partition: &Arc<Partition>, entry: Arc<Entry>, offset: Offset) {
        let progress = Progress {
            floor: offset.0,
            ..Progress::default()
        };
        self.take_up_at(inner, partition, entry, progress);
    }

    fn take_up_at(
        &self,
        inner: &mut Inner,
        partition: &Arc<Partition>,
        entry: Arc<Entry>,
        progress: Progress,
    ) {
        let mut part = Part {
            partition: Arc::clone(partition),
            entry,
            name: self.name().to_owned(),
            told_floor: 0,
            state: GroupState::new(progress, inner.order == Order::ByKey),
            blocked: None,
        };
        // Where it starts is kept before anything is delivered.
        drop(part.tell());
        inner.parts.insert(partition.index(), part);
    }

    /// Asks other brokers, in the background, until one answers or nobody wants to know any more.
    fn ask_start(
        self: &Arc<Self>,
        inner: &mut Inner,
        partition: &Arc<Partition>,
        entry: Arc<Entry>,
        time: SystemTime,
    ) {
        let Some(runtime) = &self.runtime else { return };
        if inner.seats.is_empty() || inner.starting.contains_key(&partition.index()) {
            return;
        }
        inner.starting.insert(partition.index(), None);
        let asking = ask(
            Arc::downgrade(self),
            self.store.clone(),
            Arc::clone(partition),
            entry,
            time,
        );
        runtime.spawn(asking);
    }

    /// Takes in what was said of a start. Returns whether it is to be asked again.
    fn started(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        entry: &Arc<Entry>,
        found: Result<Offset, String>,
    ) -> bool {
        let index = partition.index();
        let mut inner = self.inner.lock();
        let is_served = partition
            .served()
            .is_some_and(|served| served.number == entry.number);
        let is_wanted = is_served && !inner.seats.is_empty() && !inner.parts.contains_key(&index);
        match found {
            Err(why) if is_wanted => {
                tracing::debug!(?partition, why, "where a group starts is not known yet");
                let why = format!("where the group starts in it is not known yet: {why}");
                inner.starting.insert(index, Some(why));
                inner.wake_all();
                return true;
            }
            Ok(offset) if is_wanted => self.start_at(&mut inner, partition, Arc::clone(entry), offset),
            _ => {}
        }
        inner.starting.remove(&index);
        if !inner.seats.is_empty() {
            // Another entry may be served by now.
            self.take_up(&mut inner, partition);
        }
        inner.wake_all();
        false
    }
}

async fn ask(
    hub: Weak<Hub>,
    store: Weak<Store>,
    partition: Arc<Partition>,
    entry: Arc<Entry>,
    time: SystemTime,
) {
    loop {
        let Some(found) = find(&store, &partition, time).await else {
            return;
        };
        let Some(hub) = hub.upgrade() else { return };
        if !hub.started(&partition, &entry, found) {
            return;
        }
        drop(hub);
        tokio::time::sleep(AGAIN).await;
    }
}

async fn find(
    store: &Weak<Store>,
    partition: &Arc<Partition>,
    time: SystemTime,
) -> Option<Result<Offset, String>> {
    Some(store.upgrade()?.find_start(partition, time).await)
}
