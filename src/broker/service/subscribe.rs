//! One subscription: a member of a group here and, for a client that asked for it, at every other owner of the
//! topic's partitions. It always drains its requests; deliveries go out as far as the client's credit.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::ReusableBoxFuture;
use tonic::{Code, Status, Streaming};

use super::outbox::{Outbox, OutboxStream};
use super::remote::{Event, Remote};
use super::settle::{self, Answers};
use super::shared::Shared;
use super::subscribe_out::SubscribeOut;
use super::{delivery, optional, token};
use crate::broker::group::{Answer, Budget, Delivered, JoinError, Member, Next, Order, Refused, Revocations};
use crate::broker::refusals::Reason;
use crate::broker::store::TopicView;
use crate::pb;
use crate::pb::subscribe_request::Request;
use crate::pb::subscribe_response::Response;

const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that has so much to read gets no more until it reads.
const MOST_UNREAD: (u64, usize) = (256 << 10, 16);
/// A client that settles this often without reading the answers is cut off.
const MOST_UNREAD_ANSWERS: usize = 1 << 16;
/// How often a member without credit looks whether messages wait.
const TICK: Duration = Duration::from_millis(500);
/// After a GoAway, answers are still taken for this long.
const LINGER: Duration = Duration::from_secs(2);

/// Serves one stream.
pub(super) fn serve(
    shared: &Arc<Shared>,
    requests: Streaming<pb::SubscribeRequest>,
) -> tonic::Response<OutboxStream<SubscribeOut>> {
    let outbox = Outbox::new();
    let session = run(Arc::clone(shared), requests, Arc::clone(&outbox));
    OutboxStream::answer(outbox, shared, session)
}

async fn run(
    shared: Arc<Shared>,
    mut requests: Streaming<pb::SubscribeRequest>,
    outbox: Arc<Outbox<SubscribeOut>>,
) -> Result<(), Status> {
    let first = tokio::time::timeout(OPEN_TIMEOUT, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the stream was not opened; send SubscribeOpen first"))??;
    let Some(pb::SubscribeRequest {
        request: Some(Request::Open(open)),
    }) = first
    else {
        return Err(Status::invalid_argument(
            "the first request of a subscription is SubscribeOpen",
        ));
    };
    delivery::check_open(&open)?;
    let start = delivery::start(open.start.as_ref())?;
    let Some((topic, early)) = wait_for_topic(&shared, &open.topic, &mut requests).await? else {
        return Ok(());
    };
    let order = if open.ordered { Order::ByKey } else { Order::None };
    let member = Member::join_in(&shared.store, &open.topic, &open.group, start, order).map_err(|error| {
        let text = error.to_string();
        match error {
            JoinError::NoTopic(_) => Status::unavailable(text),
            JoinError::TooMany(_) => {
                shared.refusals.count(Reason::Groups, &text);
                Status::resource_exhausted(text)
            }
            JoinError::Mixed { .. } => Status::failed_precondition(text),
        }
    })?;
    let revocations = member.revocations();
    let (events, heard) = mpsc::channel(16);
    let mut session = Session {
        shared,
        outbox,
        open,
        topic,
        member,
        revocations,
        credit: (0, 0),
        starving_since: None,
        answers: Answers::default(),
        settling: None,
        settling_tokens: Vec::new(),
        remotes: HashMap::new(),
        remote_id: 0,
        retry_at: None,
        held: VecDeque::new(),
        events,
        heard,
    };
    session.welcome();
    for request in early {
        session.take(request)?;
    }
    Box::pin(session.run(requests)).await
}

/// The topic, and what the client sent meanwhile: credit may be granted before the welcome. `None` if it went away.
async fn wait_for_topic(
    shared: &Shared,
    name: &str,
    requests: &mut Streaming<pb::SubscribeRequest>,
) -> Result<Option<(TopicView, Vec<pb::SubscribeRequest>)>, Status> {
    let mut early = Vec::new();
    let waiting = shared.topic(name);
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            topic = &mut waiting => return Ok(Some((topic?, early))),
            request = requests.message() => match request? {
                Some(request) if early.len() < 16 => early.push(request),
                Some(_) => return Err(Status::resource_exhausted("wait for the welcome")),
                None => return Ok(None),
            },
        }
    }
}

type Settling = ReusableBoxFuture<'static, Vec<Result<(), Refused>>>;

pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) outbox: Arc<Outbox<SubscribeOut>>,
    pub(super) open: pb::SubscribeOpen,
    pub(super) topic: TopicView,
    pub(super) member: Member,
    revocations: Revocations,
    /// Messages and bytes that may still be delivered.
    pub(super) credit: (u64, u64),
    pub(super) starving_since: Option<Instant>,
    pub(super) answers: Answers,
    pub(super) settling: Option<Settling>,
    pub(super) settling_tokens: Vec<Bytes>,
    pub(super) remotes: HashMap<Arc<str>, Remote>,
    pub(super) remote_id: u64,
    /// When brokers that were lost are tried again.
    pub(super) retry_at: Option<Instant>,
    /// Messages of other brokers that wait for credit, with their bytes.
    pub(super) held: VecDeque<(pb::Delivery, u64)>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) heard: mpsc::Receiver<Event>,
}

impl Session {
    fn welcome(&self) {
        let welcome = pb::SubscribeWelcome {
            partitions: self.topic.partitions.len() as u32,
            ack_deadline: prost_types::Duration::try_from(self.topic.ack_deadline).ok(),
            broker: self.shared.name.clone(),
        };
        self.outbox.push(|out| out.say(Response::Welcome(welcome)));
    }

    async fn run(mut self, mut requests: Streaming<pb::SubscribeRequest>) -> Result<(), Status> {
        let mut signals = WatchStream::new(self.shared.signals());
        let mut is_draining = false;
        let mut linger = Box::pin(tokio::time::sleep(LINGER));
        self.follow_owners();
        loop {
            self.release();
            self.start_settling();
            self.watch_starving();
            let unread = self.outbox.look(SubscribeOut::unread);
            let has_room = unread.0 < MOST_UNREAD.0 && unread.1 < MOST_UNREAD.1;
            let may_deliver =
                has_room && self.credit.0 > 0 && self.credit.1 > 0 && self.held.is_empty() && !is_draining;
            let budget = Budget {
                messages: self.credit.0,
                bytes: self.credit.1,
            };
            if !may_deliver {
                self.member.rest();
            }
            let needs_tick = !may_deliver || self.retry_at.is_some();
            tokio::select! {
                biased;
                Some(news) = signals.next() => {
                    if news.draining && !is_draining {
                        is_draining = true;
                        let reason = "the broker is stopping".to_owned();
                        self.outbox.push(|out| out.say(Response::GoAway(pb::GoAway { reason })));
                        linger.as_mut().reset(tokio::time::Instant::now() + LINGER);
                    }
                    self.follow_owners();
                }
                request = requests.message() => match request? {
                    Some(request) => {
                        self.shared.counters.requests.add(1);
                        self.take(request)?;
                    }
                    None => break,
                },
                results = optional::done(&mut self.settling), if !self.settling_tokens.is_empty() => {
                    self.settled(results);
                }
                Some(event) = self.heard.recv() => self.hear(event)?,
                tokens = self.revocations.next() => self.revoke(tokens),
                next = self.member.next(budget), if may_deliver => match next {
                    Next::Deliveries(delivered) => self.deliver(delivered),
                    Next::Unavailable(partition, reason) => {
                        let unavailable = pb::PartitionUnavailable { partition, reason };
                        self.outbox.push(|out| out.say(Response::Unavailable(unavailable)));
                    }
                    Next::Gone => {
                        return Err(Status::unavailable(format!("topic {:?} is not here any more", self.open.topic)));
                    }
                },
                () = self.outbox.taken(), if !has_room => {}
                () = tokio::time::sleep(if self.retry_at.is_some() { TICK / 5 } else { TICK }), if needs_tick => {
                    if self.retry_at.is_some_and(|at| at <= Instant::now()) {
                        self.retry_at = None;
                        self.follow_owners();
                    }
                }
                () = &mut linger, if is_draining => break,
            }
        }
        // The client sends no more: what it answered still counts.
        self.start_settling();
        while !self.settling_tokens.is_empty() {
            let results = optional::done(&mut self.settling).await;
            self.settled(results);
            self.start_settling();
        }
        Ok(())
    }

