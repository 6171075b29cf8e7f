//! The ways of a publish stream's parts: through the channel into the log here, in the order in which they came, or
//! the careful way of [`super::forward`]; and the acknowledgement of what arrived.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt as _;
use tokio_util::sync::ReusableBoxFuture;
use tonic::Status;

use super::forward::{Delivery, Stored, Undelivered, Why, elsewhere, why};
use super::intake::Forming;
use super::publish::{AWAY_TIMEOUT, FENCED, FORWARD_TIMEOUT, Session, Waiting, Way};
use crate::broker::channel::Permit;
use crate::broker::store::{AppendError, Appended, NotAppended};
use crate::pb;

impl Session {
    /// Lets parts go on, in the order in which they came.
    ///
    /// # Errors
    /// The log could not take one: the stream ends.
    pub(super) fn pump(&mut self) -> Result<(), Status> {
        while !self.is_entering {
            if self.waiting.is_empty() && !self.close_round() {
                break;
            }
            let Some(front) = self.waiting.front() else {
                continue;
            };
            let (partition, count, bytes, arrived) = (
                front.part.partition,
                front.part.messages.len() as u32,
                front.part.bytes,
                front.arrived,
            );
            if self.lanes.contains_key(&partition) {
                self.forward_front();
                continue;
            }
            if self.is_fenced() {
                if let Some(waiting) = self.waiting.pop_front() {
                    self.refuse(waiting.round, &waiting.part, Why::Later(FENCED.to_owned()));
                }
                continue;
            }
            match self.topic.partitions.get(partition as usize) {
                Some(ours) if ours.is_ours() => {
                    if let Some(permit) = self.shared.channel.try_enter(count, bytes, arrived) {
                        self.entered(permit)?;
                        continue;
                    }
                    let channel = Arc::clone(&self.shared.channel);
                    let entering = async move { channel.enter(count, bytes, arrived).await };
                    match &mut self.entering {
                        Some(future) => future.set(entering),
                        empty => *empty = Some(ReusableBoxFuture::new(entering)),
                    }
                    self.is_entering = true;
                }
                Some(other) if self.open.direct => {
                    let why = elsewhere(&self.shared, other);
                    if let Some(waiting) = self.waiting.pop_front() {
                        self.refuse(waiting.round, &waiting.part, why);
                    }
                }
                _ => self.forward_front(),
            }
        }
        Ok(())
    }

    /// Whether earlier payloads of the first part's partition were refused while it waited.
    fn is_fenced(&self) -> bool {
        let Some(part) = self.waiting.front().map(|front| &front.part) else {
            return false;
        };
        let Some(first) = part.messages.first() else {
            return false;
        };
        self.fence.blocks(part.partition, first.sequence)
    }

    /// There is room for the first part that waits: into the log with it.
    ///
    /// # Errors
    /// The log could not take it: the stream ends.
    pub(super) fn entered(&mut self, permit: Permit) -> Result<(), Status> {
        self.is_entering = false;
        let Some(Waiting {
            round,
            arrived,
            mut part,
        }) = self.waiting.pop_front()
        else {
            return Ok(());
        };
        let way = Way {
            round,
            partition: part.partition,
            messages: part.messages.len() as u64,
            bytes: part.bytes,
        };
        let Some(partition) = self.topic.partitions.get(part.partition as usize) else {
            let text = "the partition is not here now".to_owned();
            self.refuse(round, &part, Why::Later(text));
            return Ok(());
        };
        let messages = std::mem::take(&mut part.messages);
        match partition.append_in_line(messages, &self.open.producer_id, permit, &self.line) {
            Ok(ticket) => {
                self.shared.counters.accepted_messages.add(way.messages);
                self.appended.push_back((way, ticket));
                return self.watch_commits();
            }
            Err(NotAppended { error, messages }) => {
                part.messages = messages;
                if matches!(error, AppendError::Moved { .. }) && !self.open.direct {
                    self.waiting.push_front(Waiting { round, arrived, part });
                    self.forward_front();
                } else {
                    let why = why(&self.shared, error);
                    self.refuse(round, &part, why);
                }
            }
        }
        Ok(())
    }

    /// Takes what is committed, as it mostly is at once with durability in memory, and waits for the next.
    fn watch_commits(&mut self) -> Result<(), Status> {
        while self.committing_way.is_none()
            && let Some((way, mut ticket)) = self.appended.pop_front()
        {
            if let Some(result) = ticket.known() {
                self.committed(way, result)?;
                continue;
            }
            match &mut self.committing {
                Some(future) => future.set(ticket.done()),
                empty => *empty = Some(ReusableBoxFuture::new(ticket.done())),
            }
            self.committing_way = Some(way);
        }
        Ok(())
    }

