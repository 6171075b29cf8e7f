//! Everything this broker keeps: its topics' partitions on one journal. The face of the core to the service.

mod background;
mod burial;
mod compaction;
mod configure;
mod copy;
mod dead;
pub(crate) mod forgetting;
mod moving;
mod reading;
mod starting;
mod topic;
mod types;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
#[cfg(test)]
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::counters::Counters;
use super::log::{Disk, Journal, JournalOptions, RealDisk, Recovered};
use super::partition::index::Part;
use super::partition::registry::{Recovery, Registry};
pub use super::partition::{AppendTicket, Line, Partition};
use super::peer::{DeadLetters, PeerReader};
pub(crate) use dead::{Dead, partition_of};
pub(crate) use topic::{Settings, Topic};
pub use types::{
    AppendError, Appended, DamageFound, EntryId, Held, NewMessage, NotAppended, Offset, StoreOptions,
    StoredMessage,
};

/// One topic as the operator configured it.
#[derive(Debug, Clone)]
pub struct TopicView {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its partitions, by index.
    pub partitions: Vec<Arc<Partition>>,
    /// How long a delivery may go unacknowledged.
    pub ack_deadline: Duration,
}

/// All that this broker keeps.
#[derive(Debug)]
pub struct Store {
    me: Weak<Self>,
    broker: String,
    pub(crate) counters: Arc<Counters>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) registry: Arc<Registry>,
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    configuration: watch::Sender<Option<Arc<crate::pb::Configuration>>>,
    /// One configuration at a time.
    configuring: Mutex<()>,
    peers: RwLock<Option<Arc<dyn PeerReader>>>,
    dead_letters: RwLock<Option<Arc<dyn DeadLetters>>>,
    copies: Mutex<HashMap<EntryId, copy::Copying>>,
    background: Mutex<Option<background::Background>>,
    checked: Mutex<compaction::Checked>,
}

impl Store {
    /// Opens or makes the store in its directory, recovers what is there. Blocking: call it on a blocking thread.
    /// Damage is logged and does not stop it.
    ///
    /// # Errors
    /// The directory cannot be used, is in use or belongs to another broker.
    pub fn open(options: StoreOptions, counters: Arc<Counters>) -> Result<Arc<Self>, String> {
        Self::open_on(options, counters, Arc::new(RealDisk))
    }

    /// As [`Store::open`], writing to this disk.
    pub(crate) fn open_on(
        options: StoreOptions,
        counters: Arc<Counters>,
        disk: Arc<dyn Disk>,
    ) -> Result<Arc<Self>, String> {
        let broker = options.broker.clone();
        let (recovered, registry) = Self::recover(options, &counters, disk)?;
        let journal = recovered.start(Arc::<Registry>::clone(&registry))?;
        Ok(Self::assemble(broker, counters, journal, registry))
    }

    /// As [`Store::open_on`], without threads and tasks: the journal is written when the steps are taken, and what is to be
    /// given up comes back.
    #[cfg(test)]
    pub(crate) fn open_stepped(
        options: StoreOptions,
        counters: Arc<Counters>,
        disk: Arc<dyn Disk>,
    ) -> Result<(Arc<Self>, super::log::Stepped, UnboundedReceiver<Dead>), String> {
        let broker = options.broker.clone();
        let (recovered, registry) = Self::recover(options, &counters, disk)?;
        let (journal, steps) = recovered.start_stepped(Arc::<Registry>::clone(&registry));
        let store = Self::assemble(broker, counters, journal, registry);
        let dying = store.keep_dead();
        Ok((store, steps, dying))
    }

    fn recover(
        options: StoreOptions,
        counters: &Arc<Counters>,
        disk: Arc<dyn Disk>,
    ) -> Result<(Recovered, Arc<Registry>), String> {
        let journal = JournalOptions {
            directory: options.directory,
            broker: options.broker,
            // Places in a segment have 32 bits.
            segment_bytes: options.segment_bytes.clamp(16 << 10, 1 << 30),
            disk,
            counters: Arc::clone(counters),
        };
        let mut recovery = Recovery::default();
        let recovered = Journal::recover(journal, &mut recovery)?;
        Ok((recovered, Arc::new(recovery.finish())))
    }

