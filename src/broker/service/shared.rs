//! What all services of one broker share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::clock::{PublishClocks, SpanClock};
use super::credit::{CreditPool, Inflight, Limits};
use super::peer_client::Peers;
use super::signals::Signals;
use crate::broker::channel::Channel;
use crate::broker::counters::Counters;
use crate::broker::refusals::Refusals;
use crate::broker::store::{Store, TopicView};
use crate::pb;

/// Topics that clients asked for and that do not exist are reported up to this many at a time.
const MOST_WANTED: usize = 256;

/// One broker, as its services see it.
pub struct Shared {
    /// Its name.
    pub name: String,
    /// The MessageBroker it belongs to, as namespace/name; empty: any.
    pub cluster: String,
    /// Another one after each start.
    pub boot_id: u64,
    /// When it started.
    pub started: Instant,
    /// Everything it keeps.
    pub store: Arc<Store>,
    /// The bounded channel between the network and the log.
    pub channel: Arc<Channel>,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Publishers' credit and the limits.
    pub credit: Arc<CreditPool>,
    /// The bound on uncommitted bytes.
    pub inflight: Arc<Inflight>,
    /// What is refused, by reason.
    pub refusals: Arc<Refusals>,
    /// Publishers' blocked and active time.
    pub clocks: Arc<PublishClocks>,
    /// Time that members had messages waiting and no credit.
    pub starved: SpanClock,
    /// The way to the other brokers.
    pub peers: Arc<Peers>,
    /// How long an opening waits for its topic.
    pub topic_wait: Duration,
    pub(super) signals: watch::Sender<Signals>,
    wanted: Mutex<BTreeSet<String>>,
    cordoned: AtomicBool,
    watcher: OnceLock<AbortOnDropHandle<()>>,
}

/// What a broker's services are made of.
pub struct Parts {
    /// The broker's name.
    pub name: String,
    /// The MessageBroker, as namespace/name; empty: any.
    pub cluster: String,
    /// An opened store.
    pub store: Arc<Store>,
    /// The store's counters.
    pub counters: Arc<Counters>,
    /// The way to the other brokers.
    pub peers: Arc<Peers>,
    /// Limits until the operator says others.
    pub limits: Limits,
    /// The channel's capacity until the operator says another.
    pub channel_capacity: u32,
    /// How long an opening waits for its topic.
    pub topic_wait: Duration,
}

impl Shared {
    /// Puts the parts together and follows the store's configuration. Call it inside a Tokio runtime.
    pub fn new(parts: Parts) -> Arc<Self> {
        let (signals, _) = watch::channel(Signals::default());
        let channel = Channel::new(parts.channel_capacity);
        let inflight = Inflight::new(parts.limits.max_inflight_bytes);
        let counters = parts.counters;
        let credit = CreditPool::new(
            Arc::clone(&channel),
            Arc::clone(&counters),
            parts.limits,
            signals.clone(),
        );
        let shared = Arc::new(Self {
            name: parts.name,
            cluster: parts.cluster,
            boot_id: rand::random(),
            started: Instant::now(),
            store: parts.store,
            channel,
            counters,
            credit,
            inflight,
            refusals: Arc::default(),
            clocks: Arc::default(),
            starved: SpanClock::new(),
            peers: parts.peers,
            topic_wait: parts.topic_wait,
            signals,
            wanted: Mutex::default(),
            cordoned: AtomicBool::new(false),
            watcher: OnceLock::new(),
        });
        shared.follow();
        shared
    }

    /// Applies each configuration of the store, as long as anybody holds this.
    fn follow(self: &Arc<Self>) {
        let mut configuration = self.store.configuration();
        let weak = Arc::downgrade(self);
        let watcher = tokio::spawn(async move {
            loop {
                let newest = configuration.borrow_and_update().clone();
                let Some(shared) = weak.upgrade() else { return };
                if let Some(newest) = newest {
                    shared.apply(&newest);
                }
                drop(shared);
                if configuration.changed().await.is_err() {
                    return;
                }
            }
        });
        _ = self.watcher.set(AbortOnDropHandle::new(watcher));
    }

    /// Everything of a configuration that is not the store's.
    fn apply(&self, configuration: &pb::Configuration) {
        if let Some(channel) = &configuration.channel
            && channel.capacity > 0
        {
            self.credit.set_capacity(channel.capacity);
        }
        if let Some(limits) = &configuration.limits {
            let old = self.credit.limits();
            let or = |new: u64, old: u64| if new > 0 { new } else { old };
            let or_small = |new: u32, old: u32| if new > 0 { new } else { old };
            let limits = Limits {
                max_connections: or_small(limits.max_connections, old.max_connections),
                max_streams_per_connection: or_small(
                    limits.max_streams_per_connection,
                    old.max_streams_per_connection,
                ),
                max_message_bytes: or(limits.max_message_bytes, old.max_message_bytes),
                max_inflight_bytes: or(limits.max_inflight_bytes, old.max_inflight_bytes),
            };
            self.inflight.set_most(limits.max_inflight_bytes);
            self.credit.set_limits(limits);
        }
        self.peers.configure(&configuration.brokers);
        let mut wanted = self.wanted.lock();
        wanted.retain(|topic| !configuration.topics.iter().any(|known| known.name == *topic));
        drop(wanted);
        self.signals.send_modify(|signals| signals.configuration += 1);
    }

