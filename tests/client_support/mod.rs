//! A small broker in memory that can be told to misbehave, for what a real one does not do on demand: refuse at a
//! chosen moment, cut a stream, lose or duplicate what it acknowledged. It asserts what clients must keep to.

#![allow(dead_code, unreachable_pub)]

mod publish;
mod subscribe;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use sluice::pb::{self, broker_server::BrokerServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

/// The only topic.
pub const TOPIC: &str = "load";

pub type Out<T> = tokio_stream::wrappers::UnboundedReceiverStream<Result<T, Status>>;

/// What is stored of a message.
#[derive(Debug, Clone)]
pub struct Record {
    pub producer: String,
    pub sequence: u64,
    pub key: Bytes,
    pub body: Bytes,
}

#[derive(Default)]
pub struct State {
    pub owners: Vec<(usize, u64)>,
    pub addresses: Vec<String>,
    pub logs: Vec<Vec<Record>>,
    pub seen: HashMap<(String, usize), HashSet<u64>>,
    pub violations: Vec<String>,
    pub groups: BTreeMap<(String, usize), Group>,
    pub faults: Faults,
    pub streams_opened: usize,
    /// Of each batch: messages that the client was given since the last one, and messages in it.
    pub told: Vec<(u64, u64)>,
}

/// One group's progress in one partition.
#[derive(Default)]
pub struct Group {
    pub cursor: usize,
    pub again: VecDeque<(usize, u32)>,
    /// Offset to delivery count, of what is out.
    pub out: HashMap<usize, u32>,
}

#[derive(Clone)]
pub struct Faults {
    pub credit: (u64, u64),
    pub ack_delay: Duration,
    /// Refuse the next so many messages of each partition with Throttled.
    pub throttle: u64,
    /// Acknowledge every nth message and do not store it.
    pub lose_every: u64,
    /// Store every nth message twice.
    pub duplicate_every: u64,
    /// Swap every nth message with the one before it.
    pub swap_every: u64,
    pub reject: Option<Bytes>,
    pub topic_exists: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            credit: (100, 1 << 20),
            ack_delay: Duration::ZERO,
            throttle: 0,
            lose_every: 0,
            duplicate_every: 0,
            swap_every: 0,
            reject: None,
            topic_exists: true,
        }
    }
}

/// Some brokers that share one memory.
pub struct Cluster {
    pub state: Arc<Mutex<State>>,
    topology: watch::Sender<pb::Topology>,
    cuts: Arc<Mutex<CancellationToken>>,
    _servers: Vec<AbortOnDropHandle<()>>,
}

#[derive(Clone)]
pub struct Fake {
    pub index: usize,
    pub state: Arc<Mutex<State>>,
    pub topology: watch::Receiver<pb::Topology>,
    pub cuts: Arc<Mutex<CancellationToken>>,
}

impl Cluster {
    pub async fn start(brokers: usize, partitions: usize) -> Self {
        let state = Arc::new(Mutex::new(State {
            owners: (0..partitions)
                .map(|partition| (partition % brokers, 1))
                .collect(),
            logs: vec![Vec::new(); partitions],
            ..State::default()
        }));
        let (topology, receiver) = watch::channel(pb::Topology::default());
        let cuts = Arc::new(Mutex::new(CancellationToken::new()));
        let mut servers = Vec::new();
        for index in 0..brokers {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            state
                .lock()
                .addresses
                .push(listener.local_addr().unwrap().to_string());
            let (state, topology, cuts) = (state.clone(), receiver.clone(), cuts.clone());
            let fake = Fake {
                index,
                state,
                topology,
                cuts,
            };
            servers.push(AbortOnDropHandle::new(tokio::spawn(serve(listener, fake))));
        }
        let cluster = Self {
            state,
            topology,
            cuts,
            _servers: servers,
        };
        cluster.push_topology();
        cluster
    }

    pub fn addresses(&self) -> Vec<String> {
        self.state.lock().addresses.clone()
    }

    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state.lock().faults);
        self.push_topology();
    }

    /// Gives a partition to another broker; clients hear of it now or never.
    pub fn give(&self, partition: usize, broker: usize, is_told: bool) {
        {
            let mut state = self.state.lock();
            let epoch = state.owners[partition].1 + 1;
            state.owners[partition] = (broker, epoch);
            for ((_, of), group) in &mut state.groups {
                if *of == partition {
                    let out: Vec<_> = group.out.drain().collect();
                    group.again.extend(out);
                    group.again.make_contiguous().sort_unstable();
                }
            }
        }
        if is_told {
            self.push_topology();
        }
    }

    /// Ends every publish stream without an answer.
    pub fn cut_streams(&self) {
        std::mem::take(&mut *self.cuts.lock()).cancel();
    }

    pub fn push_topology(&self) {
        let state = self.state.lock();
        let brokers = state.addresses.iter().enumerate();
        let brokers = brokers.map(|(n, address)| pb::BrokerEndpoint {
            name: n.to_string(),
            address: address.clone(),
        });
        let partitions =
            state
                .owners
                .iter()
                .zip(0..)
                .map(|((broker, epoch), partition)| pb::PartitionOwner {
                    partition,
                    epoch: *epoch,
                    broker: broker.to_string(),
                });
        let topic = pb::TopicTopology {
            topic: TOPIC.to_owned(),
            partitions: partitions.collect(),
        };
        let generation = self.topology.borrow().generation + 1;
        let topics = if state.faults.topic_exists {
            vec![topic]
        } else {
            Vec::new()
        };
        self.topology.send_replace(pb::Topology {
            generation,
            brokers: brokers.collect(),
            topics,
        });
    }

    pub fn log(&self, partition: usize) -> Vec<Record> {
        self.state.lock().logs[partition].clone()
    }

    pub fn stored(&self) -> usize {
        self.state.lock().logs.iter().map(Vec::len).sum()
    }

    /// Fails the test if a client broke a rule.
    pub fn check(&self) {
        let violations = &self.state.lock().violations;
        assert!(violations.is_empty(), "{violations:?}");
    }
}

async fn serve(listener: TcpListener, fake: Fake) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        let service = TowerToHyperService::new(BrokerServer::new(fake.clone()));
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        connections.spawn(builder.serve_connection(TokioIo::new(connection), service));
    }
}

#[tonic::async_trait]
impl pb::broker_server::Broker for Fake {
    type PublishStream = Out<pb::PublishResponse>;
    type SubscribeStream = Out<pb::SubscribeResponse>;
    type WatchTopologyStream =
        std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::Topology, Status>> + Send>>;

    async fn publish(
        &self,
        request: Request<Streaming<pb::PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        publish::publish(self.clone(), request.into_inner())
            .await
            .map(Response::new)
    }

    async fn send(&self, _: Request<pb::SendRequest>) -> Result<Response<pb::SendResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<pb::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        subscribe::subscribe(self.clone(), request.into_inner())
            .await
            .map(Response::new)
    }

    async fn watch_topology(
        &self,
        _: Request<pb::WatchTopologyRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        use tokio_stream::StreamExt as _;
        let topologies = WatchStream::new(self.topology.clone()).map(Ok);
        Ok(Response::new(Box::pin(topologies)))
    }
}

impl Fake {
    pub fn check_topic(&self, topic: &str) -> Result<(), Status> {
        match self.state.lock().faults.topic_exists && topic == TOPIC {
            true => Ok(()),
            false => Err(Status::not_found(format!("topic {topic} does not exist"))),
        }
    }
}

/// Waits until something holds, 20 s at most.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 20 s");
}
