//! Taking answers, and giving messages up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::hub::Hub;
use super::seats::Part;
use super::state::GivenUp;
use super::token::Token;
use super::{Answer, Refused};
use crate::broker::clock;
use crate::broker::partition::ops::{ChangeAnswer, ChangeError};
use crate::broker::partition::progress::Progress;
use crate::broker::store::Dead;

/// Why a message is a dead letter.
pub(super) const MOST: &str = "delivered as often as the topic allows";
const GIVEN_UP: &str = "given up by a consumer";
/// A longer delay or deadline counts as this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Progress on its way to the disk.
pub(crate) struct Telling {
    pub(super) partition: u32,
    pub(super) epoch: u64,
    pub(super) delta: Progress,
    pub(super) answer: ChangeAnswer,
}

/// What became of an answer so far.
pub(crate) enum Settling {
    Refused(Refused),
    /// It holds when the progress of this partition is durable.
    With(u32),
    /// It holds when the message is buried.
    Burying(oneshot::Receiver<()>),
}

impl Hub {
    /// Takes answers. What is to be waited for comes back.
    pub(crate) fn settle(self: &Arc<Self>, answers: Vec<(Bytes, Answer)>) -> (Vec<Settling>, Vec<Telling>) {
        let Some(store) = self.store.upgrade() else {
            let refused = answers
                .iter()
                .map(|_| Settling::Refused(Refused::Stale))
                .collect();
            return (refused, Vec::new());
        };
        let most = self.most();
        let now = clock::now();
        let mut acked: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut dead = Vec::new();
        let mut locked = self.inner.lock();
        let inner = &mut *locked;
        let settling = answers
            .into_iter()
            .map(|(token, answer)| {
                let Some(token) = Token::read(&token) else {
                    return Settling::Refused(Refused::Malformed);
                };
                let part = inner
                    .parts
                    .get_mut(&token.partition)
                    .filter(|part| token.nonce == self.nonce && part.entry.id.epoch as u32 == token.epoch);
                let found = part.and_then(|part| {
                    part.state
                        .find(token.offset, token.delivery)
                        .map(|outstanding| (part, outstanding))
                });
                let Some((part, outstanding)) = found else {
                    return Settling::Refused(Refused::Stale);
                };
                let offset = token.offset;
                if !matches!(answer, Answer::Extend(_))
                    && let Some(seat) = inner.seats.get_mut(&outstanding.member)
                {
                    seat.held = seat.held.saturating_sub(1);
                }
                match answer {
                    Answer::Ack => {
                        part.state.take(offset);
                        acked.entry(token.partition).or_default().push(offset);
                    }
                    Answer::Nack(delay) => {
                        let not_before = (!delay.is_zero()).then(|| now + delay.min(LONGEST));
                        if let Some(given_up) = part.state.fail(offset, most, not_before) {
                            dead.push(self.dead(part, &given_up, MOST, None));
                        }
                    }
                    Answer::GiveBack(delay) => {
                        let not_before = (!delay.is_zero()).then(|| now + delay.min(LONGEST));
                        part.state.give_back(offset, not_before);
                    }
                    Answer::Extend(deadline) => part.state.extend(offset, now + deadline.min(LONGEST)),
                    Answer::GiveUp => {
                        let (done, buried) = oneshot::channel();
                        if let Some(given_up) = part.state.give_up(offset) {
                            dead.push(self.dead(part, &given_up, GIVEN_UP, Some(done)));
                        }
                        return Settling::Burying(buried);
                    }
                }
                Settling::With(token.partition)
            })
            .collect();
        for (index, mut offsets) in acked {
            if let Some(part) = inner.parts.get_mut(&index) {
                let spans = part.partition.spans(&store.registry);
                offsets.sort_unstable();
                for run in offsets.chunk_by(|a, b| a + 1 == *b) {
                    part.state.finish_range(run[0]..run[run.len() - 1] + 1, &spans);
                }
            }
        }
        let mut waits = false;
        let parts = inner.parts.values_mut();
        let telling = parts
            .filter_map(|part| part.tell_and_assist(&mut waits))
            .collect();
        inner.wake_one();
        drop(locked);
        self.bury(dead);
        if waits {
            store.journal.assist();
        }
        (settling, telling)
    }

    /// Waits for progress to be durable. `Err` says why it is not.
    pub(crate) async fn told(&self, telling: Telling) -> Result<(), Refused> {
        let why = match telling.answer.await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(ChangeError::Sealed)) => return Err(Refused::Stale),
            Ok(Err(ChangeError::Log(why))) => why,
            Err(_) => "the broker stopped".to_owned(),
        };
        let mut inner = self.inner.lock();
        if let Some(part) = inner.part(telling.partition, telling.epoch) {
            part.state.untell(telling.delta);
            part.told_floor = 0;
        }
        Err(Refused::Log(why))
    }

    /// A message is buried: it is done. Returns whether that was noted: the partition may have moved.
    pub(crate) async fn finish_dead(&self, dead: &Dead) -> Result<bool, Refused> {
        let telling = {
            let Some(store) = self.store.upgrade() else {
                return Ok(false);
            };
            let mut inner = self.inner.lock();
            let Some(part) = inner.part(dead.partition.index(), dead.epoch) else {
                return Ok(false);
            };
            let spans = part.partition.spans(&store.registry);
            part.state.finish_range(dead.offset..dead.offset + 1, &spans);
            part.tell()
        };
        match telling {
            Some(telling) => self.told(telling).await.map(|()| true),
            None => Ok(true),
        }
    }

    /// Whether the message is still to be buried here.
    pub(crate) fn is_dying(&self, dead: &Dead) -> bool {
        let mut inner = self.inner.lock();
        inner
            .part(dead.partition.index(), dead.epoch)
            .is_some_and(|part| part.state.is_dying(dead.offset))
    }

    pub(super) fn dead(
        self: &Arc<Self>,
        part: &Part,
        given_up: &GivenUp,
        reason: &'static str,
        done: Option<oneshot::Sender<()>>,
    ) -> Dead {
        Dead {
            hub: Arc::clone(self),
            partition: Arc::clone(&part.partition),
            epoch: part.entry.id.epoch,
            offset: given_up.offset,
            count: given_up.count,
            reason,
            done,
        }
    }

    pub(super) fn bury(&self, dead: Vec<Dead>) {
        if let Some(store) = self.store.upgrade().filter(|_| !dead.is_empty()) {
            store.bury(dead);
        }
    }
}

impl Telling {
    /// The partition whose progress it is.
    pub(crate) fn partition(&self) -> u32 {
        self.partition
    }
}