    /// The newest of everything that sessions react to.
    pub fn signals(&self) -> watch::Receiver<Signals> {
        self.signals.subscribe()
    }

    /// Tells every session to finish.
    pub fn drain(&self) {
        self.signals.send_modify(|signals| signals.draining = true);
    }

    /// Whether the operator has configured this broker since it started.
    pub fn is_confirmed(&self) -> bool {
        self.store.configuration().borrow().is_some()
    }

    /// How safe an acknowledged message is.
    pub fn durability(&self) -> pb::Durability {
        let configuration = self.store.configuration();
        let durability = configuration.borrow().as_ref().map(|known| known.durability());
        match durability {
            Some(pb::Durability::Memory) => pb::Durability::Memory,
            _ => pb::Durability::Fsync,
        }
    }

    /// Brings the counters of time up to now.
    pub fn count_clocks(&self) {
        // In this order, so that blocked time is never more than active time.
        let blocked = self.clocks.blocked.take();
        self.counters
            .publisher_active_nanos
            .add(self.clocks.active.take());
        self.counters.publisher_blocked_nanos.add(blocked);
        self.counters.consumer_starved_nanos.add(self.starved.take());
    }

    /// Notes that the operator places nothing here any more, or does again.
    pub fn set_cordoned(&self, cordoned: bool) {
        self.cordoned.store(cordoned, Ordering::Relaxed);
    }

    /// Whether the operator places nothing here any more.
    pub fn is_cordoned(&self) -> bool {
        self.cordoned.load(Ordering::Relaxed)
    }

    /// Topics that were asked for and that the newest configuration does not have.
    pub fn wanted_topics(&self) -> Vec<String> {
        let configuration = self.store.configuration();
        let configuration = configuration.borrow();
        let topics = configuration.as_deref().map_or(&[][..], |known| &known.topics);
        let is_unknown = |name: &&String| !topics.iter().any(|known| known.name == **name);
        self.wanted.lock().iter().filter(is_unknown).cloned().collect()
    }

    /// The topic, or, after a while in which nobody configured it, the status that says what to do.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a name that no topic can have, `NOT_FOUND` where topics are not made on demand,
    /// `UNAVAILABLE` where it may come.
    pub async fn topic(&self, name: &str) -> Result<TopicView, Status> {
        let deadline = tokio::time::Instant::now() + self.topic_wait;
        let mut signals = self.signals();
        loop {
            signals.borrow_and_update();
            if let Some(topic) = self.store.topic(name) {
                return Ok(topic);
            }
            let absence = self.absence(name);
            if absence.code() != tonic::Code::Unavailable
                || tokio::time::timeout_at(deadline, signals.changed())
                    .await
                    .is_err()
            {
                return Err(absence);
            }
        }
    }

    /// Why there is no such topic here.
    fn absence(&self, name: &str) -> Status {
        if !is_topic_name(name) {
            return Status::invalid_argument(format!(
                "{name:?} is no topic's name; use lower-case letters, digits, '-' and '.', at most 253"
            ));
        }
        let configuration = self.store.configuration();
        let auto_create = configuration
            .borrow()
            .as_ref()
            .map(|known| known.auto_create_topics);
        match auto_create {
            None => retry_later("this broker has not been configured since it started; try again"),
            Some(false) => Status::not_found(format!(
                "there is no topic {name:?}; create a MessageTopic, or set topicDefaults.autoCreate"
            )),
            Some(true) => {
                let mut wanted = self.wanted.lock();
                if wanted.len() < MOST_WANTED {
                    wanted.insert(name.to_owned());
                }
                retry_later(format!("topic {name:?} is being made; try again"))
            }
        }
    }
}

/// `UNAVAILABLE` with the hint that gRPC clients know.
pub fn retry_later(text: impl Into<String>) -> Status {
    with_pushback(Status::unavailable(text))
}

/// The same status with the hint to try again in half a second.
pub fn with_pushback(mut status: Status) -> Status {
    status.metadata_mut().insert(
        "grpc-retry-pushback-ms",
        tonic::metadata::MetadataValue::from_static("500"),
    );
    status
}

fn is_topic_name(name: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=253).contains(&bytes.len())
        && bytes
            .iter()
            .all(|&byte| edge(byte) || byte == b'-' || byte == b'.')
        && bytes.first().is_some_and(|&byte| edge(byte))
        && bytes.last().is_some_and(|&byte| edge(byte))
}
