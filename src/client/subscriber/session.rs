//! One Subscribe stream from its opening to its end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::add;
use super::builder::Settings;
use super::delivery::Delivery;
use super::outbox::{Due, Outbox};
use super::stream::Stream;
use crate::client::ClusterView;
use crate::client::error::is_permanent;
use crate::client::topology::describe;
use crate::pb::{self, subscribe_request::Request, subscribe_response::Response};

/// Requests that may wait for the connection.
const OUTGOING: usize = 8;
/// How long a stream may take to be opened.
const OPENING: Duration = Duration::from_secs(10);
/// How long the last answers may take to be confirmed.
const CLOSING: Duration = Duration::from_secs(3);
/// When a message comes back that was given back because its partition had moved, in case it had not.
const NOT_OURS: Duration = Duration::from_millis(250);

/// Why a stream ended.
pub(super) enum End {
    /// It was not wanted any more.
    Stopped,
    /// It would end like this again.
    Refused(Status),
    /// It is worth another try.
    Lost(String),
}

pub(super) struct Session<'a> {
    stream: &'a Stream,
    address: Arc<str>,
    outbox: Arc<Outbox>,
    view: watch::Receiver<Arc<ClusterView>>,
    /// Partitions that this broker was seen to own, and those that it lost since.
    owned: HashSet<u32>,
    lost: HashSet<u32>,
    /// Messages that may still be delivered by the credit granted.
    granted: u64,
    /// Answers that were sent and not confirmed.
    unconfirmed: u64,
    is_welcomed: bool,
}

/// What the client sends first.
pub(super) fn open_request(settings: &Settings, direct: bool) -> pb::SubscribeRequest {
    let open = pb::SubscribeOpen {
        topic: settings.topic.clone(),
        group: settings.group.clone(),
        start: Some(settings.start.into()),
        direct,
        ordered: settings.ordered,
        member: settings.member.clone(),
    };
    pb::SubscribeRequest {
        request: Some(Request::Open(open)),
    }
}

