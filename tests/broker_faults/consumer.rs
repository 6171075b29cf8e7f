//! Members of groups that record what they get, and what becomes of their answers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng as _;
use rand::rngs::StdRng;
use sluice::pb;
use sluice::pb::subscribe_request::Request;
use sluice::pb::subscribe_response::Response;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use crate::history::{Answer, Delivery, History, Outcome};
use crate::producer::{TOPIC, connect, id};

/// No answer takes longer from a broker that is there.
const ANSWER: Duration = Duration::from_secs(10);

/// A delivery in hand: its index in the history, and its token.
pub type Held = (usize, Bytes);

/// A stream of one member.
pub struct Member {
    pub group: String,
    history: Arc<History>,
    requests: mpsc::UnboundedSender<pb::SubscribeRequest>,
    responses: Streaming<pb::SubscribeResponse>,
    /// Messages that may still come, and the moment since which one may.
    credit: u64,
    since: Duration,
    /// Deliveries that were not looked at yet.
    inbox: Vec<(Held, pb::Delivery)>,
    /// Answers that the broker has not answered, by token: a token may be sent twice.
    waiting: HashMap<Bytes, Vec<usize>>,
}

impl Member {
    /// Joins a group, from the beginning of the log where the group is new.
    pub async fn join(address: SocketAddr, group: &str, history: &Arc<History>) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let open = pb::SubscribeOpen {
            topic: TOPIC.to_owned(),
            group: group.to_owned(),
            ..pb::SubscribeOpen::default()
        };
        let mut member = Self {
            group: group.to_owned(),
            history: Arc::clone(history),
            requests,
            responses: {
                let mut client = connect(address);
                let open = pb::SubscribeRequest {
                    request: Some(Request::Open(open)),
                };
                let rest = UnboundedReceiverStream::new(receiver);
                let stream = tokio_stream::StreamExt::chain(tokio_stream::once(open), rest);
                in_time(client.subscribe(stream)).await?.into_inner()
            },
            credit: 0,
            since: Duration::ZERO,
            inbox: Vec::new(),
            waiting: HashMap::new(),
        };
        member.read(ANSWER).await?;
        Ok(member)
    }

    fn request(&self, request: Request) -> Result<(), Status> {
        let request = pb::SubscribeRequest {
            request: Some(request),
        };
        let gone = |_| Status::unavailable("the stream ended");
        self.requests.send(request).map_err(gone)
    }

    /// Grants credit up to so many messages.
    pub fn grant(&mut self, messages: u64) -> Result<(), Status> {
        if self.credit == 0 {
            self.since = self.history.now();
        }
        let more = messages.saturating_sub(self.credit);
        self.credit += more;
        self.request(Request::Credit(pb::ConsumerCredit {
            messages: more,
            bytes: more << 20,
        }))
    }

    /// Reads one response. `false`: none came in this time.
    async fn read(&mut self, within: Duration) -> Result<bool, Status> {
        let Ok(response) = tokio::time::timeout(within, self.responses.message()).await else {
            return Ok(false);
        };
        let response = response?.and_then(|response| response.response);
        match response.ok_or_else(|| Status::unavailable("the stream ended"))? {
            Response::Deliveries(deliveries) => {
                for delivery in deliveries.deliveries {
                    assert!(self.credit > 0, "more messages than were granted");
                    self.credit -= 1;
                    let index = self.history.delivered(Delivery {
                        group: self.group.clone(),
                        id: id(&delivery.body),
                        partition: delivery.partition,
                        offset: delivery.offset,
                        began: self.since,
                        received: self.history.now(),
                    });
                    self.inbox.push(((index, delivery.token.clone()), delivery));
                }
            }
            Response::Settled(settled) => {
                for token in settled.settled {
                    self.settled(&token, Outcome::Confirmed);
                }
                for refused in settled.refused {
                    // Everything but a stale token may work later: the broker stops, or its disk is full.
                    let stale = refused.code == Code::Aborted as i32;
                    let outcome = if stale { Outcome::Stale } else { Outcome::Unknown };
                    self.settled(&refused.token, outcome);
                }
            }
            Response::GoAway(_) => return Err(Status::unavailable("go away")),
            _ => {}
        }
        Ok(true)
    }

    fn settled(&mut self, token: &Bytes, outcome: Outcome) {
        let answers = self.waiting.get_mut(token).expect("an answer to what was asked");
        let index = answers.remove(0);
        if answers.is_empty() {
            self.waiting.remove(token);
        }
        self.history.settle_ends(index, outcome);
    }

    /// Messages that are there, or that come in this time: at most all that were granted.
    pub async fn take(&mut self, within: Duration) -> Result<Vec<(Held, pb::Delivery)>, Status> {
        while self.credit > 0 && self.read(within).await? {}
        Ok(std::mem::take(&mut self.inbox))
    }

    /// Answers, and waits for what becomes of the answers.
    pub async fn settle(&mut self, acks: &[Held], nacks: &[(Held, Duration)]) -> Result<(), Status> {
        if acks.is_empty() && nacks.is_empty() {
            return Ok(());
        }
        for (index, token) in acks {
            let settle = self.history.settle_begins(*index, Answer::Ack);
            self.waiting.entry(token.clone()).or_default().push(settle);
        }
        for ((index, token), _) in nacks {
            let settle = self.history.settle_begins(*index, Answer::Nack);
            self.waiting.entry(token.clone()).or_default().push(settle);
        }
        let nack = |((_, token), delay): &(Held, Duration)| pb::Nack {
            token: token.clone(),
            delay: Some((*delay).try_into().expect("a short time")),
            unseen: false,
        };
        self.request(Request::Settle(pb::Settle {
            ack: acks.iter().map(|(_, token)| token.clone()).collect(),
            nack: nacks.iter().map(nack).collect(),
            ..pb::Settle::default()
        }))?;
        while !self.waiting.is_empty() {
            if !self.read(ANSWER).await? {
                return Err(Status::unavailable("no answer"));
            }
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        for index in self.waiting.drain().flat_map(|(_, indexes)| indexes) {
            self.history.settle_ends(index, Outcome::Unknown);
        }
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::unavailable("no answer");
    tokio::time::timeout(ANSWER, call).await.map_err(late)?
}

/// A member that comes back however its stream ends.
pub struct Consumer {
    pub group: String,
    pub address: SocketAddr,
    pub history: Arc<History>,
    pub random: StdRng,
    /// Deliveries of this group that nobody answered, to be answered late.
    pub late: Arc<Mutex<Vec<Held>>>,
    /// From then on everything is acknowledged.
    pub draining: CancellationToken,
}

impl Consumer {
    /// Consumes until it is stopped. An answer that is on its way is waited for.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let session = self.session(&stop).await;
            if session.is_err() {
                tokio::time::sleep(Duration::from_millis(self.random.random_range(10..100))).await;
            }
        }
    }

    async fn session(&mut self, stop: &CancellationToken) -> Result<(), Status> {
        let mut member = Member::join(self.address, &self.group, &self.history).await?;
        let began_draining = self.draining.is_cancelled();
        loop {
            let draining = self.draining.is_cancelled();
            let most = if draining {
                200
            } else {
                self.random.random_range(1..60)
            };
            member.grant(most)?;
            let held = member.take(Duration::from_millis(50)).await?;
            let (mut acks, mut nacks, mut late) = (Vec::new(), Vec::new(), Vec::new());
            for (held, _) in held {
                match self.random.random_range(0..100) {
                    0..4 if !draining => {
                        nacks.push((
                            held.clone(),
                            Duration::from_millis(self.random.random_range(0..50)),
                        ));
                        // Its token is stale from then on.
                        late.push(held);
                    }
                    4..6 if !draining => late.push(held),
                    _ => acks.push(held),
                }
            }
            let known = self.late.lock().len();
            if known > 20 {
                acks.extend(self.late.lock().drain(..known / 2));
            }
            // Only from the next round on.
            self.late.lock().extend(late);
            member.settle(&acks, &nacks).await?;
            // What it left unanswered is delivered again when it leaves.
            let is_over = stop.is_cancelled() || draining != began_draining;
            if is_over || self.random.random_range(0..40) == 0 {
                return Ok(());
            }
        }
    }
}
