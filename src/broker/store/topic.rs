//! A configured topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::broker::group::Hub;
use crate::broker::partition::Partition;

/// A topic, as long as it is configured.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) uid: String,
    settings: RwLock<Settings>,
    partitions: RwLock<Vec<Arc<Partition>>>,
    pub(crate) hubs: Mutex<BTreeMap<String, Arc<Hub>>>,
    /// Groups without members, and since when that is known. Locked after `hubs`.
    pub(super) idle: Mutex<BTreeMap<String, Instant>>,
    gone: AtomicBool,
}

/// What may change while it is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How long a delivery may go unacknowledged.
    pub(crate) ack_deadline: Duration,
    /// Deliveries of a message before it is given up; 0: for ever.
    pub(crate) max_deliveries: u32,
    /// Where messages go that are given up; empty: nowhere.
    pub(crate) dead_letter_topic: String,
    /// How long messages are kept; `None`: for ever.
    pub(crate) retention_age: Option<Duration>,
    /// Bytes that a partition keeps; 0: no bound.
    pub(crate) retention_bytes: u64,
    /// A message that every group has done is not kept.
    pub(crate) work_queue: bool,
}

/// Where the operator says nothing.
const ACK_DEADLINE: Duration = Duration::from_secs(30);

impl Settings {
    /// From the wire.
    pub(crate) fn from_wire(topic: &crate::pb::TopicConfiguration) -> Self {
        let duration = |wire: &prost_types::Duration| Duration::try_from(*wire).ok().filter(|d| !d.is_zero());
        let retention = topic.retention.unwrap_or_default();
        Self {
            ack_deadline: topic
                .ack_deadline
                .as_ref()
                .and_then(duration)
                .unwrap_or(ACK_DEADLINE),
            max_deliveries: topic.max_deliveries,
            dead_letter_topic: topic.dead_letter_topic.clone(),
            retention_age: retention.age.as_ref().and_then(duration),
            retention_bytes: retention.bytes,
            work_queue: retention.work_queue,
        }
    }
}

impl Topic {
    pub(crate) fn new(name: &str, uid: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            uid: uid.to_owned(),
            settings: RwLock::default(),
            partitions: RwLock::default(),
            hubs: Mutex::default(),
            idle: Mutex::default(),
            gone: AtomicBool::new(false),
        })
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings.read().clone()
    }

    pub(crate) fn set_settings(&self, settings: Settings) {
        *self.settings.write() = settings;
    }

    /// By index.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().clone()
    }

    pub(crate) fn set_partitions(&self, partitions: Vec<Arc<Partition>>) {
        *self.partitions.write() = partitions;
    }

    pub(crate) fn partition(&self, index: u32) -> Option<Arc<Partition>> {
        self.partitions
            .read()
            .iter()
            .find(|partition| partition.index() == index)
            .cloned()
    }

    /// Its groups that have or had members.
    pub(crate) fn hubs(&self) -> Vec<Arc<Hub>> {
        self.hubs.lock().values().cloned().collect()
    }

    /// It is not configured any more.
    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
        for hub in self.hubs() {
            hub.wake_all();
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}