fn request(request: Request) -> pb::SubscribeRequest {
    pb::SubscribeRequest {
        request: Some(request),
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(stream: &'a Stream, address: Arc<str>) -> Self {
        let settings = &stream.settings;
        Self {
            stream,
            address,
            outbox: Outbox::new(settings.credit, settings.linger, &stream.counters),
            view: stream.client.inner.view.clone(),
            owned: HashSet::new(),
            lost: HashSet::new(),
            granted: 0,
            unconfirmed: 0,
            is_welcomed: false,
        }
    }

    pub(super) fn was_welcomed(&self) -> bool {
        self.is_welcomed
    }

    /// Messages that wait in the inbox are delivered again by the broker: the caller must not see them twice.
    pub(super) fn close(&self) {
        self.outbox.close();
        let own = |delivery: &Delivery| Arc::ptr_eq(&delivery.handle.outbox, &self.outbox);
        drop(self.stream.inbox.remove(own));
    }

    pub(super) async fn run(&mut self) -> End {
        let mut broker = match self.stream.client.inner.pool.broker(&self.address) {
            Ok(broker) => broker,
            Err(error) => return End::Lost(error.to_string()),
        };
        let (outgoing, requests) = mpsc::channel(OUTGOING);
        let open = open_request(&self.stream.settings, !self.stream.client.inner.forward);
        let requests = tokio_stream::once(open).chain(ReceiverStream::new(requests));
        let opened = tokio::select! {
            opened = tokio::time::timeout(OPENING, broker.subscribe(requests)) => opened,
            () = self.stream.stop.cancelled() => return End::Stopped,
        };
        match opened {
            Ok(Ok(responses)) => self.serve(responses.into_inner(), outgoing).await,
            Ok(Err(status)) => ended(status),
            Err(_) => End::Lost("it did not answer in time".to_owned()),
        }
    }

    async fn serve(
        &mut self,
        mut responses: Streaming<pb::SubscribeResponse>,
        outgoing: mpsc::Sender<pb::SubscribeRequest>,
    ) -> End {
        let stop = self.stream.stop.clone();
        let outbox = self.outbox.clone();
        let mut stop_at: Option<Instant> = None;
        let opening_ends = Instant::now() + OPENING;
        self.look_at_owners();
        loop {
            let mut due = if self.is_welcomed {
                outbox.due()
            } else {
                Due::default()
            };
            if stop_at.is_some() && !due.is_due && due.look_again.is_none() && self.unconfirmed == 0 {
                return End::Stopped;
            }
            due.is_due |= stop_at.is_some() && due.look_again.is_some();
            let wake_at = due.look_again.or(stop_at);
            let wake_at = if self.is_welcomed {
                wake_at
            } else {
                Some(opening_ends)
            };
            tokio::select! {
                response = responses.message() => match response {
                    Ok(Some(pb::SubscribeResponse { response: Some(response) })) => {
                        if let Err(problem) = self.respond(response, &outgoing) {
                            return End::Lost(problem);
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return End::Lost("the broker ended the stream".to_owned()),
                    Err(status) => return ended(status),
                },
                place = outgoing.reserve(), if due.is_due => match place {
                    Ok(place) => self.send(place, &outgoing),
                    Err(_) => return End::Lost("the connection takes no more requests".to_owned()),
                },
                () = outbox.wake.notified() => {}
                changed = self.view.changed() => match changed {
                    Ok(()) => self.look_at_owners(),
                    Err(_) => return End::Stopped,
                },
                () = sleep_until(wake_at), if !due.is_due && wake_at.is_some() => {
                    if stop_at.is_some_and(|at| at <= Instant::now()) {
                        return End::Stopped;
                    }
                    if !self.is_welcomed && opening_ends <= Instant::now() {
                        return End::Lost("it did not welcome us in time".to_owned());
                    }
                }
                () = stop.cancelled(), if stop_at.is_none() => stop_at = Some(Instant::now() + CLOSING),
            }
        }
    }

    /// Sends the answers that wait, and credit for what is done with. A second place is taken if there is one;
    /// otherwise the credit goes with the next request.
    fn send(
        &mut self,
        place: mpsc::Permit<'_, pb::SubscribeRequest>,
        outgoing: &mpsc::Sender<pb::SubscribeRequest>,
    ) {
        let second = outgoing.try_reserve().ok();
        let (settle, credit) = self.outbox.take(second.is_some());
        let answers = settle.ack.len() + settle.nack.len() + settle.give_up.len();
        let settle = (answers + settle.extend.len() > 0).then_some(settle);
        self.unconfirmed += answers as u64;
        self.granted += credit.messages;
        let mut places = [Some(place), second].into_iter().flatten();
        let credit = (credit.messages > 0).then_some(credit);
        for message in [settle.map(Request::Settle), credit.map(Request::Credit)]
            .into_iter()
            .flatten()
        {
            if let Some(place) = places.next() {
                place.send(request(message));
            }
        }
    }

    fn respond(
        &mut self,
        response: Response,
        outgoing: &mpsc::Sender<pb::SubscribeRequest>,
    ) -> Result<(), String> {
        let counters = &self.stream.counters;
        match response {
            Response::Welcome(_) => {
                self.is_welcomed = true;
                let (messages, bytes) = self.stream.settings.credit;
                self.granted = messages;
                let credit = pb::ConsumerCredit { messages, bytes };
                outgoing
                    .try_send(request(Request::Credit(credit)))
                    .map_err(|error| error.to_string())?;
                let key = self.stream.key.clone();
                self.stream
                    .opening
                    .send_if_modified(|opening| opening.welcomed.insert(key));
            }
            Response::Deliveries(deliveries) => return self.deliver(deliveries.deliveries),
            Response::Settled(settled) => {
                let confirmed = settled.settled.len() + settled.refused.len();
                self.unconfirmed = self.unconfirmed.saturating_sub(confirmed as u64);
                add(&counters.settled, settled.settled.len() as u64);
                add(&counters.stale, settled.refused.len() as u64);
            }
            Response::Revoke(revoke) => {
                let tokens: HashSet<Bytes> = revoke.tokens.into_iter().collect();
                let revoked = self
                    .stream
                    .inbox
                    .remove(|delivery| tokens.contains(&delivery.handle.token));
                add(&counters.revoked, revoked.len() as u64);
                for delivery in revoked {
                    delivery.give_back(Duration::ZERO);
                }
            }
            Response::Unavailable(unavailable) => {
                add(&counters.unavailable, 1);
                let (partition, reason) = (unavailable.partition, unavailable.reason);
                tracing::info!(address = %self.address, partition, reason, "a partition cannot be served at the moment");
            }
            Response::GoAway(go_away) => {
                tracing::debug!(address = %self.address, reason = go_away.reason, "the broker goes away");
            }
            Response::Pending(_) => {}
        }
        Ok(())
    }

    fn deliver(&mut self, deliveries: Vec<pb::Delivery>) -> Result<(), String> {
        let count = deliveries.len() as u64;
        let Some(granted) = self.granted.checked_sub(count) else {
            return Err(format!(
                "it delivered {count} messages, and had credit for {}",
                self.granted
            ));
        };
        self.granted = granted;
        add(&self.stream.counters.received, count);
        self.outbox.handed_over(count);
        let lost = &self.lost;
        let deliveries = deliveries
            .into_iter()
            .map(|delivery| Delivery::new(delivery, self.outbox.clone()));
        if lost.is_empty() {
            self.stream.inbox.push(deliveries);
            return Ok(());
        }
        let (late, own): (Vec<_>, Vec<_>) =
            deliveries.partition(|delivery| lost.contains(&delivery.partition));
        self.stream.inbox.push(own.into_iter());
        self.give_back(late);
        Ok(())
    }

    /// Compares the topology with what this broker was seen to own. What it delivered of a partition that it lost
    /// comes again from the new owner: seen from here first, it would come out of order.
    fn look_at_owners(&mut self) {
        if self.stream.client.inner.forward {
            return;
        }
        let view = self.view.borrow_and_update().clone();
        let mut newly_lost = HashSet::new();
        for (index, owner) in view.owners(&self.stream.settings.topic).iter().enumerate() {
            let partition = index as u32;
            if owner.address.as_ref() == Some(&self.address) {
                self.owned.insert(partition);
                self.lost.remove(&partition);
            } else if owner.address.is_some()
                && self.owned.contains(&partition)
                && self.lost.insert(partition)
            {
                newly_lost.insert(partition);
            }
        }
        if !newly_lost.is_empty() {
            let late = self.stream.inbox.remove(|delivery| {
                newly_lost.contains(&delivery.partition) && Arc::ptr_eq(&delivery.handle.outbox, &self.outbox)
            });
            self.give_back(late);
        }
    }

    fn give_back(&self, late: Vec<Delivery>) {
        add(&self.stream.counters.moved, late.len() as u64);
        for delivery in late {
            delivery.give_back(NOT_OURS);
        }
    }
}

fn ended(status: Status) -> End {
    if is_permanent(&status) {
        End::Refused(status)
    } else {
        End::Lost(describe(&status))
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}
