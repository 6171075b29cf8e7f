//! Consumer groups: who has which message, until when, and what is done.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::store::{Offset, Partition, StoredMessage};

/// Where a group starts that has no progress in a partition yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message kept.
    Earliest,
    /// At the next one.
    Latest,
    /// At this offset, or the first one after it.
    Offset(Offset),
    /// At the first message appended at or after this time.
    Time(SystemTime),
}

/// One delivery to one member.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The partition.
    pub partition: u32,
    /// The message.
    pub message: StoredMessage,
    /// 1 for the first delivery.
    pub count: u32,
    /// Names this delivery; stale once the message is delivered again, settled, or its partition moved.
    pub token: Bytes,
}

/// What a member may be given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// Messages.
    pub messages: u64,
    /// Bytes of key, headers and body. At least one message is given if `messages` allows it and this is not zero.
    pub bytes: u64,
}

/// How a member answers a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Ack,
    /// Deliver again, no sooner than this.
    Nack(Duration),
    /// The deadline becomes now plus this.
    Extend(Duration),
    /// To the dead-letter topic where there is one, and done.
    GiveUp,
}

/// Why an answer was refused.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The token names a delivery that is over.
    #[error("stale token: the message was delivered again, settled, or its partition moved")]
    Stale,
    /// The token is none of this broker's.
    #[error("not a token")]
    Malformed,
}

/// One member's session with one group over the partitions of one topic that are owned here. Dropping it gives
/// what it had not settled to the others at once.
#[derive(Debug)]
pub struct Member {}

/// What a call to [`Member::next`] brings.
#[derive(Debug)]
pub enum Next {
    /// Messages; the budget they took is theirs.
    Deliveries(Vec<Delivered>),
    /// This partition cannot be served now, with the reason (said once until it changes).
    Unavailable(u32, String),
    /// The topic is not configured here any more.
    Gone,
}

impl Member {
    /// Joins the group. Follows the topic's partitions as they come to this broker and leave it.
    ///
    /// # Errors
    /// The topic is not configured.
    pub fn join(
        store: &Arc<super::store::Store>,
        topic: &str,
        group: &str,
        start: Start,
    ) -> Result<Self, String> {
        todo!("{store:?} {topic} {group} {start:?} {:?}", None::<Partition>)
    }

    /// Waits for messages for this member, at most `budget`. Cancel-safe: nothing is lost if the future is dropped.
    pub async fn next(&mut self, budget: Budget) -> Next {
        todo!("{budget:?}")
    }

    /// Whether messages wait that this member could be given now (for the starved clock).
    pub fn has_waiting(&self) -> bool {
        todo!()
    }

    /// Settles deliveries; ready when progress is as durable as the cluster's durability says. One result for each.
    /// The future borrows nothing, so that a session waits for it and for [`Member::next`] at once. The answers
    /// are taken in the order of the calls, at the call and not at the first poll.
    pub fn settle(
        &self,
        answers: Vec<(Bytes, Answer)>,
    ) -> impl Future<Output = Vec<Result<(), Refused>>> + Send + use<> {
        async move { todo!("{answers:?}") }
    }
}
