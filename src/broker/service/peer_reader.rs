//! What the core asks of other brokers, by gRPC.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tonic::Request;

use super::forward::{Delivery, Part};
use super::payload::Spread;
use super::peer_client::Peers;
use super::shared::Shared;
use crate::broker::peer::{DeadLetters, PeerFuture, PeerReader};
use crate::broker::store::NewMessage;
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
    fn publish<'a>(&'a self, topic: &'a str, message: NewMessage) -> PeerFuture<'a, ()> {
        Box::pin(async move {
            let shared = self.shared.upgrade().ok_or("the broker is stopping")?;
            let view = shared
                .store
                .topic(topic)
                .ok_or_else(|| format!("there is no topic {topic:?}"))?;
            let headers: usize = message
                .headers
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            let bytes = (message.key.len() + headers + message.body.len()) as u64;
            let mut spread = Spread::new("");
            spread.turn(&view);
            let partition = spread.place(&message.key, None, message.sequence, &view);
            let part = Part {
                partition,
                messages: vec![message],
                bytes,
            };
            let now = Instant::now();
            let delivery = Delivery {
                shared: Arc::clone(&shared),
                topic: topic.to_owned(),
                producer: String::new(),
                arrived: now,
                deadline: now + TIMEOUT,
                may_forward: true,
            };
            match delivery.run(part).await {
                Ok(_) => Ok(()),
                Err(undelivered) => Err(format!("{:?}", undelivered.why)),
            }
        })
    }
}
