//! One publish stream: batches in, acknowledgements out. It always drains its requests; what holds a publisher
//! back is credit, never an unread stream.
//!
//! A batch's payloads are checked and sorted by partition ([`super::intake`]), wait for the channel in the order
//! in which they came, and go into the log; what another broker owns takes the careful way of
//! [`super::forward`], one part at a time for each partition.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::ReusableBoxFuture;
use tonic::{Status, Streaming};

use super::clock::StreamClock;
use super::credit::{Grant, Open, Share};
use super::fence::Fence;
use super::forward::{Delivery, Part, Stored, Undelivered, Why, why};
use super::intake::Forming;
use super::outbox::{Outbox, OutboxStream};
use super::payload::{Spread, check_producer};
use super::publish_out::PublishOut;
use super::rounds::Rounds;
use super::shared::Shared;
use super::signals::Signals;
use crate::broker::channel::Permit;
use crate::broker::store::{AppendError, AppendTicket, Appended, NotAppended, TopicView};
use crate::pb;
use crate::pb::publish_request::Request;

/// A stream must open within this time.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a forwarded part is tried before its payloads are answered `Throttled`.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);
/// A refused payload should come again after this time.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(100);
/// After a GoAway, what clients had sent before they read it is still taken for this long.
const LINGER: Duration = Duration::from_millis(500);
/// A grant that was lowered is tolerated for this long after it was sent.
pub(super) const TOLERANCE: Duration = Duration::from_secs(30);

pub(super) const FENCED: &str = "payloads of this partition before these were refused; send those first";

/// Serves one stream.
pub(super) fn serve(
    shared: Arc<Shared>,
    requests: Streaming<pb::PublishRequest>,
) -> OutboxStream<PublishOut> {
    let outbox = Outbox::new();
    let session = run(shared, requests, Arc::clone(&outbox));
    OutboxStream::spawn(outbox, session)
}

async fn run(
    shared: Arc<Shared>,
    mut requests: Streaming<pb::PublishRequest>,
    outbox: Arc<Outbox<PublishOut>>,
) -> Result<(), Status> {
    let _stream = Open::stream(&shared.counters);
    let first = tokio::time::timeout(OPEN_TIMEOUT, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the stream was not opened; send PublishOpen first"))??;
    let Some(pb::PublishRequest {
        request: Some(Request::Open(open)),
    }) = first
    else {
        return Err(Status::invalid_argument(
            "the first request of a publish stream is PublishOpen",
        ));
    };
    check_producer(&open.producer_id).map_err(|bad| Status::new(bad.code, bad.text))?;
    let topic = tokio::select! {
        topic = shared.topic(&open.topic) => topic?,
        early = requests.message() => match early? {
            Some(_) => return Err(Status::resource_exhausted("no credit was granted yet; wait for the welcome")),
            None => return Ok(()),
        },
    };
    Box::pin(Session::new(shared, outbox, open, topic).run(requests)).await
}

/// One part on its way; its messages are elsewhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) round: u64,
    pub(super) partition: u32,
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// A part and the round that it belongs to.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) round: u64,
    pub(super) arrived: Instant,
    pub(super) part: Part,
}

type Committing = ReusableBoxFuture<'static, Result<Vec<Appended>, AppendError>>;
type Forwarded = (Way, Result<Stored, Undelivered>);

pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) outbox: Arc<Outbox<PublishOut>>,
    pub(super) open: pb::PublishOpen,
    pub(super) topic: TopicView,
    _share: Share,
    pub(super) clock: StreamClock,
    pub(super) spread: Spread,
    pub(super) fence: Fence,
    pub(super) grant: Grant,
    /// The grant before the last one, where that was lower, and when it was replaced.
    pub(super) earlier: Option<(Grant, Instant)>,
    /// Messages and bytes that are not settled here.
    pub(super) unsettled: (u64, u64),
    /// Messages and bytes taken so far, less those that were refused.
    pub(super) taken_in: (u64, u64),
    pub(super) forming: Option<Forming>,
    pub(super) rounds: Rounds,
    pub(super) waiting: VecDeque<Waiting>,
    entering: Option<ReusableBoxFuture<'static, Permit>>,
    is_entering: bool,
    appended: VecDeque<(Way, AppendTicket)>,
    committing: Option<Committing>,
    committing_way: Option<Way>,
    lanes: HashMap<u32, VecDeque<Waiting>>,
    forwards: FuturesUnordered<BoxFuture<'static, Forwarded>>,
}

