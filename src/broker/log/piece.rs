//! Where records lie: pieces, and the runs of pieces that a finished segment's index holds.

use bytes::Bytes;

use super::frame::FrameAt;
use super::number::{Reader, put_u64, unzigzag, zigzag};

/// Some consecutive records of an entry that lie one behind the other in a segment and have one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The first position.
    pub(crate) base: u64,
    /// Positions.
    pub(crate) count: u32,
    /// Where.
    pub(crate) at: FrameAt,
    /// When they were appended, in milliseconds since 1970.
    pub(crate) timestamp: u64,
}

impl Piece {
    /// The first position behind it.
    pub(crate) fn end(&self) -> u64 {
        self.base + u64::from(self.count)
    }
}

/// Consecutive pieces of an entry in one finished segment. The pieces themselves are in a record of that segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first position.
    pub(crate) base: u64,
    /// Positions.
    pub(crate) count: u32,
    /// Bytes of its records. Where its first positions were trimmed, what the rest should have.
    pub(crate) bytes: u32,
    /// When the first and the last were appended, in milliseconds since 1970.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The record with the pieces.
    pub(crate) at: FrameAt,
}

impl Run {
    /// Of these pieces, which are consecutive; their record lies there.
    pub(crate) fn of(pieces: &[Piece], at: FrameAt) -> Option<Self> {
        let (first, last) = (pieces.first()?, pieces.last()?);
        Some(Self {
            base: first.base,
            count: (last.end() - first.base) as u32,
            bytes: pieces.iter().map(|piece| piece.at.len).sum(),
            first: first.timestamp,
            last: last.timestamp,
            at,
        })
    }

    /// The first position behind it.
    pub(crate) fn end(&self) -> u64 {
        self.base + u64::from(self.count)
    }
}

/// Appends pieces of one segment.
pub(crate) fn put_pieces(out: &mut Vec<u8>, pieces: &[Piece]) {
    let (mut position, mut place, mut time) = (0, 0, 0);
    for piece in pieces {
        put_u64(out, piece.base.wrapping_sub(position));
        put_u64(out, u64::from(piece.count));
        put_u64(out, u64::from(piece.at.offset.wrapping_sub(place)));
        put_u64(out, u64::from(piece.at.len));
        put_u64(out, zigzag(piece.timestamp.wrapping_sub(time)));
        position = piece.end();
        place = piece.at.offset + piece.at.len;
        time = piece.timestamp;
    }
}

/// Reads what [`put_pieces`] wrote.
pub(crate) fn read_pieces(segment: u32, payload: Bytes) -> Option<Vec<Piece>> {
    let mut reader = Reader::new(payload);
    let (mut position, mut place, mut time) = (0u64, 0u32, 0u64);
    let mut pieces = Vec::new();
    while !reader.is_empty() {
        let base = position.wrapping_add(reader.u64()?);
        let count = reader.u32()?;
        let offset = place.wrapping_add(reader.u32()?);
        let len = reader.u32()?;
        time = time.wrapping_add(unzigzag(reader.u64()?));
        position = base.checked_add(u64::from(count))?;
        place = offset.checked_add(len)?;
        pieces.push(Piece {
            base,
            count,
            at: FrameAt { segment, offset, len },
            timestamp: time,
        });
    }
    Some(pieces)
}

/// Appends a run of an entry.
pub(crate) fn put_run(out: &mut Vec<u8>, entry: u32, run: &Run) {
    for number in [
        u64::from(entry),
        run.base,
        u64::from(run.count),
        u64::from(run.bytes),
        run.first,
        zigzag(run.last.wrapping_sub(run.first)),
        u64::from(run.at.offset),
        u64::from(run.at.len),
    ] {
        put_u64(out, number);
    }
}

/// Reads what [`put_run`] wrote, as many as there are.
pub(crate) fn read_runs(segment: u32, payload: Bytes) -> Option<Vec<(u32, Run)>> {
    let mut reader = Reader::new(payload);
    let mut runs = Vec::new();
    while !reader.is_empty() {
        let entry = reader.u32()?;
        let (base, count, bytes) = (reader.u64()?, reader.u32()?, reader.u32()?);
        base.checked_add(u64::from(count))?;
        let first = reader.u64()?;
        let last = first.wrapping_add(unzigzag(reader.u64()?));
        let (offset, len) = (reader.u32()?, reader.u32()?);
        let at = FrameAt { segment, offset, len };
        runs.push((
            entry,
            Run {
                base,
                count,
                bytes,
                first,
                last,
                at,
            },
        ));
    }
    Some(runs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_and_runs_read_back(sizes in prop::collection::vec((0u64..5, 1u32..9, 8u32..999, any::<u32>()), 1..40)) {
            let (mut position, mut offset) = (1 << 33, 0);
            let pieces: Vec<_> = sizes
                .into_iter()
                .map(|(gap, count, len, time)| {
                    let at = FrameAt { segment: 7, offset, len };
                    let piece = Piece { base: position + gap, count, at, timestamp: u64::from(time) };
                    position = piece.end();
                    offset += len + 8;
                    piece
                })
                .collect();
            let mut out = Vec::new();
            put_pieces(&mut out, &pieces);
            prop_assert_eq!(read_pieces(7, out.into()), Some(pieces.clone()));
            let run = Run::of(&pieces, FrameAt { segment: 7, offset, len: 99 }).unwrap();
            let mut out = Vec::new();
            put_run(&mut out, 3, &run);
            put_run(&mut out, 4, &run);
            prop_assert_eq!(read_runs(7, out.into()), Some(vec![(3, run), (4, run)]));
        }

        #[test]
        fn rubbish_is_refused_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = read_pieces(1, bytes.clone());
            let _ = read_runs(1, bytes);
        }
    }
}