    fn take(&mut self, request: pb::SubscribeRequest) -> Result<(), Status> {
        match request.request {
            Some(Request::Credit(more)) => {
                self.credit.0 = self.credit.0.saturating_add(more.messages);
                self.credit.1 = self.credit.1.saturating_add(more.bytes);
                let pending = pb::PendingCredit {
                    messages: self.credit.0,
                    bytes: self.credit.1,
                };
                self.outbox.push(|out| out.pending(pending));
            }
            Some(Request::Settle(request)) => {
                if self.open.direct {
                    self.answers.add(request);
                } else {
                    self.route(request);
                }
            }
            Some(Request::Open(_)) => {
                return Err(Status::invalid_argument("the subscription is open already"));
            }
            None => {
                return Err(Status::invalid_argument(
                    "a request has none of `open`, `credit`, `settle`",
                ));
            }
        }
        if self.outbox.look(SubscribeOut::waiting_answers) > MOST_UNREAD_ANSWERS {
            let text = "too many answers wait to be read; read the stream";
            self.shared.refusals.count(Reason::Unread, &text);
            return Err(Status::resource_exhausted(text));
        }
        Ok(())
    }

    /// Gives each answer to the broker that issued its token.
    fn route(&mut self, request: pb::Settle) {
        let routed = settle::route(request);
        self.answers.add(routed.here);
        let mut refused = routed.malformed;
        for (owner, settle) in routed.elsewhere {
            match self.remotes.get(owner.as_str()) {
                Some(remote) => remote.settle(settle),
                None => {
                    let text =
                        format!("broker {owner} is not reached now; the message will be delivered again");
                    refused.extend(settle::tokens(settle).into_iter().map(|inner| pb::RefusedToken {
                        token: token::wrap(&owner, &inner),
                        code: Code::Aborted.into(),
                        text: text.clone(),
                    }));
                }
            }
        }
        if !refused.is_empty() {
            self.outbox.push(|out| {
                out.settled(pb::Settled {
                    settled: Vec::new(),
                    refused,
                });
            });
        }
    }

    /// One settlement at a time; what comes meanwhile goes together into the next.
    fn start_settling(&mut self) {
        if !self.settling_tokens.is_empty() || self.answers.is_empty() {
            return;
        }
        let answers: Vec<(Bytes, Answer)> = self.answers.take();
        self.settling_tokens = answers.iter().map(|(token, _)| token.clone()).collect();
        let settling = self.member.settle(answers);
        match &mut self.settling {
            Some(future) => future.set(settling),
            empty => *empty = Some(ReusableBoxFuture::new(settling)),
        }
    }

    fn settled(&mut self, results: Vec<Result<(), Refused>>) {
        let tokens = std::mem::take(&mut self.settling_tokens);
        let mut settled = settle::answer(tokens, results);
        if !self.open.direct {
            settle::wrap(&mut settled, "");
        }
        self.outbox.push(|out| out.settled(settled));
    }

    fn deliver(&mut self, delivered: Vec<Delivered>) {
        let mut bytes = 0;
        let mut deliveries = Vec::with_capacity(delivered.len());
        let counters = &self.shared.counters;
        counters.delivered_messages.add(delivered.len() as u64);
        counters
            .redelivered_messages
            .add(delivered.iter().filter(|one| one.count > 1).count() as u64);
        for one in delivered {
            bytes += delivery::size(&one.message);
            deliveries.push(delivery::delivery(one, !self.open.direct));
        }
        self.push(deliveries, bytes);
    }

    pub(super) fn push(&mut self, deliveries: Vec<pb::Delivery>, bytes: u64) {
        let count = deliveries.len() as u64;
        let counters = &self.shared.counters;
        counters.bytes_out.add(bytes);
        self.credit.0 = self.credit.0.saturating_sub(count);
        self.credit.1 = self.credit.1.saturating_sub(bytes);
        self.outbox.push(|out| out.deliver(deliveries, bytes));
    }

    /// The starved clock runs while messages wait and the client granted nothing for them.
    fn watch_starving(&mut self) {
        let has_credit = self.credit.0 > 0 && self.credit.1 > 0;
        let starves = !has_credit && (!self.held.is_empty() || self.member.has_waiting());
        match self.starving_since {
            None if starves => {
                let now = Instant::now();
                self.shared.starved.start(now);
                self.starving_since = Some(now);
            }
            Some(since) if !starves => {
                self.shared.starved.stop(since, Instant::now());
                self.starving_since = None;
            }
            _ => {}
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(since) = self.starving_since.take() {
            self.shared.starved.stop(since, Instant::now());
        }
    }
}
