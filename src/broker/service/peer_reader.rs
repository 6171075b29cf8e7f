//! What the core asks of other brokers, by gRPC.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tonic::Request;

use super::forward::{Delivery, Part, Why};
use super::peer_client::Peers;
use super::shared::Shared;
use crate::broker::peer::{DeadLetters, PeerFuture, PeerReader};
use crate::broker::store::{NewMessage, partition_of};
use crate::pb;

/// A call that takes longer is tried again by the core.
const TIMEOUT: Duration = Duration::from_secs(5);

impl PeerReader for Peers {
    fn read<'a>(
        &'a self,
        control_address: &'a str,
        request: pb::ReadRequest,
    ) -> PeerFuture<'a, pb::ReadResponse> {
        Box::pin(async move {
            let mut client = self.control(control_address).map_err(text)?;
            let mut request = Request::new(request);
            request.set_timeout(TIMEOUT);
            let answer = tokio::time::timeout(TIMEOUT, client.read(request)).await;
            answer
                .map_err(|_| late(control_address))?
                .map(tonic::Response::into_inner)
                .map_err(text)
        })
    }

    fn handoff<'a>(
        &'a self,
        control_address: &'a str,
        request: pb::HandoffRequest,
    ) -> PeerFuture<'a, pb::HandoffResponse> {
        Box::pin(async move {
            let mut client = self.control(control_address).map_err(text)?;
            let mut request = Request::new(request);
            request.set_timeout(TIMEOUT);
            let answer = tokio::time::timeout(TIMEOUT, client.handoff(request)).await;
            answer
                .map_err(|_| late(control_address))?
                .map(tonic::Response::into_inner)
                .map_err(text)
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn text(status: tonic::Status) -> String {
    status.message().to_owned()
}

fn late(address: &str) -> String {
    format!("{address} did not answer within {} s", TIMEOUT.as_secs())
}

/// Publishes dead letters to their topic, wherever its partitions are.
pub(crate) struct DeadLetterSender {
    /// Weak: the broker's store has this, and the broker the store.
    shared: Weak<Shared>,
}

impl std::fmt::Debug for DeadLetterSender {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DeadLetterSender").finish_non_exhaustive()
    }
}

impl DeadLetterSender {
    /// For this broker.
    pub(crate) fn new(shared: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::downgrade(shared),
        })
    }
}

impl DeadLetters for DeadLetterSender {
    fn publish<'a>(&'a self, topic: &'a str, producer: &'a str, message: NewMessage) -> PeerFuture<'a, ()> {
        Box::pin(async move {
            let shared = self.shared.upgrade().ok_or("the broker is stopping")?;
            // One that is not there is asked for, where topics are made on demand.
            let view = shared
                .topic(topic)
                .await
                .map_err(|status| status.message().to_owned())?;
            let headers: usize = message
                .headers
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            let bytes = (message.key.len() + headers + message.body.len()) as u64;
            let partition = partition_of(&message.key, producer, view.partitions.len() as u32);
            let part = Part {
                partition,
                messages: vec![message],
                bytes,
            };
            let now = Instant::now();
            let delivery = Delivery {
                shared: Arc::clone(&shared),
                topic: topic.to_owned(),
                producer: producer.to_owned(),
                arrived: now,
                deadline: now + TIMEOUT,
                may_forward: true,
            };
            match delivery.run(part).await {
                Ok(_) => Ok(()),
                Err(undelivered) => Err(match undelivered.why {
                    Why::Moved { address, .. } => {
                        format!("partition {partition} of {topic:?} is moving to {address:?}")
                    }
                    Why::Later(text) | Why::Never(text) | Why::NotStored(text) | Why::Failed(text) => text,
                }),
            }
        })
    }
}
