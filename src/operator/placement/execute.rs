//! The calls to brokers that carry a plan out. Each has a time limit; what fails is planned again.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use tonic::transport::Channel;

use super::super::fault;
use super::model::{EntryKey, Held};
use super::plan::{CopyJob, DropJob, Move};
use crate::operator::metrics::Metrics;
use crate::pb;
use crate::pb::control_client::ControlClient;

/// How long one call may take.
const LIMIT: Duration = Duration::from_secs(3);

/// Clients of the brokers that may be asked, by name.
pub type Clients = BTreeMap<String, ControlClient<Channel>>;

fn entry(topic: &str, key: &EntryKey) -> Option<pb::EntryId> {
    Some(pb::EntryId {
        topic: topic.to_owned(),
        partition: key.partition,
        epoch: key.epoch,
        topic_uid: key.topic_uid.clone(),
    })
}

async fn call<T>(
    metrics: &Metrics,
    method: &'static str,
    request: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, String> {
    let answer = tokio::time::timeout(LIMIT, request).await;
    metrics.called(method, matches!(answer, Ok(Ok(_))));
    match answer {
        Ok(Ok(response)) => {
            fault::done(method);
            Ok(response.into_inner())
        }
        Ok(Err(status)) => Err(format!("{method}: {}", status.message())),
        Err(_) => Err(format!("{method}: no answer within {LIMIT:?}")),
    }
}

fn client(clients: &Clients, broker: &str) -> Result<ControlClient<Channel>, String> {
    clients
        .get(broker)
        .cloned()
        .ok_or_else(|| format!("{broker} is not connected"))
}

/// Seals the open entries of these moves. The answer of each: its number of positions, or why not.
pub async fn seal(clients: &Clients, moves: &[Move], metrics: &Metrics) -> Vec<Result<u64, String>> {
    let one = async |step: &Move| {
        if let Some(sealed_at) = step.sealed_at {
            return Ok(sealed_at);
        }
        let mut client = client(clients, &step.from)?;
        let request = pb::SealRequest {
            entry: entry(&step.topic, &step.key),
        };
        let answer = call(metrics, "Seal", client.seal(request)).await?;
        Ok(answer.sealed_at)
    };
    join_all(moves.iter().map(one)).await
}

/// Starts copies, or asks how far they are. The answer of each: whether all of it is durable there.
pub async fn copy(
    clients: &Clients,
    jobs: &[CopyJob],
    addresses: &BTreeMap<String, String>,
    metrics: &Metrics,
) -> Vec<Result<bool, String>> {
    let one = async |job: &CopyJob| {
        let mut client = client(clients, &job.to)?;
        let request = pb::CopyRequest {
            entry: entry(&job.topic, &job.key),
            sealed_at: job.sealed_at,
            from_broker: job.from.clone(),
            from_control_address: addresses.get(&job.from).cloned().unwrap_or_default(),
        };
        let answer = call(metrics, "Copy", client.copy(request)).await?;
        if !answer.done && !answer.problem.is_empty() {
            return Err(format!("Copy: {}", answer.problem));
        }
        Ok(answer.done)
    };
    join_all(jobs.iter().map(one)).await
}

/// Deletes entries from disks; an open one is sealed first, since nobody may append to it any more.
pub async fn drop_entries(clients: &Clients, jobs: &[DropJob], metrics: &Metrics) -> Vec<Result<(), String>> {
    let one = async |job: &DropJob| {
        let mut client = client(clients, &job.broker)?;
        if !job.sealed {
            let request = pb::SealRequest {
                entry: entry(&job.topic, &job.key),
            };
            call(metrics, "Seal", client.seal(request)).await?;
        }
        let request = pb::DropRequest {
            entry: entry(&job.topic, &job.key),
        };
        call(metrics, "Drop", client.drop(request)).await.map(|_| ())
    };
    join_all(jobs.iter().map(one)).await
}

/// Sets or takes back the cordon, and reads what is on the disk.
///
/// # Errors
/// The broker did not answer, or refused.
pub async fn drain(
    client: &mut ControlClient<Channel>,
    cordon: bool,
    metrics: &Metrics,
) -> Result<BTreeMap<EntryKey, Held>, String> {
    let answer = call(metrics, "Drain", client.drain(pb::DrainRequest { cordon })).await?;
    let held = answer.held.into_iter().filter_map(|held| {
        let id = held.entry?;
        let key = EntryKey {
            topic_uid: id.topic_uid,
            partition: id.partition,
            epoch: id.epoch,
        };
        let held = Held {
            topic: id.topic,
            sealed: held.sealed,
            positions: held.positions,
            bytes: held.bytes,
            start: held.start,
        };
        Some((key, held))
    });
    Ok(held.collect())
}