impl Session {
    fn new(
        shared: Arc<Shared>,
        outbox: Arc<Outbox<PublishOut>>,
        open: pb::PublishOpen,
        topic: TopicView,
    ) -> Self {
        let share = shared.credit.join();
        let grant = shared.signals.borrow().grant;
        Self {
            clock: StreamClock::new(Arc::clone(&shared.clocks)),
            spread: Spread::new(&open.producer_id),
            shared,
            outbox,
            open,
            topic,
            _share: share,
            fence: Fence::default(),
            grant,
            earlier: None,
            unsettled: (0, 0),
            taken_in: (0, 0),
            forming: None,
            rounds: Rounds::default(),
            waiting: VecDeque::new(),
            entering: None,
            is_entering: false,
            appended: VecDeque::new(),
            committing: None,
            committing_way: None,
            lanes: HashMap::new(),
            forwards: FuturesUnordered::new(),
        }
    }

    fn welcome(&self) {
        let limits = self.shared.credit.limits();
        self.outbox.push(|out| {
            out.welcome(pb::PublishWelcome {
                credit: Some(pb::Credit {
                    messages: self.grant.messages,
                    bytes: self.grant.bytes,
                }),
                partitions: self.topic.partitions.len() as u32,
                max_message_bytes: limits.max_message_bytes,
                durability: self.shared.durability().into(),
                broker: self.shared.name.clone(),
            });
        });
    }

