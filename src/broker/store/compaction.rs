//! Looking after finished segments: those that are mostly dead are emptied and go, and all are read now and then.
//!
//! A segment goes when nothing in it is wanted any more. One old batch that stays would keep all of it, so what is
//! left of a mostly dead segment is moved to the journal's end. At most [`MOVED`] bytes are moved and [`READ`] are
//! checked a round (five seconds), one piece after the other, so that this never competes with what clients wait for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Store;
use crate::broker::partition::entry::Entry;
use crate::broker::partition::index::{Part, Piece};
use crate::broker::partition::moved::MoveOp;
use crate::broker::partition::read;

/// A segment of which at most one in so many bytes is live is emptied.
const DEAD: u64 = 4;
/// Bytes that are moved a round at most, but for one segment.
const MOVED: u64 = 16 << 20;
/// Bytes of one group of moved records.
const CHUNK: usize = 512 << 10;
/// Bytes that are read a round to find damage before somebody asks for them: a terabyte in two weeks.
const READ: u64 = 4 << 20;

/// Where the check goes on: in this segment, before this entry's number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Checked(u32, u32, u64);

impl Store {
    /// Empties segments that are mostly dead; how many it were. Reads the disk, and waits for the journal.
    pub(crate) async fn compact(&self) -> u32 {
        let finished = self.journal.finished_segments();
        let mut live: BTreeMap<u32, u64> = BTreeMap::new();
        for entry in self.registry.all() {
            for part in entry.state().index.iter() {
                *live.entry(part.segment()).or_default() += part.bytes();
            }
        }
        let damaged = self.registry.damaged_segments.lock().clone();
        let mut dead: Vec<_> = finished
            .into_iter()
            .filter(|number| !damaged.contains(number))
            .filter_map(|number| {
                let bytes = *live.get(&number)?;
                (bytes * DEAD <= self.journal.segment_size(number)).then_some((bytes, number))
            })
            .collect();
        dead.sort_unstable();
        let (mut moved, mut emptied) = (0, 0);
        for (bytes, number) in dead {
            if moved > 0 && moved + bytes > MOVED {
                break;
            }
            moved += bytes;
            if let Err(why) = self.empty(number).await {
                tracing::warn!(number, why, "a mostly dead segment is kept");
                break;
            }
            tracing::debug!(number, bytes, "moved what was left in a segment");
            emptied += 1;
        }
        emptied
    }

    /// Moves everything that is left in a segment.
    async fn empty(&self, number: u32) -> Result<(), String> {
        for entry in self.registry.all() {
            let mut records = Vec::new();
            let mut bytes = 0;
            let mut next = None;
            for piece in self.pieces_in(&entry, number)? {
                let read = self.read_piece(&entry, &piece)?;
                // One group replaces consecutive pieces.
                if bytes > CHUNK || next.is_some_and(|next| next != piece.base) {
                    self.submit_move(&entry, number, std::mem::take(&mut records))
                        .await?;
                    bytes = 0;
                }
                bytes += piece.at.len as usize;
                next = Some(piece.end());
                records.extend(read);
            }
            self.submit_move(&entry, number, records).await?;
        }
        Ok(())
    }

    async fn submit_move(
        &self,
        entry: &Arc<Entry>,
        number: u32,
        records: Vec<(crate::broker::log::Header, bytes::Bytes)>,
    ) -> Result<(), String> {
        if records.is_empty() {
            return Ok(());
        }
        let (op, answer) = MoveOp::new(entry, number, records);
        self.journal.submit(op);
        answer.await.map_err(|_| "the broker stopped".to_owned())?
    }

    /// The pieces of an entry that are left in a segment.
    fn pieces_in(&self, entry: &Entry, number: u32) -> Result<Vec<Piece>, String> {
        let parts: Vec<Part> = {
            let state = entry.state();
            let parts = state.index.iter().filter(|part| part.segment() == number);
            parts.copied().collect()
        };
        let mut pieces = Vec::new();
        for part in parts {
            match part {
                Part::Piece(piece) => pieces.push(piece),
                Part::Run(run) => {
                    let all = self.journal.pieces(entry.number, &run);
                    let all = all.map_err(|error| format!("its index cannot be read: {error}"))?;
                    let left = |piece: &&Piece| piece.end() > run.base && piece.base < run.end();
                    pieces.extend(all.iter().filter(left));
                }
            }
        }
        Ok(pieces)
    }

    /// The records of a piece. Damage is kept in mind, for the entry and for its segment.
    fn read_piece(
        &self,
        entry: &Entry,
        piece: &Piece,
    ) -> Result<Vec<(crate::broker::log::Header, bytes::Bytes)>, String> {
        let bytes = self.journal.read(piece.at);
        let bytes = bytes.map_err(|error| format!("it cannot be read: {error}"))?;
        let records = read::records(entry, &bytes, piece);
        let count = records.len();
        let good: Vec<_> = records.into_iter().filter_map(|record| record.good).collect();
        if good.len() < count {
            self.registry.damaged_segments.lock().insert(piece.at.segment);
            return Err("a part of it is damaged".to_owned());
        }
        Ok(good)
    }

    /// Reads some of what finished segments hold, so that damage is found and reported before somebody asks for it.
    /// Goes round and round.
    pub(crate) fn scrub(&self) {
        let from = *self.checked.lock();
        let mut left = READ;
        let mut next = Checked::default();
        let entries = self.registry.all();
        'segments: for number in self.journal.finished_segments() {
            if number < from.0 {
                continue;
            }
            for entry in &entries {
                let place = Checked(number, entry.number, 0);
                if place < Checked(from.0, from.1, 0) {
                    continue;
                }
                for piece in self.pieces_in(entry, number).unwrap_or_default() {
                    let place = Checked(number, entry.number, piece.base);
                    if place < from {
                        continue;
                    }
                    if left == 0 {
                        next = place;
                        break 'segments;
                    }
                    left = left.saturating_sub(u64::from(piece.at.len));
                    // It may have been trimmed meanwhile; damage is reported by what reads.
                    if let Err(why) = self.read_piece(entry, &piece) {
                        tracing::debug!(number, why, "a piece was not checked, or is damaged");
                    }
                }
            }
        }
        *self.checked.lock() = next;
    }
}
