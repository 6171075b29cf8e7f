//! What can go wrong, and whether it is worth trying again.

use std::time::Duration;

use tonic::{Code, Status};

/// No broker could be reached.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// There was nothing to connect to.
    #[error("no address given: name at least one broker, as host:port")]
    NoAddress,
    /// An address is none.
    #[error("{address:?} is not an address: {reason} (expected host:port)")]
    BadAddress {
        /// What was given.
        address: String,
        /// Why it is none.
        reason: String,
    },
    /// Nobody answered in time.
    #[error("no broker answered within {waited:?}; last: {last}")]
    Unreachable {
        /// How long it was tried.
        waited: Duration,
        /// What the last try said.
        last: String,
    },
}

/// Why a message was not stored, or is not known to be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// The broker refused this one message; it will never be stored as it is.
    #[error("rejected ({code:?}): {text}")]
    Rejected {
        /// The broker's code.
        code: Code,
        /// What is wrong and what to do.
        text: String,
    },
    /// The message is larger than the broker takes, or than the publisher's buffer.
    #[error("the message has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Bytes of key, headers and body with their framing.
        bytes: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// Not acknowledged in time. It may have been stored all the same.
    #[error("not acknowledged within {0:?}; whether it was stored is unknown")]
    TimedOut(Duration),
    /// The broker refused the stream for good: the topic's name, the producer id or the permission.
    #[error("the broker refused the stream ({code:?}): {text}")]
    Refused {
        /// The status code.
        code: Code,
        /// The status text.
        text: String,
    },
    /// The publisher was closed or dropped before the message was acknowledged.
    #[error("the publisher is closed")]
    Closed,
}

/// Why no more messages come.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubscribeError {
    /// The broker refused the subscription for good.
    #[error("the broker refused the subscription ({code:?}): {text}")]
    Refused {
        /// The status code.
        code: Code,
        /// The status text.
        text: String,
    },
    /// The subscription was not open in time.
    #[error("the subscription was not open within {waited:?}; last: {last}")]
    TimedOut {
        /// How long it was tried.
        waited: Duration,
        /// What the last try said.
        last: String,
    },
    /// The subscriber was closed.
    #[error("the subscriber is closed")]
    Closed,
}

/// Whether a stream that ended like this would end like this again.
pub(crate) fn is_permanent(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
    )
}
