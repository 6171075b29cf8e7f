//! Consumer groups: who has which message, until when, and what is done.

mod census;
mod delivering;
mod hub;
mod member;
mod seats;
mod settling;
mod sharing;
mod starting;
mod state;
mod token;

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::store::{Offset, StoredMessage};
pub use census::{Census, census};
pub(crate) use hub::Hub;
pub use member::{Member, Revocations};

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

/// In which order a group gets its messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// As they come, as many at a time as members take.
    #[default]
    None,
    /// Messages of one key in their order, one of them outstanding at a time. Messages without a key are free.
    ByKey,
}

/// Why a member is not let in.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum JoinError {
    /// The topic is not here (any more).
    #[error("topic {0:?} is not configured on this broker")]
    NoTopic(String),
    /// The topic has as many groups as it may.
    #[error(
        "topic {0:?} has 10000 groups, and more are not taken: use a group that there is; one without members is forgotten \
         after seven days"
    )]
    TooMany(String),
    /// Some members are ordered and some are not.
    #[error("group {group:?} has members with ordered: {has}; open with the same, or after those have left")]
    Mixed {
        /// The group.
        group: String,
        /// What its members are.
        has: bool,
    },
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
    /// The same for a message that the application never saw: the delivery is not counted.
    GiveBack(Duration),
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
    /// The answer holds for now, but is not on the disk: after a restart the message may be delivered again.
    #[error("the log cannot take progress: {0}")]
    Log(String),
}

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
