//! What a publish stream has around it: partitions whose log commits when the input says so, and other brokers that answer when it
//! says so. In the place of `store`, `service/shared` and `service/peer_client`, with the same names.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tonic::Status;

use crate::broker::channel::{Channel, Permit};
use crate::broker::counters::Counters;
use crate::broker::refusals::Refusals;
use crate::broker::service::clock::PublishClocks;
use crate::broker::service::credit::{CreditPool, Inflight, Limits};
use crate::broker::service::signals::Signals;
use crate::broker::store::{AppendError, Appended, NewMessage, NotAppended, Offset};
use crate::pb;

/// One topic.
#[derive(Clone)]
pub struct TopicView {
    pub partitions: Vec<Arc<Partition>>,
}

/// A partition.
pub struct Partition {
    me: Weak<Self>,
    index: u32,
    journal: Arc<Journal>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Another broker that takes appends; empty: nobody knows.
    owner: Option<String>,
    /// How the next appends are refused.
    refusals: VecDeque<AppendError>,
    /// Sequences that were stored, again and again included.
    stored: Vec<u64>,
}

/// Batches on their way to the disk, of all partitions.
#[derive(Default)]
pub struct Journal {
    batches: Mutex<VecDeque<Batch>>,
    duplicates: AtomicU64,
}

struct Batch {
    partition: Weak<Partition>,
    sequences: Vec<u64>,
    is_known: bool,
    line: Option<Arc<Line>>,
    permit: Permit,
    reply: oneshot::Sender<Result<Vec<Appended>, AppendError>>,
}

/// As in the store.
#[derive(Debug, Default)]
pub struct Line(AtomicBool);

/// As in the store.
pub struct AppendTicket(oneshot::Receiver<Result<Vec<Appended>, AppendError>>);

impl AppendTicket {
    pub fn known(&mut self) -> Option<Result<Vec<Appended>, AppendError>> {
        self.0.try_recv().ok()
    }

    pub async fn done(self) -> Result<Vec<Appended>, AppendError> {
        self.0
            .await
            .unwrap_or_else(|_| Err(AppendError::Log("the broker stopped".to_owned())))
    }
}

impl Partition {
    pub fn new(index: u32, journal: &Arc<Journal>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            index,
            journal: Arc::clone(journal),
            state: Mutex::default(),
        })
    }

    pub fn index(&self) -> u32 {
        self.index
    }

    pub fn owner(&self) -> (bool, String, u64) {
        let state = self.state.lock();
        (state.owner.is_none(), state.owner.clone().unwrap_or_default(), 7)
    }

    pub fn is_ours(&self) -> bool {
        self.state.lock().owner.is_none()
    }

    /// `None`: this broker.
    pub fn set_owner(&self, owner: Option<&str>) {
        self.state.lock().owner = owner.map(str::to_owned);
    }

    /// The next append is refused so.
    pub fn refuse(&self, error: AppendError) {
        self.state.lock().refusals.push_back(error);
    }

    pub fn refuse_nothing(&self) {
        self.state.lock().refusals.clear();
    }

    /// All that was stored, by sequence.
    pub fn stored(&self) -> Vec<u64> {
        self.state.lock().stored.clone()
    }

    /// Stores what is not known yet.
    pub fn store(&self, sequences: &[u64], is_known: bool) -> Vec<Appended> {
        let mut state = self.state.lock();
        let place = |&sequence: &u64| {
            let known = state
                .stored
                .iter()
                .position(|&stored| stored == sequence)
                .filter(|_| is_known);
            let position = known.unwrap_or(state.stored.len());
            if known.is_none() {
                state.stored.push(sequence);
            }
            Appended {
                offset: Offset::new(7, position as u64),
                duplicate: known.is_some(),
            }
        };
        sequences.iter().map(place).collect()
    }

    pub fn append(
        &self,
        messages: Vec<NewMessage>,
        producer: &str,
        permit: Permit,
    ) -> Result<AppendTicket, NotAppended> {
        self.append_with(messages, producer, permit, None)
    }

    pub fn append_in_line(
        &self,
        messages: Vec<NewMessage>,
        producer: &str,
        permit: Permit,
        line: &Arc<Line>,
    ) -> Result<AppendTicket, NotAppended> {
        self.append_with(messages, producer, permit, Some(Arc::clone(line)))
    }

    fn append_with(
        &self,
        messages: Vec<NewMessage>,
        producer: &str,
        permit: Permit,
        line: Option<Arc<Line>>,
    ) -> Result<AppendTicket, NotAppended> {
        let mut state = self.state.lock();
        let moved = state.owner.clone().map(|owner| AppendError::Moved {
            partition: self.index,
            owner,
            epoch: 7,
        });
        if let Some(error) = moved.or_else(|| state.refusals.pop_front()) {
            return Err(NotAppended { error, messages });
        }
        drop(state);
        let (reply, answer) = oneshot::channel();
        self.journal.batches.lock().push_back(Batch {
            partition: Weak::clone(&self.me),
            sequences: messages.iter().map(|message| message.sequence).collect(),
            is_known: !producer.is_empty(),
            line,
            permit,
            reply,
        });
        Ok(AppendTicket(answer))
    }
}