    fn assemble(
        broker: String,
        counters: Arc<Counters>,
        journal: Journal,
        registry: Arc<Registry>,
    ) -> Arc<Self> {
        let store = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            broker,
            counters,
            journal: Arc::new(journal),
            registry,
            topics: RwLock::default(),
            configuration: watch::Sender::new(None),
            configuring: Mutex::default(),
            peers: RwLock::default(),
            dead_letters: RwLock::default(),
            copies: Mutex::default(),
            background: Mutex::default(),
            checked: Mutex::default(),
        });
        store.start_background();
        store
    }

    /// Who reads what other brokers hold. Until it is set, they count as unreachable.
    pub fn set_peers(&self, peers: Arc<dyn PeerReader>) {
        *self.peers.write() = Some(peers);
    }

    /// Who takes dead letters for topics that are not owned here.
    pub fn set_dead_letters(&self, dead_letters: Arc<dyn DeadLetters>) {
        *self.dead_letters.write() = Some(dead_letters);
    }

    /// The newest configuration; `None` before the first one after the boot.
    pub fn configuration(&self) -> watch::Receiver<Option<Arc<crate::pb::Configuration>>> {
        self.configuration.subscribe()
    }

    /// The topic, if it is configured.
    pub fn topic(&self, name: &str) -> Option<TopicView> {
        let topic = self.find_topic(name)?;
        Some(TopicView {
            name: topic.name.clone(),
            uid: topic.uid.clone(),
            partitions: topic.partitions(),
            ack_deadline: topic.settings().ack_deadline,
        })
    }

    pub(crate) fn find_topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().get(name).cloned()
    }

    pub(crate) fn all_topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().values().cloned().collect()
    }

    /// Everything on this disk.
    pub fn held(&self) -> Vec<Held> {
        self.registry.all().iter().map(|entry| entry.held()).collect()
    }

    /// Stops taking appends, commits what was let in, and closes the log.
    pub async fn close(&self) {
        self.stop_background();
        let journal = Arc::clone(&self.journal);
        if tokio::task::spawn_blocking(move || journal.close())
            .await
            .is_err()
        {
            tracing::error!("closing the journal failed");
        }
    }

    /// The 99th percentile of fdatasync since the last call, in nanoseconds.
    pub fn take_fdatasync_p99(&self) -> u64 {
        self.journal.take_sync_p99()
    }

    /// What is damaged on the disk.
    #[must_use]
    pub fn damage(&self) -> DamageFound {
        let damaged =
            |entry: &Arc<super::partition::entry::Entry>| entry.state().damaged.count_in(0..u64::MAX);
        DamageFound {
            messages: self.registry.all().iter().map(damaged).sum(),
            segments: self.registry.damaged_segments.lock().len() as u64,
        }
    }

    /// Messages that some group has not done yet, and the age of the oldest.
    pub fn unconsumed(&self) -> (u64, Duration) {
        let mut messages = 0;
        let mut oldest = None;
        for partition in self.all_topics().iter().flat_map(|topic| topic.partitions()) {
            let Some(open) = partition.served() else { continue };
            let spans = partition.spans(&self.registry);
            let mut most = 0;
            let mut floor = None;
            let groups = open.state().groups.clone();
            for progress in groups.values() {
                let left = spans
                    .iter()
                    .map(|span| {
                        let from = span.start.max(progress.floor).min(span.end);
                        span.end - from - progress.done.count_in(from..span.end)
                    })
                    .sum();
                if left > 0 {
                    most = most.max(left);
                    floor = Some(floor.map_or(progress.floor, |f: u64| f.min(progress.floor)));
                }
            }
            messages += most;
            let published = floor.and_then(|floor| self.published_at(&partition, Offset(floor)));
            oldest = oldest.into_iter().chain(published).min();
        }
        let age = oldest.map_or(Duration::ZERO, |millis| {
            let published = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            SystemTime::now().duration_since(published).unwrap_or_default()
        });
        (messages, age)
    }

    /// When the message at or after an offset was appended, in milliseconds since 1970, where that is known here.
    fn published_at(&self, partition: &Partition, offset: Offset) -> Option<u64> {
        let entry = self.registry.get(&partition.entry_id(offset.epoch()))?;
        let part = entry.state().index.at_or_after(offset.position())?;
        match part {
            // A second does not matter to those who ask, and a look at the disk does.
            Part::Run(run) if run.last.saturating_sub(run.first) > 1000 => {
                let pieces = self.journal.pieces(entry.number, &run).ok()?;
                let index = pieces.partition_point(|piece| piece.end() <= offset.position());
                pieces.get(index).map(|piece| piece.timestamp)
            }
            part => Some(part.first()),
        }
    }

    /// Messages accepted so far by each partition that is open here: topic, partition, epoch, count.
    pub fn led(&self) -> BTreeMap<(String, u32), (u64, u64)> {
        let mut led = BTreeMap::new();
        for topic in self.all_topics() {
            for partition in topic.partitions() {
                if let (true, _, epoch) = partition.owner() {
                    led.insert(
                        (topic.name.clone(), partition.index()),
                        (epoch, partition.accepted()),
                    );
                }
            }
        }
        led
    }

    pub(crate) fn peers(&self) -> Result<Arc<dyn PeerReader>, String> {
        self.peers
            .read()
            .clone()
            .ok_or_else(|| "this broker cannot reach others yet".to_owned())
    }

    /// The control address of a broker.
    pub(crate) fn control_address(&self, broker: &str) -> Result<String, String> {
        let configuration = self.configuration.borrow();
        configuration
            .iter()
            .flat_map(|configuration| &configuration.brokers)
            .find(|peer| peer.name == broker)
            .map(|peer| peer.control_address.clone())
            .ok_or_else(|| format!("the address of broker {broker} is not known"))
    }
}
