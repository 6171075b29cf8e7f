//! A real broker in this process, on ports that are free, configured as an operator would.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use sluice::broker::config::BrokerArgs;
use sluice::broker::{Listeners, run};
use sluice::pb;
use sluice::pb::broker_client::BrokerClient;
use sluice::pb::control_client::ControlClient;
use sluice::pb::publish_request::Request as PublishRequestKind;
use sluice::pb::publish_response::Response as Published;
use sluice::pb::subscribe_request::Request as SubscribeRequestKind;
use sluice::pb::subscribe_response::Response as Subscribed;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Nothing here takes longer, unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    broker: BrokerArgs,
}

/// A broker that runs until it is dropped.
pub struct TestBroker {
    pub name: String,
    pub data: SocketAddr,
    pub control: SocketAddr,
    pub http: SocketAddr,
    pub directory: PathBuf,
    pub shutdown: CancellationToken,
    task: Option<JoinHandle<()>>,
    kept: Option<tempfile::TempDir>,
}

impl TestBroker {
    /// An unconfigured broker of the cluster default/orders with a directory of its own.
    pub async fn start(name: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut broker = Self::start_in(name, directory.path().to_owned(), flags).await;
        broker.kept = Some(directory);
        broker
    }

    /// The same in a directory that was used before.
    pub async fn start_in(name: &str, directory: PathBuf, flags: &[&str]) -> Self {
        let any = "127.0.0.1:0";
        let data_dir = directory.to_string_lossy().into_owned();
        let mut words = vec![
            "broker",
            "--name",
            name,
            "--cluster",
            "default/orders",
            "--data-dir",
            &data_dir,
        ];
        words.extend(["--listen", any, "--control-listen", any, "--http-listen", any]);
        words.extend(["--segment-bytes", "4Mi"]);
        if !flags.contains(&"--topic-wait") {
            words.extend(["--topic-wait", "500ms"]);
        }
        words.extend(flags);
        let args = Flags::try_parse_from(words).unwrap().broker;
        let listeners = Listeners::bind(&args).await.unwrap();
        let (data, control, http) = (
            listeners.data.local_addr().unwrap(),
            listeners.control.local_addr().unwrap(),
            listeners.http.local_addr().unwrap(),
        );
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { run(args, listeners, token).await.unwrap() });
        Self {
            name: name.to_owned(),
            data,
            control,
            http,
            directory,
            shutdown,
            task: Some(task),
            kept: None,
        }
    }

    /// As SIGTERM does; returns when it has stopped.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(task) = self.task.take() {
            tokio::time::timeout(PATIENCE, task)
                .await
                .expect("it stops within its grace")
                .unwrap();
        }
    }

    pub async fn channel(&self) -> Channel {
        connect(self.data).await
    }

    pub async fn client(&self) -> BrokerClient<Channel> {
        BrokerClient::new(self.channel().await)
    }

    pub async fn operator(&self) -> ControlClient<Channel> {
        ControlClient::new(connect(self.control).await)
    }

    /// What the broker reports of itself now.
    pub async fn pressure(&self) -> pb::PressureReport {
        let request = pb::WatchPressureRequest { interval: None };
        let mut reports = self
            .operator()
            .await
            .watch_pressure(request)
            .await
            .unwrap()
            .into_inner();
        reports.message().await.unwrap().expect("a report")
    }

    /// Waits until a report is as it should be.
    pub async fn pressure_becomes(&self, what: &str, is: impl Fn(&pb::PressureReport) -> bool) {
        let request = pb::WatchPressureRequest {
            interval: Some(prost_types::Duration {
                seconds: 0,
                nanos: 50_000_000,
            }),
        };
        let mut reports = self
            .operator()
            .await
            .watch_pressure(request)
            .await
            .unwrap()
            .into_inner();
        let mut last = None;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let report = reports.message().await.unwrap().expect("a report");
                if is(&report) {
                    return;
                }
                last = Some(report);
            }
        });
        if found.await.is_err() {
            panic!("{what}: {last:?}");
        }
    }

    /// A page of its HTTP port, with the status.
    pub async fn page(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text)
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    tokio::time::timeout(PATIENCE, async {
        loop {
            match endpoint.connect().await {
                Ok(channel) => return channel,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
    .expect("it listens")
}

/// What an operator wants of a cluster.
#[derive(Clone)]
pub struct Wanted {
    pub configuration: pb::Configuration,
}

impl Wanted {
    /// The topic `orders`, its partitions spread over the brokers.
    pub fn spread(brokers: &[&TestBroker], partitions: u32) -> Self {
        let owner = |index: u32| brokers[index as usize % brokers.len()].name.clone();
        let partitions = (0..partitions)
            .map(|index| partition(index, 1, &owner(index)))
            .collect();
        let brokers = brokers.iter().map(|broker| pb::PeerEndpoint {
            name: broker.name.clone(),
            address: broker.data.to_string(),
            control_address: broker.control.to_string(),
        });
        Self {
            configuration: pb::Configuration {
                generation: 1,
                broker: String::new(),
                cluster: "default/orders".to_owned(),
                durability: pb::Durability::Fsync.into(),
                channel: Some(pb::ChannelConfiguration { capacity: 128 }),
                limits: None,
                brokers: brokers.collect(),
                topics: vec![pb::TopicConfiguration {
                    name: "orders".to_owned(),
                    uid: "uid-1".to_owned(),
                    partitions,
                    ack_deadline: Some(prost_types::Duration {
                        seconds: 30,
                        nanos: 0,
                    }),
                    max_deliveries: 0,
                    dead_letter_topic: String::new(),
                    retention: Some(pb::Retention::default()),
                }],
                auto_create_topics: false,
                leader_term: 1,
            },
        }
    }

    /// Sends it to every broker, as a newer generation than before; every broker takes its appends at once.
    pub async fn apply(&mut self, brokers: &[&TestBroker]) {
        let problems = self.offer(brokers).await;
        assert_eq!(problems, []);
    }

    /// The same; returns what cannot take appends yet.
    pub async fn offer(&mut self, brokers: &[&TestBroker]) -> Vec<pb::PartitionProblem> {
        self.configuration.generation += 1;
        let mut problems = Vec::new();
        for broker in brokers {
            let configuration = pb::Configuration {
                broker: broker.name.clone(),
                ..self.configuration.clone()
            };
            let response = broker
                .operator()
                .await
                .configure(configuration)
                .await
                .unwrap()
                .into_inner();
            problems.extend(response.problems);
        }
        problems
    }
}

fn partition(index: u32, epoch: u64, broker: &str) -> pb::PartitionConfiguration {
    pb::PartitionConfiguration {
        index,
        epoch,
        chain: vec![pb::ChainEntry {
            epoch,
            brokers: vec![broker.to_owned()],
            sealed_at: None,
        }],
    }
}

/// One configured broker with the topic `orders`.
pub async fn one_broker(partitions: u32, flags: &[&str]) -> TestBroker {
    let broker = TestBroker::start("orders-0", flags).await;
    Wanted::spread(&[&broker], partitions).apply(&[&broker]).await;
    broker
}

pub fn payload(sequence: u64, body: &[u8]) -> pb::Payload {
    pb::Payload {
        sequence,
        body: body.to_vec().into(),
        ..pb::Payload::default()
    }
}

/// A publish stream that does only what it is told.
pub struct Publisher {
    requests: mpsc::UnboundedSender<pb::PublishRequest>,
    pub responses: Streaming<pb::PublishResponse>,
    pub welcome: pb::PublishWelcome,
    /// Payloads that were settled, for tests that count.
    pub settled: u64,
}

impl Publisher {
    pub async fn open(broker: &TestBroker, open: pb::PublishOpen) -> Result<Self, Status> {
        Self::open_on(&mut broker.client().await, open).await
    }

    pub async fn open_on(client: &mut BrokerClient<Channel>, open: pb::PublishOpen) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let request = pb::PublishRequest {
            request: Some(PublishRequestKind::Open(open)),
        };
        requests.send(request).unwrap();
        let responses = client
            .publish(UnboundedReceiverStream::new(receiver))
            .await?
            .into_inner();
        let mut publisher = Self {
            requests,
            responses,
            welcome: pb::PublishWelcome::default(),
            settled: 0,
        };
        match publisher.next().await? {
            Some(Published::Welcome(welcome)) => publisher.welcome = welcome,
            other => panic!("no welcome but {other:?}"),
        }
        Ok(publisher)
    }

    /// To the topic `orders`, without a producer id.
    pub async fn orders(broker: &TestBroker) -> Self {
        let open = pb::PublishOpen {
            topic: "orders".to_owned(),
            ..pb::PublishOpen::default()
        };
        Self::open(broker, open).await.unwrap()
    }

    pub fn send(&self, payloads: Vec<pb::Payload>) {
        let batch = pb::PublishBatch {
            payloads,
            waited_nanos: 0,
            offered_messages: None,
        };
        let request = pb::PublishRequest {
            request: Some(PublishRequestKind::Batch(batch)),
        };
        let _ = self.requests.send(request);
    }

    pub async fn next(&mut self) -> Result<Option<Published>, Status> {
        let message = tokio::time::timeout(PATIENCE, self.responses.message())
            .await
            .expect("an answer")?;
        Ok(message.map(|message| message.response.expect("a response")))
    }

    /// Reads until this sequence is acknowledged; returns everything but credit that was said.
    pub async fn acked(&mut self, sequence: u64) -> Vec<Published> {
        let mut said = Vec::new();
        loop {
            match self.next().await.unwrap().expect("the stream goes on") {
                Published::Credit(_) => {}
                Published::Ack(ack) => {
                    let is_last = ack.sequence >= sequence;
                    said.push(Published::Ack(ack));
                    if is_last {
                        return said;
                    }
                }
                other => said.push(other),
            }
        }
    }

    /// Reads until the stream ends with an error.
    pub async fn fails(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended well"),
                Err(status) => return status,
            }
        }
    }

    /// Sends no more, and reads to the end.
    pub async fn finish(self) {
        let Self {
            requests,
            mut responses,
            ..
        } = self;
        drop(requests);
        while responses.message().await.unwrap().is_some() {}
    }
}