    /// The one that was waited for is committed, or is not.
    ///
    /// # Errors
    /// It is not: the stream ends.
    pub(super) fn awaited(&mut self, result: Result<Vec<Appended>, AppendError>) -> Result<(), Status> {
        if let Some(way) = self.committing_way.take() {
            self.committed(way, result)?;
        }
        self.watch_commits()
    }

    fn committed(&mut self, way: Way, result: Result<Vec<Appended>, AppendError>) -> Result<(), Status> {
        let appended = result.map_err(|error| {
            let partition = way.partition;
            match error {
                AppendError::NotStored(_) => Status::unavailable(format!(
                    "partition {partition}: {error}; nothing of that batch was stored there, nor of what came behind it on this \
                     stream: send again what was not acknowledged"
                )),
                _ => Status::unavailable(format!(
                    "partition {partition}: {error}; what was not acknowledged may be stored or not: send it again"
                )),
            }
        })?;
        let duplicates = appended.iter().filter(|one| one.duplicate).count() as u64;
        let last = appended.iter().map(|one| one.offset.0).max();
        self.stored(way, last, duplicates);
        let counters = &self.shared.counters;
        counters.acked_messages.add(way.messages);
        counters.acked_bytes.add(way.bytes);
        Ok(())
    }

    fn stored(&mut self, way: Way, last: Option<u64>, duplicates: u64) {
        if let Some(round) = self.rounds.get_mut(way.round) {
            round.open -= 1;
            round.duplicates += duplicates;
            round.offsets.extend(last.map(|offset| pb::PartitionOffset {
                partition: way.partition,
                offset,
            }));
        }
    }

    /// Sends the first part that waits on its careful way.
    fn forward_front(&mut self) {
        let Some(waiting) = self.waiting.pop_front() else {
            return;
        };
        let partition = waiting.part.partition;
        match self.lanes.get_mut(&partition) {
            Some(lane) => lane.push_back(waiting),
            None => {
                self.lanes.insert(partition, VecDeque::new());
                self.start_forward(waiting);
            }
        }
    }

    fn start_forward(&mut self, waiting: Waiting) {
        let way = Way {
            round: waiting.round,
            partition: waiting.part.partition,
            messages: waiting.part.messages.len() as u64,
            bytes: waiting.part.bytes,
        };
        let delivery = Delivery {
            shared: Arc::clone(&self.shared),
            topic: self.open.topic.clone(),
            producer: self.open.producer_id.clone(),
            arrived: waiting.arrived,
            deadline: Instant::now()
                + if self.away.contains(&way.partition) {
                    AWAY_TIMEOUT
                } else {
                    FORWARD_TIMEOUT
                },
            may_forward: !self.open.direct,
        };
        self.forwards
            .get_or_insert_default()
            .push(async move { (way, delivery.run(waiting.part).await) }.boxed());
    }

    pub(super) fn forwarded(&mut self, way: Way, result: Result<Stored, Undelivered>) -> Result<(), Status> {
        match result {
            Ok(stored) => {
                self.away.remove(&way.partition);
                self.stored(way, stored.offsets.iter().copied().max(), stored.duplicates);
            }
            Err(Undelivered {
                why: Why::Failed(text),
                ..
            }) => return Err(Status::unavailable(text)),
            Err(Undelivered {
                part,
                why: why @ Why::Never(_),
            }) => self.refuse(way.round, &part, why),
            Err(Undelivered { part, why }) => {
                self.away.insert(way.partition);
                self.refuse(way.round, &part, why);
                // Those behind it would overtake it.
                for waiting in self.lanes.remove(&way.partition).unwrap_or_default() {
                    self.refuse(waiting.round, &waiting.part, Why::Later(FENCED.to_owned()));
                }
            }
        }
        match self.lanes.get_mut(&way.partition).and_then(VecDeque::pop_front) {
            Some(next) => self.start_forward(next),
            None => {
                self.lanes.remove(&way.partition);
            }
        }
        Ok(())
    }

    /// Acknowledges what is settled.
    pub(super) fn settle(&mut self) {
        let Some(mut settled) = self
            .rounds
            .take_settled(self.forming.as_ref().map(Forming::lowest))
        else {
            return;
        };
        settled.ack.durability = self.durability.into();
        self.unsettled.0 -= settled.messages;
        self.unsettled.1 -= settled.bytes;
        self.outbox
            .push(|out| out.ack(settled.ack, settled.messages, settled.bytes));
        self.tick(Instant::now());
    }
}
