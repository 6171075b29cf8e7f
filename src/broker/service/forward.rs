//! The careful way of one part to its partition's owner, wherever that is: into the log here, or by a call to the
//! broker that owns it, again and again until the deadline. One part at a time for each partition of a stream, so
//! that order holds across a move.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Code;

use super::payload;
use super::shared::Shared;
use crate::broker::store::{AppendError, NewMessage, NotAppended, Partition};
use crate::pb;

/// Messages of one batch for one partition.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The partition.
    pub partition: u32,
    /// In the order in which they came.
    pub messages: Vec<NewMessage>,
    /// Bytes of key, headers and body.
    pub bytes: u64,
}

/// Where the messages of a part went.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// One for each message.
    pub offsets: Vec<u64>,
    /// How many had been stored before.
    pub duplicates: u64,
}

/// A part that was not stored, as far as is known, and why.
#[derive(Debug)]
pub(super) struct Undelivered {
    /// What was to be stored.
    pub part: Part,
    /// Why not.
    pub why: Why,
}

/// Why a part was not stored.
#[derive(Debug)]
pub(super) enum Why {
    /// Another broker owns the partition.
    Moved {
        /// Its address for clients; empty while it is not known.
        address: String,
        /// The newest epoch known here.
        epoch: u64,
    },
    /// It can be stored later.
    Later(String),
    /// It can never be stored as it is.
    Never(String),
    /// The disk is full: nothing of it was stored.
    NotStored(String),
    /// The log failed while it was being written: it may be stored or not.
    Failed(String),
}

/// One part's way.
pub(super) struct Delivery {
    /// The broker.
    pub shared: Arc<Shared>,
    /// The topic.
    pub topic: String,
    /// The producer's id, or empty.
    pub producer: String,
    /// When it came off the wire.
    pub arrived: Instant,
    /// When to give up.
    pub deadline: Instant,
    /// False: only into the log here.
    pub may_forward: bool,
}

enum Step {
    Stored(Stored),
    Again(Why),
    Failed(Why),
}

impl Delivery {
    /// Stores the part.
    ///
    /// # Errors
    /// It could not be stored before the deadline.
    pub(super) async fn run(self, part: Part) -> Result<Stored, Undelivered> {
        let mut pause = Duration::from_millis(10);
        let mut signals = self.shared.signals();
        loop {
            signals.borrow_and_update();
            let why = match self.step(&part).await {
                Step::Stored(stored) => return Ok(stored),
                Step::Failed(why) => return Err(Undelivered { part, why }),
                Step::Again(why) => why,
            };
            let is_last = Instant::now() + pause >= self.deadline;
            if is_last || (!self.may_forward && matches!(why, Why::Moved { .. })) {
                return Err(Undelivered { part, why });
            }
            // A new topology ends the pause.
            let _ = tokio::time::timeout(pause, signals.changed()).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    async fn step(&self, part: &Part) -> Step {
        let Some(topic) = self.shared.store.topic(&self.topic) else {
            return Step::Again(Why::Later(format!(
                "topic {:?} is not configured here any more",
                self.topic
            )));
        };
        let Some(partition) = topic.partitions.get(part.partition as usize) else {
            return Step::Again(Why::Later(format!(
                "partition {} is not configured here yet",
                part.partition
            )));
        };
        if partition.is_ours() {
            return self.append(partition, part).await;
        }
        if !self.may_forward {
            return Step::Again(elsewhere(&self.shared, partition));
        }
        let (_, owner, _) = partition.owner();
        if owner.is_empty() || owner == self.shared.name {
            let text = format!("no broker takes appends for partition {} now", part.partition);
            return Step::Again(Why::Later(text));
        }
        self.send(&owner, part).await
    }

    async fn append(&self, partition: &Partition, part: &Part) -> Step {
        let count = part.messages.len() as u32;
        let entering = self.shared.channel.enter(count, part.bytes, self.arrived);
        let Ok(permit) = tokio::time::timeout_at(self.deadline.into(), entering).await else {
            return Step::Again(Why::Later("the broker's channel is full".to_owned()));
        };
        // What the log does not take is needed to be refused, or to be tried again.
        match partition.append(part.messages.clone(), &self.producer, permit) {
            Ok(ticket) => {
                let counters = &self.shared.counters;
                counters.accepted_messages.add(u64::from(count));
                match ticket.done().await {
                    Ok(appended) => {
                        counters.acked_messages.add(u64::from(count));
                        counters.acked_bytes.add(part.bytes);
                        Step::Stored(Stored {
                            offsets: appended.iter().map(|one| one.offset.0).collect(),
                            duplicates: appended.iter().filter(|one| one.duplicate).count() as u64,
                        })
                    }
                    Err(error @ AppendError::NotStored(_)) => Step::Failed(Why::NotStored(error.to_string())),
                    Err(error) => Step::Failed(Why::Failed(error.to_string())),
                }
            }
            Err(NotAppended { error, .. }) => match why(&self.shared, error) {
                never @ Why::Never(_) => Step::Failed(never),
                other => Step::Again(other),
            },
        }
    }

    async fn send(&self, owner: &str, part: &Part) -> Step {
        let mut client = match self.shared.peers.calls(owner) {
            Ok(client) => client,
            Err(status) => return Step::Again(Why::Later(status.message().to_owned())),
        };
        let request = pb::SendRequest {
            topic: self.topic.clone(),
            producer_id: self.producer.clone(),
            payloads: part
                .messages
                .iter()
                .map(|one| payload::payload(one, part.partition))
                .collect(),
            direct: true,
        };
        let mut request = tonic::Request::new(request);
        let left = self
            .deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(100));
        request.set_timeout(left);
        let answer = tokio::time::timeout(left, client.send(request)).await;
        match answer {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                self.shared
                    .counters
                    .forwarded_messages
                    .add(part.messages.len() as u64);
                Step::Stored(Stored {
                    offsets: response.offsets.iter().map(|one| one.offset).collect(),
                    duplicates: response.duplicates,
                })
            }
            Ok(Err(status)) if status.code() == Code::InvalidArgument => Step::Failed(Why::Later(format!(
                "broker {owner} refused it: {}",
                status.message()
            ))),
            Ok(Err(status)) => Step::Again(Why::Later(format!("broker {owner}: {}", status.message()))),
            Err(_) => Step::Again(Why::Later(format!("broker {owner} did not answer in time"))),
        }
    }
}

