//! Between the wire and the core for subscriptions: openings and deliveries.

use std::time::SystemTime;

use tonic::Status;

use super::{payload, token};
use crate::broker::group::{Delivered, Start};
use crate::broker::store::{Offset, StoredMessage};
use crate::pb;

/// A longer group or member name is refused.
const LONGEST_NAME: usize = 128;

/// Checks an opening.
///
/// # Errors
/// `INVALID_ARGUMENT` without a group, or with a name that is too long.
pub(super) fn check_open(open: &pb::SubscribeOpen) -> Result<(), Status> {
    if open.group.is_empty() {
        return Err(Status::invalid_argument("a subscription names its group"));
    }
    if open.group.len() > LONGEST_NAME || open.member.len() > LONGEST_NAME {
        return Err(Status::invalid_argument(format!(
            "the names of groups and members have at most {LONGEST_NAME} bytes"
        )));
    }
    Ok(())
}

/// Where a group without progress starts.
///
/// # Errors
/// `INVALID_ARGUMENT` for a time that is none.
pub(super) fn start(start: Option<&pb::StartPosition>) -> Result<Start, Status> {
    use pb::start_position::Start as Wire;
    Ok(match start.and_then(|start| start.start.as_ref()) {
        None | Some(Wire::Earliest(_) | Wire::Latest(false)) => Start::Earliest,
        Some(Wire::Latest(true)) => Start::Latest,
        Some(Wire::Offset(offset)) => Start::Offset(Offset(*offset)),
        Some(Wire::Time(time)) => Start::Time(
            SystemTime::try_from(*time)
                .map_err(|_| Status::invalid_argument("the start's time is no time"))?,
        ),
    })
}

/// Bytes of key, headers and body: what credit counts.
pub(super) fn size(message: &StoredMessage) -> u64 {
    let headers: usize = message
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    (message.key.len() + headers + message.body.len()) as u64
}

/// The same of a delivery on the wire.
pub(super) fn wire_size(delivery: &pb::Delivery) -> u64 {
    let headers: usize = delivery
        .headers
        .iter()
        .map(|header| header.name.len() + header.value.len())
        .sum();
    (delivery.key.len() + headers + delivery.body.len()) as u64
}

/// A delivery for the wire; `wraps` where the client gets other brokers' tokens as well.
pub(super) fn delivery(delivered: Delivered, wraps: bool) -> pb::Delivery {
    let message = delivered.message;
    pb::Delivery {
        partition: delivered.partition,
        offset: message.offset.0,
        delivery_count: delivered.count,
        token: if wraps {
            token::wrap("", &delivered.token)
        } else {
            delivered.token
        },
        key: message.key,
        headers: payload::headers(message.headers),
        body: message.body,
        published_at: Some(message.published_at.into()),
        producer_id: message.producer,
        sequence: message.sequence,
    }
}