/// A subscription that does only what it is told.
pub struct Subscriber {
    requests: mpsc::UnboundedSender<pb::SubscribeRequest>,
    pub responses: Streaming<pb::SubscribeResponse>,
    pub welcome: pb::SubscribeWelcome,
}

impl Subscriber {
    pub async fn open(broker: &TestBroker, open: pb::SubscribeOpen) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let request = pb::SubscribeRequest {
            request: Some(SubscribeRequestKind::Open(open)),
        };
        requests.send(request).unwrap();
        let mut client = broker.client().await.max_decoding_message_size(64 << 20);
        let responses = client
            .subscribe(UnboundedReceiverStream::new(receiver))
            .await?
            .into_inner();
        let mut subscriber = Self {
            requests,
            responses,
            welcome: pb::SubscribeWelcome::default(),
        };
        match subscriber.next().await? {
            Some(Subscribed::Welcome(welcome)) => subscriber.welcome = welcome,
            other => panic!("no welcome but {other:?}"),
        }
        Ok(subscriber)
    }

    /// To the topic `orders`, from the beginning.
    pub async fn orders(broker: &TestBroker, group: &str) -> Self {
        let open = pb::SubscribeOpen {
            topic: "orders".to_owned(),
            group: group.to_owned(),
            ..pb::SubscribeOpen::default()
        };
        Self::open(broker, open).await.unwrap()
    }

    fn request(&self, request: SubscribeRequestKind) {
        let _ = self.requests.send(pb::SubscribeRequest {
            request: Some(request),
        });
    }

    pub fn credit(&self, messages: u64) {
        self.request(SubscribeRequestKind::Credit(pb::ConsumerCredit {
            messages,
            bytes: 64 << 20,
        }));
    }

    pub fn settle(&self, settle: pb::Settle) {
        self.request(SubscribeRequestKind::Settle(settle));
    }

    pub async fn next(&mut self) -> Result<Option<Subscribed>, Status> {
        let message = tokio::time::timeout(PATIENCE, self.responses.message())
            .await
            .expect("an answer")?;
        Ok(message.map(|message| message.response.expect("a response")))
    }

    /// Reads until it has so many messages.
    pub async fn take(&mut self, count: usize) -> Vec<pb::Delivery> {
        let mut deliveries = Vec::new();
        while deliveries.len() < count {
            if let Subscribed::Deliveries(batch) = self.next().await.unwrap().expect("the stream goes on") {
                deliveries.extend(batch.deliveries);
            }
        }
        deliveries
    }

    /// Acknowledges, and reads what became of it.
    pub async fn ack(&mut self, deliveries: &[pb::Delivery]) -> pb::Settled {
        let ack = deliveries
            .iter()
            .map(|delivery| delivery.token.clone())
            .collect::<Vec<_>>();
        let count = ack.len();
        self.settle(pb::Settle {
            ack,
            ..pb::Settle::default()
        });
        let mut settled = pb::Settled::default();
        while settled.settled.len() + settled.refused.len() < count {
            if let Subscribed::Settled(some) = self.next().await.unwrap().expect("the stream goes on") {
                settled.settled.extend(some.settled);
                settled.refused.extend(some.refused);
            }
        }
        settled
    }
}
