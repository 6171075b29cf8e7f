//! Publishers that record what they are told: through the client library, and message by message with `Send`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sluice::client::{Client, ClientOptions, Message};
use sluice::pb;
use sluice::pb::broker_client::BrokerClient;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::history::{History, Id, WITHOUT_ID};
use crate::process::PATIENCE;

/// The topic of every load.
pub const TOPIC: &str = "load";

/// Who publishes, and where to.
#[derive(Clone)]
pub struct Producer {
    pub number: u32,
    pub address: SocketAddr,
    pub partitions: u32,
    pub history: Arc<History>,
    pub seed: u64,
    /// The longest pause between two batches.
    pub pause: Duration,
}

/// The content of a message: who it is, and bytes that follow from that.
pub fn body(id: Id) -> Bytes {
    let mut body = Vec::with_capacity(12 + 256);
    body.extend(id.0.to_le_bytes());
    body.extend(id.1.to_le_bytes());
    let filling = (u64::from(id.0) * 31 + id.1 * 17) % 257;
    body.extend((0..filling).map(|i| (i * 7 + id.1) as u8));
    Bytes::from(body)
}

/// Who a message is, by its content.
pub fn id(content: &Bytes) -> Id {
    assert!(content.len() >= 12, "a foreign message: {content:?}");
    let producer = u32::from_le_bytes(content[..4].try_into().unwrap());
    let number = u64::from_le_bytes(content[4..12].try_into().unwrap());
    assert_eq!(*content, body((producer, number)), "damaged");
    (producer, number)
}

/// A connection for the wire's own calls. Nothing is connected before it is used.
pub fn connect(address: SocketAddr) -> BrokerClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(4));
    BrokerClient::new(endpoint.connect_lazy()).max_decoding_message_size(64 << 20)
}

impl Producer {
    fn name(&self) -> String {
        if self.number < WITHOUT_ID {
            format!("producer-{}", self.number)
        } else {
            String::new()
        }
    }

    /// Publishes with the client library, many messages at a time, until it is stopped; returns when all of them are
    /// acknowledged.
    pub async fn stream(self, stop: CancellationToken) {
        let options = ClientOptions {
            topology_timeout: PATIENCE,
            // Through the given address also where the broker advertises another one.
            forward: true,
            ..ClientOptions::default()
        };
        let client = Client::connect_with([self.address.to_string()], options)
            .await
            .unwrap();
        let publisher = client
            .publisher(TOPIC)
            .producer_id(self.name())
            .batch(16, 64 << 10)
            .buffer(200, 4 << 20)
            .delivery_timeout(None)
            .open();
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut receipts = JoinSet::new();
        let mut number = 0;
        while !stop.is_cancelled() {
            for _ in 0..random.random_range(1..20) {
                let partition = random.random_range(0..self.partitions);
                let id = (self.number, number);
                number += 1;
                let index = self.history.append_begins(id, partition);
                let message = Message::new(body(id)).partition(partition);
                let receipt = publisher.publish(message).await.unwrap();
                let history = Arc::clone(&self.history);
                receipts.spawn(async move {
                    let stored = receipt.await.expect("it is tried for ever");
                    assert_eq!(stored.partition, partition);
                    let exact = stored.exact.then_some(stored.offset);
                    history.append_acked(index, exact, Some(stored.offset));
                });
            }
            while let Some(result) = receipts.try_join_next() {
                result.unwrap();
            }
            tokio::time::sleep(self.pause.mul_f64(random.random())).await;
        }
        publisher.close().await.unwrap();
        while let Some(result) = receipts.join_next().await {
            result.unwrap();
        }
    }

    /// Publishes batches of one partition with `Send`, each until it is acknowledged, until it is stopped.
    pub async fn unary(self, stop: CancellationToken) {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut client = connect(self.address);
        let mut number = 0;
        while !stop.is_cancelled() {
            let partition = random.random_range(0..self.partitions);
            let count = random.random_range(1..8);
            let ids: Vec<Id> = (number..number + count)
                .map(|number| (self.number, number))
                .collect();
            number += count;
            self.send(&mut client, partition, &ids).await;
            tokio::time::sleep(self.pause.mul_f64(random.random())).await;
        }
    }

    /// Sends these messages in one batch until they are acknowledged.
    pub async fn send(&self, client: &mut BrokerClient<Channel>, partition: u32, ids: &[Id]) {
        let indexes: Vec<usize> = ids
            .iter()
            .map(|id| self.history.append_begins(*id, partition))
            .collect();
        let request = self.request(partition, ids);
        loop {
            match tokio::time::timeout(Duration::from_secs(10), client.send(request.clone())).await {
                Ok(Ok(response)) => {
                    let offsets = response.into_inner().offsets;
                    assert_eq!(offsets.len(), ids.len());
                    for (index, offset) in indexes.iter().zip(offsets) {
                        assert_eq!(offset.partition, partition);
                        self.history.append_acked(*index, Some(offset.offset), None);
                    }
                    return;
                }
                Ok(Err(status)) => assert!(is_temporary(&status), "{status:?}"),
                Err(_) => *client = connect(self.address),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// These messages as one request.
    pub fn request(&self, partition: u32, ids: &[Id]) -> pb::SendRequest {
        let payload = |id: &Id| pb::Payload {
            body: body(*id),
            sequence: id.1 + 1,
            partition: Some(partition),
            ..pb::Payload::default()
        };
        pb::SendRequest {
            topic: TOPIC.to_owned(),
            producer_id: self.name(),
            payloads: ids.iter().map(payload).collect(),
            direct: false,
        }
    }
}

/// Whether the same call may work later.
pub fn is_temporary(status: &tonic::Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::Aborted
    )
}
