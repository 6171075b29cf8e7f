//! Dead letters.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{NewMessage, Offset, Store};
use crate::broker::group::Hub;
use crate::broker::partition::Partition;
use crate::broker::partition::read::ReadError;

/// A message that a group gives up.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) hub: Arc<Hub>,
    pub(crate) partition: Arc<Partition>,
    /// The epoch under which it was delivered.
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    /// Deliveries so far.
    pub(crate) count: u32,
    /// Why, in words.
    pub(crate) reason: &'static str,
    /// Told when it is done.
    pub(crate) done: Option<oneshot::Sender<()>>,
}

/// Dead letters that are on their way at a time.
const AT_ONCE: usize = 64;
/// One that could not be stored is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// Brings dead letters to their topics.
pub(super) async fn bury(store: Weak<Store>, dying: mpsc::UnboundedReceiver<Dead>) {
    let dying = UnboundedReceiverStream::new(dying);
    dying
        .for_each_concurrent(AT_ONCE, |mut dead| {
            let store = store.clone();
            async move {
                loop {
                    let Some(store) = store.upgrade() else { return };
                    let Err(why) = store.bury_one(&dead).await else { break };
                    let offset = dead.offset;
                    tracing::warn!(partition = ?dead.partition, offset, why, "a dead letter is not stored yet");
                    drop(store);
                    tokio::time::sleep(AGAIN).await;
                }
                if let Some(done) = dead.done.take() {
                    _ = done.send(());
                }
            }
        })
        .await;
}

impl Store {
    async fn bury_one(&self, dead: &Dead) -> Result<(), String> {
        if !dead.hub.is_dying(dead) {
            return Ok(());
        }
        let id = dead.partition.entry_id(dead.epoch);
        let target = self
            .find_topic(&id.topic)
            .map(|topic| topic.settings().dead_letter_topic);
        if let Some(target) = target.filter(|target| !target.is_empty()) {
            match self.read_messages(&dead.partition, Offset(dead.offset)).await {
                Ok(messages) => {
                    let message = messages.into_iter().next().ok_or("the message is not there")?;
                    self.publish_dead(&target, letter(dead, &id.topic, message))
                        .await?;
                    self.counters.dead_lettered_messages.add(1);
                }
                // There is nothing to keep any more.
                Err(ReadError::Damaged(_) | ReadError::Gone(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        } else {
            self.counters.given_up_messages.add(1);
        }
        dead.hub
            .finish_dead(dead)
            .await
            .map_err(|refused| refused.to_string())
    }

    async fn publish_dead(&self, target: &str, message: NewMessage) -> Result<(), String> {
        let own: Vec<_> = self
            .find_topic(target)
            .map(|topic| topic.partitions())
            .unwrap_or_default()
            .into_iter()
            .filter(|partition| partition.owner().0)
            .collect();
        if own.is_empty() {
            let sink = self.dead_letters.read().clone();
            let sink = sink.ok_or_else(|| format!("topic {target:?} has no partition on this broker"))?;
            return sink.publish(target, message).await;
        }
        let partition = &own[message.sequence as usize % own.len()];
        let ticket = partition
            .append_with(vec![message], "", None)
            .map_err(|refused| refused.error.to_string())?;
        ticket.done().await.map(drop).map_err(|error| error.to_string())
    }
}

fn letter(dead: &Dead, topic: &str, message: super::StoredMessage) -> NewMessage {
    let text = |value: String| Bytes::from(value);
    let mut headers = message.headers;
    headers.extend([
        (
            "sluice-dead-letter-reason".to_owned(),
            Bytes::from_static(dead.reason.as_bytes()),
        ),
        ("sluice-dead-letter-topic".to_owned(), text(topic.to_owned())),
        (
            "sluice-dead-letter-partition".to_owned(),
            text(dead.partition.index().to_string()),
        ),
        (
            "sluice-dead-letter-offset".to_owned(),
            text(dead.offset.to_string()),
        ),
        (
            "sluice-dead-letter-group".to_owned(),
            text(dead.hub.name().to_owned()),
        ),
        (
            "sluice-dead-letter-deliveries".to_owned(),
            text(dead.count.to_string()),
        ),
    ]);
    NewMessage {
        key: message.key,
        headers,
        body: message.body,
        sequence: message.sequence,
    }
}