    async fn run(mut self, mut requests: Streaming<pb::PublishRequest>) -> Result<(), Status> {
        self.welcome();
        let mut signals = WatchStream::new(self.shared.signals());
        let mut has_input = true;
        // How the stream ends, once what was taken is settled.
        let mut end: Option<Result<(), Status>> = None;
        let mut lingering: Option<std::pin::Pin<Box<tokio::time::Sleep>>> = None;
        let mut is_draining = false;
        loop {
            self.pump();
            self.settle();
            if let Some(result) = &end
                && self.rounds.is_empty()
                && self.forming.is_none()
            {
                return result.clone();
            }
            tokio::select! {
                biased;
                Some(news) = signals.next() => {
                    let drains = news.draining && !is_draining;
                    if let Err(status) = self.hear(news, is_draining) {
                        end.get_or_insert(Err(status));
                    }
                    if drains {
                        is_draining = true;
                        self.outbox.push(|out| out.go_away("the broker is stopping"));
                        lingering = Some(Box::pin(tokio::time::sleep(LINGER)));
                    }
                }
                result = poll_optional(&mut self.committing), if self.committing_way.is_some() => {
                    self.committed(result)?;
                    while self.committing_way.is_some() {
                        let Some(future) = &mut self.committing else { break };
                        let Some(result) = future.get_pin().now_or_never() else { break };
                        self.committed(result)?;
                    }
                }
                permit = poll_optional(&mut self.entering), if self.is_entering => self.entered(permit),
                Some((way, result)) = self.forwards.next() => self.forwarded(way, result)?,
                () = sleep(&mut lingering), if lingering.is_some() => {
                    lingering = None;
                    end.get_or_insert(Ok(()));
                }
                request = requests.message(), if has_input => match request {
                    Ok(Some(request)) if end.is_none() => {
                        if let Err(status) = self.take(request) {
                            end = Some(Err(status));
                        }
                    }
                    // It ends already: read on, so that nothing piles up on the connection.
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        has_input = false;
                        end.get_or_insert(Ok(()));
                    }
                    Err(status) => {
                        has_input = false;
                        end.get_or_insert(Err(status));
                    }
                },
            }
        }
    }

    fn take(&mut self, request: pb::PublishRequest) -> Result<(), Status> {
        match request.request {
            Some(Request::Batch(batch)) => self.batch(batch),
            Some(Request::Open(_)) => Err(Status::invalid_argument("the stream is open already")),
            None => Err(Status::invalid_argument(
                "a request has neither `open` nor `batch`",
            )),
        }
    }

    fn hear(&mut self, news: Signals, is_draining: bool) -> Result<(), Status> {
        if news.grant != self.grant && !is_draining {
            if news.grant.messages < self.grant.messages || news.grant.bytes < self.grant.bytes {
                self.earlier = Some((self.tolerated(), Instant::now()));
            }
            self.grant = news.grant;
            let credit = pb::Credit {
                messages: self.grant.messages,
                bytes: self.grant.bytes,
            };
            self.outbox.push(|out| out.credit(credit));
            self.tick(Instant::now());
        }
        match self.shared.store.topic(&self.open.topic) {
            Some(topic) => {
                self.topic = topic;
                Ok(())
            }
            None => Err(Status::unavailable(format!(
                "topic {:?} is not here any more",
                self.open.topic
            ))),
        }
    }

    /// Lets parts go on, in the order in which they came.
    fn pump(&mut self) {
        while !self.is_entering {
            if self.waiting.is_empty() && !self.close_round() {
                return;
            }
            let Some(front) = self.waiting.front() else {
                continue;
            };
            let (partition, count, bytes, arrived) = (
                front.part.partition,
                front.part.messages.len() as u32,
                front.part.bytes,
                front.arrived,
            );
            if self.lanes.contains_key(&partition) {
                self.forward_front();
                continue;
            }
            if self.is_fenced() {
                if let Some(waiting) = self.waiting.pop_front() {
                    self.refuse(waiting.round, waiting.part, Why::Later(FENCED.to_owned()));
                }
                continue;
            }
            let owner = self
                .topic
                .partitions
                .get(partition as usize)
                .map(|partition| partition.owner());
            match owner {
                Some((true, ..)) => {
                    let channel = Arc::clone(&self.shared.channel);
                    let entering = async move { channel.enter(count, bytes, arrived).await };
                    match &mut self.entering {
                        Some(future) => future.set(entering),
                        empty => *empty = Some(ReusableBoxFuture::new(entering)),
                    }
                    self.is_entering = true;
                }
                Some((false, owner, epoch)) if self.open.direct => {
                    let address = self.shared.peers.address(&owner);
                    if let Some(waiting) = self.waiting.pop_front() {
                        self.refuse(waiting.round, waiting.part, Why::Moved { address, epoch });
                    }
                }
                _ => self.forward_front(),
            }
        }
    }

    /// Whether earlier payloads of the first part's partition were refused while it waited.
    fn is_fenced(&self) -> bool {
        let Some(part) = self.waiting.front().map(|front| &front.part) else {
            return false;
        };
        let Some(first) = part.messages.first() else {
            return false;
        };
        self.fence.blocks(part.partition, first.sequence)
    }

    /// There is room for the first part that waits: into the log with it.
    fn entered(&mut self, permit: Permit) {
        self.is_entering = false;
        let Some(Waiting {
            round,
            arrived,
            mut part,
        }) = self.waiting.pop_front()
        else {
            return;
        };
        let way = Way {
            round,
            partition: part.partition,
            messages: part.messages.len() as u64,
            bytes: part.bytes,
        };
        let Some(partition) = self.topic.partitions.get(part.partition as usize) else {
            return self.refuse(
                round,
                part,
                Why::Later("the partition is not here now".to_owned()),
            );
        };
        match partition.append(std::mem::take(&mut part.messages), &self.open.producer_id, permit) {
            Ok(ticket) => {
                self.shared.counters.accepted_messages.add(way.messages);
                self.appended.push_back((way, ticket));
                self.watch_commit();
            }
            Err(NotAppended { error, messages }) => {
                part.messages = messages;
                if matches!(error, AppendError::Moved { .. }) && !self.open.direct {
                    self.waiting.push_front(Waiting { round, arrived, part });
                    self.forward_front();
                } else {
                    let why = why(&self.shared, error);
                    self.refuse(round, part, why);
                }
            }
        }
    }

    fn watch_commit(&mut self) {
        if self.committing_way.is_none()
            && let Some((way, ticket)) = self.appended.pop_front()
        {
            match &mut self.committing {
                Some(future) => future.set(ticket.done()),
                empty => *empty = Some(ReusableBoxFuture::new(ticket.done())),
            }
            self.committing_way = Some(way);
        }
    }

    fn committed(&mut self, result: Result<Vec<Appended>, AppendError>) -> Result<(), Status> {
        let Some(way) = self.committing_way.take() else {
            return Ok(());
        };
        let appended = result.map_err(|error| {
            Status::unavailable(format!(
                "{error}; what was not acknowledged may be stored or not: send it again"
            ))
        })?;
        let duplicates = appended.iter().filter(|one| one.duplicate).count() as u64;
        let last = appended.iter().map(|one| one.offset.0).max();
        self.stored(way, last, duplicates);
        let counters = &self.shared.counters;
        counters.acked_messages.add(way.messages);
        counters.acked_bytes.add(way.bytes);
        self.watch_commit();
        Ok(())
    }

    fn stored(&mut self, way: Way, last: Option<u64>, duplicates: u64) {
        if let Some(round) = self.rounds.get_mut(way.round) {
            round.open -= 1;
            round.duplicates += duplicates;
            round.offsets.extend(last.map(|offset| pb::PartitionOffset {
                partition: way.partition,
                offset,
            }));
        }
    }

    /// Sends the first part that waits on its careful way.
    fn forward_front(&mut self) {
        let Some(waiting) = self.waiting.pop_front() else {
            return;
        };
        let partition = waiting.part.partition;
        match self.lanes.get_mut(&partition) {
            Some(lane) => lane.push_back(waiting),
            None => {
                self.lanes.insert(partition, VecDeque::new());
                self.start_forward(waiting);
            }
        }
    }

    fn start_forward(&mut self, waiting: Waiting) {
        let way = Way {
            round: waiting.round,
            partition: waiting.part.partition,
            messages: waiting.part.messages.len() as u64,
            bytes: waiting.part.bytes,
        };
        let delivery = Delivery {
            shared: Arc::clone(&self.shared),
            topic: self.open.topic.clone(),
            producer: self.open.producer_id.clone(),
            arrived: waiting.arrived,
            deadline: Instant::now() + FORWARD_TIMEOUT,
            may_forward: !self.open.direct,
        };
        self.forwards
            .push(async move { (way, delivery.run(waiting.part).await) }.boxed());
    }

    fn forwarded(&mut self, way: Way, result: Result<Stored, Undelivered>) -> Result<(), Status> {
        match result {
            Ok(stored) => self.stored(way, stored.offsets.iter().copied().max(), stored.duplicates),
            Err(Undelivered {
                why: Why::Failed(text),
                ..
            }) => return Err(Status::unavailable(text)),
            Err(Undelivered {
                part,
                why: why @ Why::Never(_),
            }) => self.refuse(way.round, part, why),
            Err(Undelivered { part, why }) => {
                self.refuse(way.round, part, why);
                // Those behind it would overtake it.
                for waiting in self.lanes.remove(&way.partition).unwrap_or_default() {
                    self.refuse(waiting.round, waiting.part, Why::Later(FENCED.to_owned()));
                }
            }
        }
        match self.lanes.get_mut(&way.partition).and_then(VecDeque::pop_front) {
            Some(next) => self.start_forward(next),
            None => {
                self.lanes.remove(&way.partition);
            }
        }
        Ok(())
    }

    /// Acknowledges what is settled.
    fn settle(&mut self) {
        let Some(mut settled) = self
            .rounds
            .take_settled(self.forming.as_ref().map(Forming::lowest))
        else {
            return;
        };
        settled.ack.durability = self.shared.durability().into();
        self.unsettled.0 -= settled.messages;
        self.unsettled.1 -= settled.bytes;
        self.outbox
            .push(|out| out.ack(settled.ack, settled.messages, settled.bytes));
        self.tick(Instant::now());
    }

    /// Tells the clocks how the stream is.
    pub(super) fn tick(&mut self, now: Instant) {
        let (messages, bytes) = self.unsettled;
        let blocked = messages >= self.grant.messages || bytes >= self.grant.bytes;
        self.clock.update(now, messages > 0, blocked);
    }
}

async fn poll_optional<T>(future: &mut Option<ReusableBoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.get_pin().await,
        None => std::future::pending().await,
    }
}

async fn sleep(sleep: &mut Option<std::pin::Pin<Box<tokio::time::Sleep>>>) {
    match sleep {
        Some(sleep) => sleep.as_mut().await,
        None => std::future::pending().await,
    }
}