/// How many had been stored before.
pub fn duplicates(appended: &[Appended]) -> u64 {
    appended.iter().filter(|one| one.duplicate).count() as u64
}

impl Journal {
    /// Messages that wait.
    pub fn waiting(&self) -> u64 {
        self.batches
            .lock()
            .iter()
            .map(|batch| batch.sequences.len() as u64)
            .sum()
    }

    /// The first batch that waits is stored, or is not. False if none waits.
    pub fn commit(&self, result: Result<(), AppendError>) -> bool {
        let Some(batch) = self.batches.lock().pop_front() else {
            return false;
        };
        let is_broken = |line: &Arc<Line>| line.0.load(Ordering::Relaxed);
        let result = match result {
            Ok(()) if batch.line.as_ref().is_some_and(is_broken) => {
                Err(AppendError::NotStored("a batch before it was not".to_owned()))
            }
            Ok(()) => batch
                .partition
                .upgrade()
                .map(|partition| partition.store(&batch.sequences, batch.is_known))
                .ok_or_else(|| AppendError::Log("the broker stopped".to_owned())),
            Err(error) => Err(error),
        };
        if let Some(line) = batch.line.filter(|_| result.is_err()) {
            line.0.store(true, Ordering::Relaxed);
        }
        drop(batch.permit);
        let duplicates = result.as_deref().map_or(0, duplicates);
        if batch.reply.send(result).is_ok() {
            self.told(duplicates);
        }
        true
    }

    /// Somebody was told that so many messages had been stored before.
    pub fn told(&self, duplicates: u64) {
        self.duplicates.fetch_add(duplicates, Ordering::Relaxed);
    }

    /// Messages of which somebody was told that they had been stored before.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }
}

/// As in the store.
pub struct Store(pub Mutex<Option<TopicView>>);

impl Store {
    pub fn topic(&self, _name: &str) -> Option<TopicView> {
        self.0.lock().clone()
    }
}

/// The other brokers.
#[derive(Default)]
pub struct Peers(Mutex<VecDeque<Call>>);

/// A call that waits for its answer.
pub struct Call {
    pub request: pb::SendRequest,
    pub reply: oneshot::Sender<Result<pb::SendResponse, Status>>,
}

/// One of them.
pub struct Peer<'a>(&'a Peers);

impl Peers {
    pub fn address(&self, name: &str) -> String {
        name.to_owned()
    }

    pub fn calls(&self, name: &str) -> Result<Peer<'_>, Status> {
        if name == "unknown" {
            return Err(Status::unavailable("nobody knows it"));
        }
        Ok(Peer(self))
    }

    /// The first call that waits.
    pub fn next(&self) -> Option<Call> {
        self.0.lock().pop_front()
    }
}

impl Peer<'_> {
    pub async fn send(
        &mut self,
        request: tonic::Request<pb::SendRequest>,
    ) -> Result<tonic::Response<pb::SendResponse>, Status> {
        let (reply, answer) = oneshot::channel();
        let request = request.into_inner();
        self.0.0.lock().push_back(Call { request, reply });
        let answer = answer
            .await
            .unwrap_or_else(|_| Err(Status::unavailable("it went away")));
        answer.map(tonic::Response::new)
    }
}

/// One broker, as far as a publish stream sees it.
pub struct Shared {
    pub name: String,
    pub store: Store,
    pub channel: Arc<Channel>,
    pub counters: Arc<Counters>,
    pub credit: Arc<CreditPool>,
    pub inflight: Arc<Inflight>,
    pub refusals: Arc<Refusals>,
    pub clocks: Arc<PublishClocks>,
    pub peers: Peers,
    pub signals: watch::Sender<Signals>,
}

impl Shared {
    pub fn new(limits: Limits, capacity: u32, topic: TopicView) -> Arc<Self> {
        let (signals, _) = watch::channel(Signals::default());
        let channel = Channel::new(capacity);
        let counters = Arc::<Counters>::default();
        Arc::new(Self {
            name: "orders-0".to_owned(),
            store: Store(Mutex::new(Some(topic))),
            credit: CreditPool::new(
                Arc::clone(&channel),
                Arc::clone(&counters),
                limits,
                signals.clone(),
            ),
            channel,
            counters,
            inflight: Inflight::new(limits.max_inflight_bytes),
            refusals: Arc::default(),
            clocks: Arc::default(),
            peers: Peers::default(),
            signals,
        })
    }

    pub fn signals(&self) -> watch::Receiver<Signals> {
        self.signals.subscribe()
    }

    pub fn durability(&self) -> pb::Durability {
        pb::Durability::Fsync
    }

    pub async fn topic(&self, name: &str) -> Result<TopicView, Status> {
        self.store
            .topic(name)
            .ok_or_else(|| Status::unavailable("there is no such topic"))
    }

    /// The store was configured anew.
    pub fn configured(&self) {
        self.signals.send_modify(|signals| signals.configuration += 1);
    }
}
