//! One Publish stream: its task, and what is unacknowledged on it.
//!
//! Sequences only grow along a stream, so an acknowledgement can never be taken for a message that was sent again
//! after it was given: whatever has to be sent with a lower sequence waits for a new stream.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::partition::Entry;
use crate::pb::broker_client::BrokerClient;
use crate::pb::{self, publish_response::Response};

/// Batches that may wait for the connection.
const OUTGOING: usize = 16;

/// What a stream's task tells the driver.
pub(super) struct Event {
    pub(super) session: u64,
    pub(super) what: What,
}

pub(super) enum What {
    Response(Response),
    /// The stream is over; with the status if it failed.
    Ended(Option<Status>),
}

/// A message that was sent; the entry is gone once it was refused.
pub(super) struct Sent {
    pub(super) sequence: u64,
    pub(super) bytes: u64,
    pub(super) entry: Option<Entry>,
}

/// The driver's side of a stream.
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) outgoing: mpsc::Sender<pb::PublishRequest>,
    pub(super) task: AbortHandle,
    pub(super) opened: Instant,
    /// Nothing may be sent before the welcome.
    pub(super) welcomed: bool,
    /// Nothing more is sent; it ends when everything is answered.
    pub(super) draining: bool,
    pub(super) last_sent: u64,
    pub(super) sent: VecDeque<Sent>,
    pub(super) sent_messages: u64,
    pub(super) sent_bytes: u64,
    pub(super) credit: pb::Credit,
    pub(super) max_message_bytes: u64,
}

impl Session {
    pub(super) fn new(id: u64, outgoing: mpsc::Sender<pb::PublishRequest>, task: AbortHandle) -> Self {
        Self {
            id,
            outgoing,
            task,
            opened: Instant::now(),
            welcomed: false,
            draining: false,
            last_sent: 0,
            sent: VecDeque::new(),
            sent_messages: 0,
            sent_bytes: 0,
            credit: pb::Credit::default(),
            max_message_bytes: u64::MAX,
        }
    }

    /// Whether one more message of so many bytes is within the credit, on top of `messages` and `bytes`.
    pub(super) fn has_credit(&self, messages: u64, bytes: u64) -> bool {
        self.sent_messages + messages <= self.credit.messages && self.sent_bytes + bytes <= self.credit.bytes
    }

    /// Whether it is worth sending of `queued` messages what there is credit for: all of them, half of the credit or a whole
    /// batch (the rule by which TCP avoids small segments, RFC 1122 section 4.2.3.4). Else credit that comes back in small
    /// pieces is spent in small batches, each of which costs the broker as much as a large one, for ever.
    pub(super) fn is_worthwhile(&self, queued: usize, batch_messages: usize) -> bool {
        let left = self.credit.messages.saturating_sub(self.sent_messages);
        let enough = (self.credit.messages / 2).min(batch_messages as u64);
        left >= enough || left >= queued as u64
    }

    /// Takes a message that the broker refused; `None` if it is not unacknowledged here.
    pub(super) fn take(&mut self, sequence: u64) -> Option<Entry> {
        let index = self
            .sent
            .binary_search_by_key(&sequence, |sent| sent.sequence)
            .ok()?;
        let entry = self.sent[index].entry.take()?;
        self.sent_messages -= 1;
        self.sent_bytes -= self.sent[index].bytes;
        while self.sent.front().is_some_and(|sent| sent.entry.is_none()) {
            self.sent.pop_front();
        }
        Some(entry)
    }

    /// Takes the oldest message that is unanswered, if its sequence is not above `sequence`.
    pub(super) fn pop_acked(&mut self, sequence: u64) -> Option<Entry> {
        while self
            .sent
            .front()
            .is_some_and(|sent| sent.entry.is_none() || sent.sequence <= sequence)
        {
            let sent = self.sent.pop_front()?;
            if sent.entry.is_some() {
                self.sent_messages -= 1;
                self.sent_bytes -= sent.bytes;
                return sent.entry;
            }
        }
        None
    }

    /// Whether everything that was sent is answered.
    pub(super) fn is_settled(&self) -> bool {
        self.sent_messages == 0
    }
}

/// What the client sends first.
pub(super) fn open_request(topic: &str, producer_id: &str, direct: bool) -> pb::PublishRequest {
    let open = pb::PublishOpen {
        topic: topic.to_owned(),
        producer_id: producer_id.to_owned(),
        direct,
    };
    pb::PublishRequest {
        request: Some(pb::publish_request::Request::Open(open)),
    }
}

pub(super) fn outgoing() -> (
    mpsc::Sender<pb::PublishRequest>,
    mpsc::Receiver<pb::PublishRequest>,
) {
    mpsc::channel(OUTGOING)
}

/// Runs one stream to its end: always reads, so that the broker is never held up.
pub(super) async fn run(
    session: u64,
    mut broker: BrokerClient<Channel>,
    open: pb::PublishRequest,
    batches: mpsc::Receiver<pb::PublishRequest>,
    events: mpsc::Sender<Event>,
) {
    let requests = tokio_stream::once(open).chain(ReceiverStream::new(batches));
    let ended = match broker.publish(requests).await {
        Ok(responses) => {
            let mut responses = responses.into_inner();
            loop {
                let response = match responses.message().await {
                    Ok(Some(pb::PublishResponse {
                        response: Some(response),
                    })) => response,
                    Ok(Some(_)) => continue,
                    Ok(None) => break None,
                    Err(status) => break Some(status),
                };
                if events
                    .send(Event {
                        session,
                        what: What::Response(response),
                    })
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
        Err(status) => Some(status),
    };
    // The driver may be gone; then nobody wants to know.
    let _ = events
        .send(Event {
            session,
            what: What::Ended(ended),
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that may have 100 messages unacknowledged and has `sent` of them.
    fn session(sent: u64) -> Session {
        let task = tokio::spawn(std::future::ready(())).abort_handle();
        Session {
            credit: pb::Credit {
                messages: 100,
                bytes: 1 << 20,
            },
            sent_messages: sent,
            ..Session::new(1, outgoing().0, task)
        }
    }

    #[tokio::test]
    async fn what_comes_back_in_small_pieces_is_not_sent_in_small_batches() {
        assert!(!session(99).is_worthwhile(1_000, 1_000));
        assert!(!session(51).is_worthwhile(1_000, 1_000));
        assert!(session(50).is_worthwhile(1_000, 1_000), "half of the credit");
        assert!(session(99).is_worthwhile(1, 1_000), "nothing else waits");
        assert!(session(90).is_worthwhile(1_000, 10), "a whole batch");
        assert!(!session(91).is_worthwhile(1_000, 10));
    }

    #[tokio::test]
    async fn a_stream_with_nothing_unacknowledged_never_waits() {
        for credit in [1, 2, 3, 8] {
            let mut session = session(0);
            session.credit.messages = credit;
            assert!(session.is_worthwhile(1_000, 1_000), "{credit}");
        }
    }
}
