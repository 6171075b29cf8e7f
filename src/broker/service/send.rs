//! The unary form of publishing: one batch in; where it went, or one status, out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tonic::{Code, Request, Status};

use super::credit::Open;
use super::forward::{Delivery, Part, Undelivered, Why};
use super::payload::{self, Spread};
use super::shared::{Shared, retry_later, with_pushback};
use crate::broker::refusals::Reason;
use crate::pb;

/// A call without a deadline of its own gets this one.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Stores a batch. The batch is refused as a whole where one payload is bad; parts for several partitions are
/// stored each on its own, and one that is not stored makes the call fail, so that a repetition with a producer id
/// stores only that.
///
/// # Errors
/// `INVALID_ARGUMENT` names the bad payload, `RESOURCE_EXHAUSTED` where the broker is full, `FAILED_PRECONDITION`
/// where another broker owns the partition of a direct call, `DEADLINE_EXCEEDED`, `UNAVAILABLE` where it is worth
/// another try.
pub(super) async fn send(
    shared: &Arc<Shared>,
    request: Request<pb::SendRequest>,
) -> Result<pb::SendResponse, Status> {
    let _open = (Open::session(&shared.counters), Open::stream(&shared.counters));
    let arrived = Instant::now();
    let timeout = timeout(&request)
        .unwrap_or(TIMEOUT)
        .min(Duration::from_secs(3600));
    let call = store(shared, request.into_inner(), arrived, arrived + timeout);
    tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(
            "the batch was not stored in time; it may still be",
        ))
    })
}

async fn store(
    shared: &Arc<Shared>,
    request: pb::SendRequest,
    arrived: Instant,
    deadline: Instant,
) -> Result<pb::SendResponse, Status> {
    let pb::SendRequest {
        topic: name,
        producer_id,
        payloads,
        direct,
    } = request;
    payload::check_producer(&producer_id).map_err(|bad| Status::new(bad.code, bad.text))?;
    let topic = shared.topic(&name).await?;
    let max_message_bytes = shared.credit.limits().max_message_bytes;
    let mut parts: Vec<(Part, Vec<usize>)> = Vec::new();
    let count = payloads.len();
    let total = payloads.iter().map(payload::size).sum();
    let mut spread = Spread::new(&producer_id);
    spread.turn(&topic);
    for (index, payload) in payloads.into_iter().enumerate() {
        let size = payload::size(&payload);
        if let Err(bad) = payload::check(&payload, size, max_message_bytes, topic.partitions.len() as u32) {
            shared.counters.rejected_messages.add(1);
            return Err(Status::new(
                bad.code,
                format!(
                    "payload {index} (sequence {}): {}; nothing was stored",
                    payload.sequence, bad.text
                ),
            ));
        }
        let partition = spread.place(&payload.key, payload.partition, payload.sequence, &topic);
        let message = payload::message(payload);
        match parts.iter_mut().find(|(part, _)| part.partition == partition) {
            Some((part, indices)) => {
                part.messages.push(message);
                part.bytes += size;
                indices.push(index);
            }
            None => parts.push((
                Part {
                    partition,
                    messages: vec![message],
                    bytes: size,
                },
                vec![index],
            )),
        }
    }
    shared.counters.bytes_in.add(total);
    shared.counters.requests.add(1);
    let Some(_reserved) = shared.inflight.reserve(total) else {
        let text = "the broker holds as many bytes as it may (limits.maxInflightBytes); try again later";
        shared.refusals.count_many(Reason::Inflight, count as u64, &text);
        return Err(with_pushback(Status::resource_exhausted(text)));
    };
    let deliveries = parts.into_iter().map(|(part, indices)| {
        let delivery = Delivery {
            shared: Arc::clone(shared),
            topic: name.clone(),
            producer: producer_id.clone(),
            arrived,
            deadline: deadline.min(arrived + TIMEOUT),
            may_forward: !direct,
        };
        let partition = part.partition;
        async move {
            let stored = delivery
                .run(part)
                .await
                .map_err(|undelivered| status(&undelivered))?;
            Ok::<_, Status>((partition, indices, stored))
        }
    });
    let mut offsets = vec![pb::PartitionOffset::default(); count];
    let mut duplicates = 0;
    for (partition, indices, stored) in try_join_all(deliveries).await? {
        duplicates += stored.duplicates;
        for (index, offset) in indices.into_iter().zip(stored.offsets) {
            if let Some(slot) = offsets.get_mut(index) {
                *slot = pb::PartitionOffset { partition, offset };
            }
        }
    }
    Ok(pb::SendResponse {
        durability: shared.durability().into(),
        offsets,
        duplicates,
    })
}

fn status(undelivered: &Undelivered) -> Status {
    let partition = undelivered.part.partition;
    match &undelivered.why {
        Why::Moved { address, epoch } => Status::new(
            Code::FailedPrecondition,
            format!("partition {partition} is at {address:?} since epoch {epoch}; send it there"),
        ),
        Why::Later(text) => retry_later(format!("partition {partition}: {text}")),
        Why::Never(text) => Status::invalid_argument(format!("partition {partition}: {text}")),
        Why::NotStored(text) => retry_later(format!(
            "partition {partition}: {text}; nothing was stored there: send it again"
        )),
        Why::Failed(text) => {
            Status::unavailable(format!("partition {partition}: {text}; it may be stored or not"))
        }
    }
}

/// The call's own deadline, from `grpc-timeout`: at most eight digits and a unit.
fn timeout<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_deadline_is_read_in_every_unit() {
        let with = |text: &'static str| {
            let mut request = Request::new(());
            request
                .metadata_mut()
                .insert("grpc-timeout", tonic::metadata::MetadataValue::from_static(text));
            timeout(&request)
        };
        assert_eq!(with("250m"), Some(Duration::from_millis(250)));
        assert_eq!(with("2S"), Some(Duration::from_secs(2)));
        assert_eq!(with("x"), None);
        assert_eq!(with("123456789S"), None);
    }
}
