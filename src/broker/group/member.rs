//! A member's session with a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::delivering::{Taken, message_bytes};
use super::hub::Hub;
use super::seats::Bells;
use super::settling::Settling;
use super::{Answer, Budget, Delivered, JoinError, Next, Order, Refused, Start};
use crate::broker::partition::read::ReadError;
use crate::broker::store::{Offset, Store, StoredMessage};

/// One member's session with one group over the partitions of one topic that are owned here. Dropping it gives
/// what it had not settled to the others at once.
#[derive(Debug)]
pub struct Member {
    store: Arc<Store>,
    hub: Arc<Hub>,
    id: u64,
    bells: Arc<Bells>,
    /// It said that it takes nothing for now.
    resting: bool,
    /// What was said about partitions that cannot be served.
    told: BTreeMap<u32, String>,
}

/// The most that is delivered at once.
pub(super) const BATCH: Budget = Budget {
    messages: 512,
    bytes: 256 << 10,
};

/// What a member is to be asked to give back, because others wait for messages and it has more than its share.
#[derive(Debug)]
pub struct Revocations {
    hub: Arc<Hub>,
    id: u64,
    bells: Arc<Bells>,
}

impl Revocations {
    /// Waits for tokens of deliveries that are to be given back if nobody has begun with them. Cancel-safe. What is
    /// not given back stays the member's until its deadline.
    pub async fn next(&self) -> Vec<Bytes> {
        loop {
            self.bells.revoke.notified().await;
            let revoked = self.hub.take_revoked(self.id);
            if !revoked.is_empty() {
                return revoked;
            }
        }
    }
}

impl Member {
    /// Joins the group. Follows the topic's partitions as they come to this broker and leave it.
    ///
    /// # Errors
    /// The topic is not configured, or the group has ordered members.
    pub fn join(store: &Arc<Store>, topic: &str, group: &str, start: Start) -> Result<Self, JoinError> {
        Self::join_in(store, topic, group, start, Order::None)
    }

    /// As [`Member::join`], in this order.
    ///
    /// # Errors
    /// The topic is not configured or has too many groups, or the group has members in another order.
    pub fn join_in(
        store: &Arc<Store>,
        topic: &str,
        group: &str,
        start: Start,
        order: Order,
    ) -> Result<Self, JoinError> {
        let topic = store
            .find_topic(topic)
            .ok_or_else(|| JoinError::NoTopic(topic.to_owned()))?;
        let hub = {
            let mut hubs = topic.hubs.lock();
            if !topic.has_room(&hubs, group) {
                return Err(JoinError::TooMany(topic.name.clone()));
            }
            let hub = hubs.entry(group.to_owned());
            Arc::clone(hub.or_insert_with(|| Hub::new(group, start, &topic, store)))
        };
        let (id, bells) = hub.join(start, order)?;
        Ok(Self {
            store: Arc::clone(store),
            hub,
            id,
            bells,
            resting: false,
            told: BTreeMap::new(),
        })
    }

    /// Takes nothing until the next call of [`Member::next`]: others may have what would be its share.
    pub fn rest(&mut self) {
        if !std::mem::replace(&mut self.resting, true) {
            self.hub.rest(self.id);
        }
    }

    /// What this member is to be asked to give back.
    pub fn revocations(&self) -> Revocations {
        Revocations {
            hub: Arc::clone(&self.hub),
            id: self.id,
            bells: Arc::clone(&self.bells),
        }
    }

