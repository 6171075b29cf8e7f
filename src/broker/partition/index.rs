//! Where an entry's batches lie.

use std::collections::VecDeque;

use crate::broker::log::FrameAt;

/// Records of one entry that lie together are read together, up to this size.
const TOGETHER: u32 = 32 << 10;

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

/// The pieces of one entry, ascending. 40 bytes a piece; a group commit's records of one entry that lie together
/// are one piece, so that small batches do not cost a piece each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    pieces: VecDeque<Piece>,
    bytes: u64,
}

impl Index {
    /// Adds a record.
    pub(crate) fn push(&mut self, piece: Piece) {
        self.bytes += u64::from(piece.at.len);
        if let Some(last) = self.pieces.back_mut()
            && last.end() == piece.base
            && last.timestamp == piece.timestamp
            && last.at.segment == piece.at.segment
            && last.at.offset + last.at.len == piece.at.offset
            && last.at.len + piece.at.len <= TOGETHER
        {
            last.count += piece.count;
            last.at.len += piece.at.len;
        } else {
            self.pieces.push_back(piece);
        }
    }

    /// The piece that holds a position, or the first one after it.
    pub(crate) fn at_or_after(&self, position: u64) -> Option<Piece> {
        let index = self.pieces.partition_point(|piece| piece.end() <= position);
        self.pieces.get(index).copied()
    }

    /// The first piece.
    pub(crate) fn first(&self) -> Option<Piece> {
        self.pieces.front().copied()
    }

    /// The first piece with this time or a later one.
    pub(crate) fn since(&self, timestamp: u64) -> Option<Piece> {
        let index = self.pieces.partition_point(|piece| piece.timestamp < timestamp);
        self.pieces.get(index).copied()
    }

    /// Forgets the pieces that lie wholly below a position.
    pub(crate) fn trim(&mut self, start: u64) {
        while let Some(first) = self.pieces.front()
            && first.end() <= start
        {
            self.bytes -= u64::from(first.at.len);
            self.pieces.pop_front();
        }
        if self.pieces.capacity() > 64 && self.pieces.capacity() > 4 * self.pieces.len() {
            self.pieces.shrink_to_fit();
        }
    }

    /// Bytes of all pieces.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All pieces.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Piece> {
        self.pieces.iter()
    }
}
