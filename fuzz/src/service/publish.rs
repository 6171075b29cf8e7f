//! A publish stream, from its opening to its end, with a client, a log and other brokers that do what the input says.

mod client;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use tonic::{Code, Status};

use self::client::Client;
use self::requests::Requests;
use crate::broker::service::credit::Limits;
use crate::broker::service::{Served, publish};
use crate::broker::store::AppendError;
use crate::input::Input;
use crate::pb;
use crate::pb::publish_request::Request;
use crate::stand_in::{Call, Journal, Partition, Shared, TopicView, duplicates};

/// Of the topic.
const PARTITIONS: u32 = 3;
/// The most steps of one input.
const STEPS: u32 = 200;
/// The limits: small, so that they are met.
const LIMITS: Limits = Limits {
    max_connections: 1,
    max_streams_per_connection: 1,
    max_message_bytes: 256,
    max_inflight_bytes: 4096,
};

/// Nothing panics; what is acknowledged is stored; nobody who keeps to the credit is sent away for it; a partition keeps the order;
/// the stream ends with all of it answered, and nothing is left behind.
pub(super) fn run(input: &mut Input<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("it needs nothing");
    runtime.block_on(async {
        let mut broker = Broker::new(input);
        settle().await;
        broker.check();
        for _ in 0..STEPS {
            if input.is_empty() || broker.end.is_some() {
                break;
            }
            broker.step(input).await;
            broker.check();
        }
        broker.finish().await;
    });
}

/// A broker, the stream and its client.
struct Broker {
    shared: Arc<Shared>,
    journal: Arc<Journal>,
    partitions: Vec<Arc<Partition>>,
    requests: Requests,
    responses: Option<Served>,
    client: Client,
    is_wild: bool,
    has_id: bool,
    /// The most messages that the stream may ever have had unacknowledged.
    most: u64,
    /// The broker is stopping, the topic is gone, or the log failed.
    is_cut_short: bool,
    end: Option<Result<(), Status>>,
}

impl Broker {
    fn new(input: &mut Input<'_>) -> Self {
        let journal = Arc::<Journal>::default();
        let partitions: Vec<_> = (0..PARTITIONS)
            .map(|index| Partition::new(index, &journal))
            .collect();
        let topic = TopicView {
            partitions: partitions.clone(),
        };
        let shared = Shared::new(LIMITS, input.between32(1, 40), topic);
        let requests = Requests::default();
        let responses = publish(&shared, requests.streaming());
        let kind = input.byte();
        let has_id = kind & 1 != 0;
        requests.send(Some(Request::Open(pb::PublishOpen {
            topic: "orders".to_owned(),
            producer_id: if has_id { "p".to_owned() } else { String::new() },
            direct: kind & 2 != 0,
        })));
        let is_wild = kind & 4 != 0;
        Self {
            shared,
            journal,
            partitions,
            requests,
            responses: Some(responses),
            client: Client::new(is_wild),
            is_wild,
            has_id,
            most: 0,
            is_cut_short: false,
            end: None,
        }
    }

    async fn step(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        let partition = usize::from(kind / 16) % self.partitions.len();
        match kind % 16 {
            0..=3 => self.send(input),
            4..=6 => self.read(u32::from(kind / 16) + 1),
            7..=8 => {
                for _ in 0..=kind / 64 {
                    self.journal.commit(Ok(()));
                    settle().await;
                }
            }
            9 => self.answer(input.byte()),
            10 => {
                let owner = [
                    None,
                    Some("orders-1"),
                    Some(""),
                    Some("orders-0"),
                    Some("unknown"),
                ];
                // A partition is sealed behind all that was appended.
                while self.journal.commit(Ok(())) {}
                self.partitions[partition].set_owner(input.one_of(owner));
                self.shared.configured();
            }
            11 => self.partitions[partition].refuse(match input.byte() % 3 {
                0 => AppendError::Unavailable("not now".to_owned()),
                1 => AppendError::Refused("too old".to_owned()),
                _ => AppendError::NotStored("full".to_owned()),
            }),
            12 => self.shared.credit.set_capacity(input.between32(1, 64)),
            13 => {
                let limits = Limits {
                    max_inflight_bytes: input.between(1, 8192),
                    ..LIMITS
                };
                self.shared.inflight.set_most(limits.max_inflight_bytes);
                self.shared.credit.set_limits(limits);
            }
            14 => tokio::time::sleep(Duration::from_millis(u64::from(kind / 16) * 60)).await,
            _ => self.disturb(input.byte()),
        }
        settle().await;
    }

    fn send(&mut self, input: &mut Input<'_>) {
        if self.requests.is_ended() {
            return;
        }
        if let Some(batch) = self.client.batch(input) {
            self.requests.send(Some(Request::Batch(batch)));
        }
    }