/// Why a partition that is not open here takes nothing here.
pub(super) fn elsewhere(shared: &Shared, partition: &Partition) -> Why {
    let (_, owner, epoch) = partition.owner();
    if owner == shared.name {
        return Why::Later(format!(
            "partition {} is being taken over here",
            partition.index()
        ));
    }
    Why::Moved {
        address: shared.peers.address(&owner),
        epoch,
    }
}

/// What an append's refusal means to a client.
pub(super) fn why(shared: &Shared, error: AppendError) -> Why {
    match error {
        AppendError::Moved { owner, epoch, .. } => Why::Moved {
            address: shared.peers.address(&owner),
            epoch,
        },
        AppendError::Unavailable(text) => Why::Later(text),
        AppendError::Refused(text) => Why::Never(text),
        error @ (AppendError::NotStored(_) | AppendError::Log(_)) => Why::Later(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::broker::core_tests::support::{
        chain_entry, close, configuration, message, options, shared, topic,
    };
    use crate::broker::log::fault::FaultDisk;
    use crate::broker::store::Store;

    #[tokio::test]
    async fn what_a_full_disk_did_not_take_is_handed_back_to_be_refused() {
        let disk = FaultDisk::default();
        let store = Store::open_on(
            options(Path::new("/data"), "a"),
            Arc::default(),
            Arc::new(disk.clone()),
        )
        .unwrap();
        let chains = vec![vec![chain_entry(1, "a", None)]];
        let orders = configuration("a", 1, vec![topic("orders", chains)]);
        store.configure(&orders).unwrap();
        let shared = shared(&store);
        disk.set_capacity(Some(disk.used()));
        let now = Instant::now();
        let delivery = Delivery {
            shared: Arc::clone(&shared),
            topic: "orders".to_owned(),
            producer: "p".to_owned(),
            arrived: now,
            deadline: now + Duration::from_secs(60),
            may_forward: true,
        };
        let body = "x".repeat(100 << 10);
        let part = Part {
            partition: 0,
            messages: vec![message(5, &body), message(6, "")],
            bytes: body.len() as u64,
        };
        let Undelivered { part, why } = delivery.run(part).await.unwrap_err();
        assert!(
            matches!(&why, Why::NotStored(text) if text.contains("full")),
            "{why:?}"
        );
        let sequences: Vec<u64> = part.messages.iter().map(|message| message.sequence).collect();
        assert_eq!(sequences, [5, 6]);
        drop(shared);
        close(store).await;
    }
}