    /// Waits for messages for this member, a batch of them and at most `budget`, which is all that it would take. Cancel-safe: nothing is lost if the future is dropped.
    pub async fn next(&mut self, budget: Budget) -> Next {
        self.resting = false;
        loop {
            if self.hub.is_gone() {
                return Next::Gone;
            }
            let Some(taken) = self.hub.reserve(self.id, budget) else {
                let waiting = Waiting {
                    hub: &self.hub,
                    member: self.id,
                    woken: false,
                };
                let problems = self.hub.problems();
                self.told.retain(|partition, _| problems.contains_key(partition));
                let news = problems
                    .into_iter()
                    .find(|(partition, why)| self.told.get(partition) != Some(why));
                if let Some((partition, reason)) = news {
                    self.told.insert(partition, reason.clone());
                    return Next::Unavailable(partition, reason);
                }
                let mut waiting = waiting;
                self.bells.wake.notified().await;
                waiting.woken = true;
                continue;
            };
            let batch = Budget {
                messages: budget.messages.min(BATCH.messages),
                bytes: budget.bytes.min(BATCH.bytes),
            };
            match self.fetch(taken, batch).await {
                // All of them wait behind others of their keys: others get their turn before the next ones.
                Ok(delivered) if delivered.is_empty() => tokio::task::yield_now().await,
                Ok(delivered) => return Next::Deliveries(delivered),
                Err((partition, reason)) => {
                    if self.told.get(&partition) != Some(&reason) {
                        self.told.insert(partition, reason.clone());
                        return Next::Unavailable(partition, reason);
                    }
                }
            }
        }
    }

    /// Reads what was taken, as far as the budget goes, and makes deliveries of it.
    async fn fetch(&self, mut taken: Taken, budget: Budget) -> Result<Vec<Delivered>, (u32, String)> {
        let index = taken.partition.index();
        let end = taken.reserved.offsets.end;
        let mut next = taken.reserved.offsets.start;
        let mut messages: Vec<StoredMessage> = Vec::new();
        let mut bytes = 0;
        while next < end && bytes < budget.bytes {
            let read = self.store.read_messages(&taken.partition, Offset(next)).await;
            match read {
                Ok(more) => {
                    let Some(last) = more.last() else { break };
                    next = last.offset.0 + 1;
                    bytes += more.iter().map(message_bytes).sum::<u64>();
                    messages.extend(more);
                }
                // What was read before it is delivered; the next call meets it first.
                Err(_) if !messages.is_empty() => break,
                Err(ReadError::Damaged(position)) => {
                    let end = Offset::new(Offset(next).epoch(), position).0;
                    self.hub.skip(&mut taken, end);
                    let lost = ReadError::Damaged(position).to_string();
                    return Err((index, lost));
                }
                Err(ReadError::Gone(position)) => {
                    self.hub
                        .trim(&mut taken, Offset::new(Offset(next).epoch(), position).0);
                    return Ok(Vec::new());
                }
                Err(ReadError::Unavailable(reason)) => {
                    self.hub.block(&taken, &reason);
                    return Err((index, reason));
                }
            }
        }
        if messages.is_empty() {
            // Nothing there yet: what was taken goes back, and is not asked for at once again.
            self.hub.block(&taken, "no message is where one should be");
            return Ok(Vec::new());
        }
        Ok(self.hub.deliver(taken, self.id, messages, budget))
    }

    /// Whether messages wait that this member could be given now (for the starved clock).
    pub fn has_waiting(&self) -> bool {
        self.hub.has_waiting()
    }

    /// Settles deliveries; ready when progress is as durable as the cluster's durability says. One result for each.
    /// The future borrows nothing, so that a session waits for it and for [`Member::next`] at once. The answers
    /// are taken in the order of the calls, at the call and not at the first poll. A message that is given up is
    /// settled when it is durable in the dead-letter topic.
    pub fn settle(
        &self,
        answers: Vec<(Bytes, Answer)>,
    ) -> impl Future<Output = Vec<Result<(), Refused>>> + Send + use<> {
        let (settling, telling) = self.hub.settle(answers);
        let hub = Arc::clone(&self.hub);
        async move {
            let mut told = BTreeMap::new();
            for telling in telling {
                told.insert(telling.partition(), hub.told(telling).await);
            }
            let mut results = Vec::with_capacity(settling.len());
            for one in settling {
                results.push(match one {
                    Settling::Refused(refused) => Err(refused),
                    Settling::With(partition) => told.get(&partition).cloned().unwrap_or(Ok(())),
                    Settling::Burying(buried) => buried.await.map_err(|_| Refused::Stale),
                });
            }
            results
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.hub.quit(self.id);
    }
}

/// A member that waits. Dropped before it was woken, it hands what it may have been woken for to the next one.
struct Waiting<'a> {
    hub: &'a Hub,
    member: u64,
    woken: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.hub.stop_waiting(self.member, self.woken);
    }
}
