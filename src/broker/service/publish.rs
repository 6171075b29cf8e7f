//! One publish stream: batches in, acknowledgements out. It always drains its requests; what holds a publisher
//! back is credit, never an unread stream.
//!
//! A batch's payloads are checked and sorted by partition ([`super::intake`]), wait for the channel in the order
//! in which they came, and go into the log; what another broker owns takes the careful way of
//! [`super::forward`], one part at a time for each partition.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::ReusableBoxFuture;
use tonic::{Response, Status, Streaming};

use super::clock::StreamClock;
use super::credit::{Grant, Share};
use super::fence::Fence;
use super::forward::{Part, Stored, Undelivered};
use super::intake::Forming;
use super::optional;
use super::outbox::{Outbox, OutboxStream};
use super::payload::{Spread, check_producer};
use super::publish_out::PublishOut;
use super::rounds::Rounds;
use super::shared::Shared;
use super::signals::Signals;
use crate::broker::channel::Permit;
use crate::broker::store::{AppendError, AppendTicket, Appended, Line, TopicView};
use crate::pb;
use crate::pb::publish_request::Request;

/// A stream must open within this time.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a forwarded part is tried before its payloads are answered `Throttled`. Acknowledgements go out in the
/// order in which payloads came, so this is how long one partition without an owner holds up the others' once.
pub(super) const FORWARD_TIMEOUT: Duration = Duration::from_secs(1);
/// The same for a partition whose last part could not be forwarded.
pub(super) const AWAY_TIMEOUT: Duration = Duration::from_millis(100);
/// When payloads for a partition that cannot be reached should come again.
pub(super) const AWAY_RETRY_AFTER: Duration = Duration::from_secs(1);
/// A refused payload should come again after this time.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(100);
/// After a GoAway, what clients had sent before they read it is still taken for this long.
const LINGER: Duration = Duration::from_millis(500);
/// A grant that was lowered is tolerated for this long after it was sent.
pub(super) const TOLERANCE: Duration = Duration::from_secs(30);

pub(super) const FENCED: &str = "payloads of this partition before these were refused; send those first";

/// Serves one stream.
pub(super) fn serve(
    shared: &Arc<Shared>,
    requests: Streaming<pb::PublishRequest>,
) -> Response<OutboxStream<PublishOut>> {
    let outbox = Outbox::new();
    let session = run(Arc::clone(shared), Box::new(requests), Arc::clone(&outbox));
    OutboxStream::answer(outbox, shared, session)
}

/// A stream that is open for hours is mostly this future: so what only its beginning needs is in a box of its own,
/// which goes away with it, and what it keeps is boxed once and handed on by pointer.
async fn run(
    shared: Arc<Shared>,
    requests: Box<Streaming<pb::PublishRequest>>,
    outbox: Arc<Outbox<PublishOut>>,
) -> Result<(), Status> {
    let begun = Box::pin(begin(shared, requests, outbox)).await?;
    match begun {
        Some((session, requests)) => Box::pin(session.run(requests)).await,
        None => Ok(()),
    }
}

type Begun = (Box<Session>, Box<Streaming<pb::PublishRequest>>);

/// Waits for the opening and for its topic. `None` if the client went away.
async fn begin(
    shared: Arc<Shared>,
    mut requests: Box<Streaming<pb::PublishRequest>>,
    outbox: Arc<Outbox<PublishOut>>,
) -> Result<Option<Begun>, Status> {
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
            None => return Ok(None),
        },
    };
    let session = Box::new(Session::new(shared, outbox, open, topic));
    Ok(Some((session, requests)))
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

pub(super) type Committing = ReusableBoxFuture<'static, Result<Vec<Appended>, AppendError>>;
pub(super) type Forwarded = (Way, Result<Stored, Undelivered>);

pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) outbox: Arc<Outbox<PublishOut>>,
    pub(super) open: pb::PublishOpen,
    pub(super) topic: TopicView,
    _share: Share,
    /// What acknowledgements promise.
    pub(super) durability: pb::Durability,
    pub(super) clock: StreamClock,
    pub(super) spread: Spread,
    pub(super) fence: Fence,
    /// What is appended here stays in the order in which it came.
    pub(super) line: Arc<Line>,
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
    pub(super) entering: Option<ReusableBoxFuture<'static, Permit>>,
    pub(super) is_entering: bool,
    pub(super) appended: VecDeque<(Way, AppendTicket)>,
    pub(super) committing: Option<Committing>,
    pub(super) committing_way: Option<Way>,
    pub(super) lanes: HashMap<u32, VecDeque<Waiting>>,
    /// Partitions whose last part could not be forwarded.
    pub(super) away: BTreeSet<u32>,
    /// Made when the first part is forwarded.
    pub(super) forwards: Option<FuturesUnordered<BoxFuture<'static, Forwarded>>>,
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
            durability: shared.durability(),
            shared,
            outbox,
            open,
            topic,
            _share: share,
            fence: Fence::default(),
            line: Arc::default(),
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
            away: BTreeSet::new(),
            forwards: None,
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
                durability: self.durability.into(),
                broker: self.shared.name.clone(),
            });
        });
    }

    async fn run(
        mut self: Box<Self>,
        mut requests: Box<Streaming<pb::PublishRequest>>,
    ) -> Result<(), Status> {
        self.welcome();
        let mut signals = WatchStream::new(self.shared.signals());
        let mut has_input = true;
        // How the stream ends, once what was taken is settled.
        let mut end: Option<Result<(), Status>> = None;
        let mut lingering: Option<std::pin::Pin<Box<tokio::time::Sleep>>> = None;
        let mut is_draining = false;
        loop {
            self.pump()?;
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
                result = optional::done(&mut self.committing), if self.committing_way.is_some() => self.awaited(result)?,
                permit = optional::done(&mut self.entering), if self.is_entering => self.entered(permit)?,
                Some((way, result)) = optional::next(&mut self.forwards) => self.forwarded(way, result)?,
                () = optional::slept(&mut lingering), if lingering.is_some() => {
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
        self.durability = self.shared.durability();
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

    /// Tells the clocks how the stream is.
    pub(super) fn tick(&mut self, now: Instant) {
        let (messages, bytes) = self.unsettled;
        let blocked = messages >= self.grant.messages || bytes >= self.grant.bytes;
        self.clock.update(now, messages > 0, blocked);
    }
}
