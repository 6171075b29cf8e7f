//! A subscription at another broker, for a client that wants the whole topic from this one.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::shared::Shared;
use crate::pb;
use crate::pb::subscribe_request::Request;
use crate::pb::subscribe_response::Response;

/// The most messages and bytes that one other broker may have sent ahead.
const MOST_AHEAD: (u64, u64) = (256, 1 << 20);

/// What another broker said.
#[derive(Debug)]
pub(super) struct Event {
    /// Its name.
    pub owner: Arc<str>,
    /// Tells this subscription from an earlier one at the same broker.
    pub id: u64,
    /// What it said; an error when the subscription is over.
    pub said: Result<Response, Status>,
}

/// One subscription at another broker; it ends when dropped.
#[derive(Debug)]
pub(super) struct Remote {
    /// Tells it from an earlier one at the same broker.
    pub id: u64,
    requests: mpsc::UnboundedSender<pb::SubscribeRequest>,
    ahead: (u64, u64),
    /// What was given back unsent: the client does not hear of it.
    given_back: HashSet<Bytes>,
    _task: AbortOnDropHandle<()>,
}

impl Remote {
    /// Subscribes; what comes goes to `events`.
    pub(super) fn open(
        shared: &Arc<Shared>,
        owner: &Arc<str>,
        id: u64,
        open: pb::SubscribeOpen,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        let first = Request::Open(pb::SubscribeOpen { direct: true, ..open });
        let _ = requests.send(pb::SubscribeRequest { request: Some(first) });
        let (shared, owner) = (Arc::clone(shared), Arc::clone(owner));
        let task = tokio::spawn(async move {
            let end = follow(&shared, &owner, id, receiver, &events).await;
            let _ = events
                .send(Event {
                    owner,
                    id,
                    said: Err(end),
                })
                .await;
        });
        Self {
            id,
            requests,
            ahead: (0, 0),
            given_back: HashSet::new(),
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Lets it send ahead its share of what the client may get: one of `owners`, at least one message.
    pub(super) fn grant(&mut self, credit: (u64, u64), owners: u64) {
        let messages = (credit.0 / owners).clamp(1, MOST_AHEAD.0);
        let bytes = (credit.1 / owners).clamp(1, MOST_AHEAD.1);
        if self.ahead.0 <= messages / 2 || self.ahead.1 <= bytes / 2 {
            let more = pb::ConsumerCredit {
                messages: messages.saturating_sub(self.ahead.0),
                bytes: bytes.saturating_sub(self.ahead.1),
            };
            self.ahead = (self.ahead.0 + more.messages, self.ahead.1 + more.bytes);
            self.request(Request::Credit(more));
        }
    }

    /// Notes that so much came.
    pub(super) fn received(&mut self, messages: u64, bytes: u64) {
        self.ahead = (
            self.ahead.0.saturating_sub(messages),
            self.ahead.1.saturating_sub(bytes),
        );
    }

    /// Passes answers on.
    pub(super) fn settle(&self, settle: pb::Settle) {
        self.request(Request::Settle(settle));
    }

    /// Gives back what the client was never sent.
    pub(super) fn give_back(&mut self, settle: pb::Settle) {
        self.given_back
            .extend(settle.nack.iter().map(|nack| nack.token.clone()));
        self.settle(settle);
    }

    /// Takes out of an answer what the client did not ask for.
    pub(super) fn without_given_back(&mut self, settled: &mut pb::Settled) {
        if !self.given_back.is_empty() {
            settled.settled.retain(|token| !self.given_back.remove(token));
            settled
                .refused
                .retain(|refused| !self.given_back.remove(&refused.token));
        }
    }

    fn request(&self, request: Request) {
        // A subscription that is over says so by an event.
        let _ = self.requests.send(pb::SubscribeRequest {
            request: Some(request),
        });
    }
}

async fn follow(
    shared: &Shared,
    owner: &Arc<str>,
    id: u64,
    requests: mpsc::UnboundedReceiver<pb::SubscribeRequest>,
    events: &mpsc::Sender<Event>,
) -> Status {
    let ended = || Status::unavailable("the other broker ended the subscription");
    let subscribe = async {
        let mut client = shared.peers.stream(owner)?;
        let mut responses = client
            .subscribe(UnboundedReceiverStream::new(requests))
            .await?
            .into_inner();
        while let Some(response) = responses.message().await? {
            let Some(said) = response.response else { continue };
            let event = Event {
                owner: Arc::clone(owner),
                id,
                said: Ok(said),
            };
            if events.send(event).await.is_err() {
                break;
            }
        }
        Err::<(), Status>(ended())
    };
    subscribe.await.err().unwrap_or_else(ended)
}
