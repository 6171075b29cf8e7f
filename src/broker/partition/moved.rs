//! Batches that are moved to the journal's end, so that the segment in which they are can go.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::entry::{Entry, Phase};
use super::index::Piece;
use crate::broker::log::frame::HEADER;
use crate::broker::log::{Frames, Header, Kind, Meta, Op};

/// Moves whole consecutive pieces of an entry out of a segment.
///
/// The copies are records of their own kind: they say where batches are and nothing else. After a crash, originals
/// and copies may both be there; what is found first is used, and the other is dead weight until its segment goes.
pub(crate) struct MoveOp {
    entry: Arc<Entry>,
    from: u32,
    records: Vec<(Header, Bytes)>,
    pieces: Vec<Piece>,
    reply: oneshot::Sender<Result<(), String>>,
}

impl MoveOp {
    /// The operation, and where its answer comes. `records`: all records of the pieces, as they were read.
    pub(crate) fn new(
        entry: &Arc<Entry>,
        from: u32,
        records: Vec<(Header, Bytes)>,
    ) -> (Box<Self>, oneshot::Receiver<Result<(), String>>) {
        let (reply, answer) = oneshot::channel();
        let op = Self {
            entry: Arc::clone(entry),
            from,
            records,
            pieces: Vec::new(),
            reply,
        };
        (Box::new(op), answer)
    }
}

impl Op for MoveOp {
    fn size(&self) -> usize {
        let records = self.records.iter();
        records.map(|(_, payload)| payload.len() + HEADER + 8).sum()
    }

    fn prepare(&mut self, frames: &mut Frames) {
        if self.entry.state().phase == Phase::Dropped {
            return;
        }
        for (header, payload) in &self.records {
            let meta = Meta {
                kind: Kind::Moved,
                entry: self.entry.number,
                ..header.meta
            };
            let at = frames.push(meta, |out| out.extend_from_slice(payload));
            self.pieces.push(Piece {
                base: meta.base,
                count: meta.count,
                at,
                timestamp: meta.timestamp,
            });
        }
    }

    fn commit(self: Box<Self>) {
        let mut state = self.entry.state();
        let start = state.start;
        state.index.replace(self.from, &self.pieces, start);
        drop(state);
        _ = self.reply.send(Ok(()));
    }

    fn abort(self: Box<Self>, _prepared: bool, why: &str) {
        _ = self.reply.send(Err(why.to_owned()));
    }
}