    /// What seldom happens.
    fn disturb(&mut self, what: u8) {
        match what % 16 {
            0 => self.requests.end(Ok(())),
            1 => {
                // What tonic makes of a reset by the client, and of any other one.
                let codes = [Code::Cancelled, Code::Unknown];
                let code = codes[usize::from(what / 16) % 2];
                self.requests.end(Err(Status::new(code, "reset")));
                self.is_cut_short = true;
            }
            2 => {
                self.shared.signals.send_modify(|signals| signals.draining = true);
                self.is_cut_short = true;
            }
            3 => {
                *self.shared.store.0.lock() = None;
                self.shared.configured();
                self.is_cut_short = true;
            }
            4 | 5 => {
                let text = "the disk".to_owned();
                let error = if what % 16 == 4 {
                    AppendError::NotStored(text)
                } else {
                    AppendError::Log(text)
                };
                self.is_cut_short |= self.journal.commit(Err(error));
            }
            6 if self.is_wild => {
                self.requests.send(None);
                self.is_cut_short = true;
            }
            7 if self.is_wild => {
                self.requests
                    .send(Some(Request::Open(pb::PublishOpen::default())));
                self.is_cut_short = true;
            }
            // Other streams come and go.
            8.. => drop(
                (0..what / 16)
                    .map(|_| self.shared.credit.join())
                    .collect::<Vec<_>>(),
            ),
            _ => {}
        }
    }

    /// Another broker answers.
    fn answer(&mut self, how: u8) {
        let Some(Call { request, reply }) = self.shared.peers.next() else {
            return;
        };
        let payloads = &request.payloads;
        let sequences: Vec<u64> = payloads.iter().map(|payload| payload.sequence).collect();
        let partition = payloads
            .first()
            .and_then(|payload| payload.partition)
            .expect("parts are of a partition");
        assert!(
            payloads
                .iter()
                .all(|payload| payload.partition == Some(partition))
                && request.direct
        );
        // One that went away is not answered any more, and has stored nothing.
        if reply.is_closed() {
            return;
        }
        let stored =
            (how % 4 < 3).then(|| self.partitions[partition as usize].store(&sequences, self.has_id));
        self.client.is_unsure |= stored.is_some() && how % 8 == 2;
        let repeated = stored.as_deref().map_or(0, duplicates);
        let answer = match (stored, how % 8) {
            (Some(stored), 0 | 1 | 4 | 5 | 6) => Ok(pb::SendResponse {
                offsets: stored
                    .iter()
                    .map(|one| pb::PartitionOffset {
                        partition,
                        offset: one.offset.0,
                    })
                    .collect(),
                duplicates: duplicates(&stored),
                ..pb::SendResponse::default()
            }),
            (_, 3) => Err(Status::invalid_argument("too large there")),
            _ => Err(Status::unavailable("it went away")),
        };
        let is_stored = answer.is_ok();
        if reply.send(answer).is_ok() && is_stored {
            self.journal.told(repeated);
        }
    }

    /// The client reads some answers, each of them once.
    fn read(&mut self, most: u32) {
        for _ in 0..most {
            let Some((responses, _)) = &mut self.responses else {
                return;
            };
            match responses.next().now_or_never() {
                None => return,
                Some(Some(Ok(response))) => {
                    let response = response.response.expect("an answer says something");
                    self.client.hear(response, &self.partitions);
                }
                Some(Some(Err(status))) => self.ended(Err(status)),
                Some(None) => self.ended(Ok(())),
            }
        }
    }

    fn ended(&mut self, end: Result<(), Status>) {
        self.responses = None;
        match &end {
            Ok(()) if !self.is_cut_short => self.client.ended_well(self.journal.duplicates()),
            Err(status) => {
                let is_its_fault = matches!(status.code(), Code::ResourceExhausted | Code::InvalidArgument);
                assert!(self.is_wild || !is_its_fault, "{status}");
                assert!(self.is_cut_short || is_its_fault, "{status}");
            }
            Ok(()) => {}
        }
        self.end = Some(end);
    }

    fn check(&mut self) {
        self.client.check_order(&self.partitions, self.has_id);
        // A grant that was lowered is tolerated for a while.
        self.most = self.most.max(self.shared.signals.borrow().grant.messages);
        assert!(
            self.journal.waiting() <= self.most,
            "{} of {}",
            self.journal.waiting(),
            self.most
        );
    }

    /// Everything goes well from here on, and the client closes.
    async fn finish(&mut self) {
        self.requests.end(Ok(()));
        for partition in &self.partitions {
            partition.set_owner(None);
            partition.refuse_nothing();
        }
        *self.shared.store.0.lock() = Some(TopicView {
            partitions: self.partitions.clone(),
        });
        self.shared.configured();
        for _ in 0..300 {
            if self.end.is_some() {
                break;
            }
            while self.journal.commit(Ok(())) {
                settle().await;
            }
            self.answer(0);
            tokio::time::sleep(Duration::from_millis(600)).await;
            self.read(u32::MAX);
            self.check();
        }
        assert!(self.end.is_some(), "the stream does not end");
        settle().await;
        let shared = &self.shared;
        let counters = &shared.counters;
        while self.journal.commit(Ok(())) {}
        assert_eq!(shared.inflight.used(), 0);
        assert_eq!(shared.channel.inside(), (0, 0));
        let open = [&counters.publish_streams, &counters.sessions, &counters.streams];
        assert_eq!(open.map(|gauge| gauge.get()), [0; 3]);
    }
}

/// The stream does all that it can do now.
async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}
