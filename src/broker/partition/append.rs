//! A batch on its way to the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use super::codec;
use super::entry::{Entry, EntryState, Phase};
use super::index::Piece;
use super::producers::Known;
use crate::broker::channel::Permit;
use crate::broker::log::{Frames, Kind, Meta, Op};
use crate::broker::store::{AppendError, Appended, NewMessage, Offset};

/// What an append is answered with.
pub(crate) type AppendReply = Result<Vec<Appended>, AppendError>;

/// Batches that come one behind the other, as on a stream: when one of them is not stored, none behind it is, or it
/// would overtake that one when it is sent again.
#[derive(Debug, Default)]
pub struct Line {
    broken: AtomicBool,
}

/// Appends the messages of one batch that are not stored yet.
pub(crate) struct Append {
    entry: Arc<Entry>,
    messages: Vec<NewMessage>,
    producer: String,
    size: usize,
    permit: Option<Permit>,
    line: Option<Arc<Line>>,
    reply: oneshot::Sender<AppendReply>,
    outcome: AppendReply,
    piece: Option<Piece>,
}

impl Append {
    /// The operation, and where its answer comes.
    pub(crate) fn new(
        entry: Arc<Entry>,
        messages: Vec<NewMessage>,
        producer: &str,
        permit: Option<Permit>,
        line: Option<Arc<Line>>,
    ) -> (Box<Self>, oneshot::Receiver<AppendReply>) {
        let (reply, answer) = oneshot::channel();
        let size = codec::batch_size(&messages, producer);
        let producer = producer.to_owned();
        let append = Self {
            entry,
            messages,
            producer,
            size,
            permit,
            line,
            reply,
            outcome: Ok(Vec::new()),
            piece: None,
        };
        (Box::new(append), answer)
    }

    fn break_line(&self) {
        // Only the journal's writer reads and writes it, between one group of operations and the next.
        if let Some(line) = &self.line {
            line.broken.store(true, Ordering::Relaxed);
        }
    }

    /// Finds out which messages are new and where each of them is or will be.
    fn place(&self, state: &mut EntryState, now: u64) -> AppendReply {
        let id = &self.entry.id;
        if self
            .line
            .as_ref()
            .is_some_and(|line| line.broken.load(Ordering::Relaxed))
        {
            return Err(AppendError::NotStored(
                "a batch before it on this stream was not stored".to_owned(),
            ));
        }
        if state.phase == Phase::Opening {
            return Err(AppendError::Unavailable(format!(
                "partition {} of {} could not be opened on the disk yet",
                id.partition, id.topic
            )));
        }
        if state.phase != Phase::Open {
            let (partition, epoch) = (id.partition, id.epoch);
            return Err(AppendError::Moved {
                partition,
                owner: String::new(),
                epoch,
            });
        }
        let mut next = state.next;
        let mut placed = Vec::with_capacity(self.messages.len());
        for message in &self.messages {
            let known = if self.producer.is_empty() {
                Known::New
            } else {
                state
                    .producers
                    .get(&self.producer)
                    .map_or(Known::New, |window| window.look(message.sequence))
            };
            match known {
                Known::Stored(offset) => placed.push(Appended {
                    offset: Offset(offset),
                    duplicate: true,
                }),
                Known::New => {
                    let offset = Offset::new(id.epoch, next);
                    next += 1;
                    if !self.producer.is_empty() {
                        state
                            .producers
                            .store(&self.producer, message.sequence, offset.0, now);
                    }
                    placed.push(Appended {
                        offset,
                        duplicate: false,
                    });
                }
                Known::TooOld(oldest) => {
                    state.producers.take_back(&self.producer, next - state.next);
                    return Err(AppendError::Refused(format!(
                        "sequence {} of producer {:?} is older than what is remembered ({oldest} is forgotten, \
                         the last {} are kept): whether it was stored is not known",
                        message.sequence,
                        self.producer,
                        super::producers::WINDOW,
                    )));
                }
            }
        }
        Ok(placed)
    }
}

impl Op for Append {
    fn size(&self) -> usize {
        self.size
    }

    fn prepare(&mut self, frames: &mut Frames) {
        let now = frames.timestamp();
        let mut state = self.entry.state();
        self.outcome = self.place(&mut state, now);
        let Ok(placed) = &self.outcome else {
            return self.break_line();
        };
        let new = placed.iter().filter(|appended| !appended.duplicate).count() as u32;
        if new > 0 {
            let meta = Meta {
                kind: Kind::Batch,
                entry: self.entry.number,
                base: state.next,
                count: new,
                timestamp: now,
            };
            state.next += u64::from(new);
            drop(state);
            let stored = self
                .messages
                .iter()
                .zip(placed)
                .filter(|(_, a)| !a.duplicate)
                .map(|(m, _)| m);
            let at = frames.push(meta, |out| codec::put_batch(out, &self.producer, stored));
            self.piece = Some(Piece {
                base: meta.base,
                count: new,
                at,
                timestamp: now,
            });
        } else {
            drop(state);
        }
        self.messages = Vec::new();
    }

    fn commit(self: Box<Self>) {
        if let Some(piece) = self.piece {
            let mut state = self.entry.state();
            state.index.push(piece);
            state.committed = piece.end();
            drop(state);
            self.entry.notify(false);
        }
        // The room is there before anybody hears that it is.
        drop(self.permit);
        _ = self.reply.send(self.outcome);
    }

    fn abort(self: Box<Self>, _prepared: bool, why: &str) {
        self.break_line();
        if let Some(piece) = self.piece {
            let mut state = self.entry.state();
            state.next = piece.base;
            state.producers.take_back(&self.producer, u64::from(piece.count));
        }
        let answer = match self.outcome {
            Err(refused) => Err(refused),
            // The writer takes back what it wrote before it aborts.
            Ok(_) => Err(AppendError::NotStored(why.to_owned())),
        };
        _ = self.reply.send(answer);
    }
}
