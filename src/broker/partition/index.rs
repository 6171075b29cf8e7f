//! Where an entry's batches lie.
//!
//! In segments that are still written, every piece is known: 40 bytes for up to 32 KiB of records that lie together,
//! at worst 40 bytes a batch. When a segment is finished, its pieces go into its footer, and each entry keeps one
//! [`Run`] for it. So the memory does not grow with the number of batches but with segments × entries in each, 56
//! bytes a pair: 1 TB in 64 MiB segments of 100 busy partitions is 16,384 × 100 × 56 B = 92 MB (every piece would be
//! 1.3 GB at best, 40 GB with batches of 1 KB); 10,000 partitions that all write into each of 100 GB of segments,
//! 1,600 × 10,000 × 56 B = 0.9 GB, which larger segments divide (`--segment-bytes`, at most 1 GiB: 56 MB).

use std::collections::VecDeque;

pub(crate) use crate::broker::log::{Piece, Run};

/// Records of one entry that lie together are read together, up to this size.
const TOGETHER: u32 = 32 << 10;

/// A part of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// One in a segment without an index, or whose index is not written yet.
    Piece(Piece),
    /// One in a finished segment.
    Run(Run),
}

impl Part {
    /// The first position.
    pub(crate) fn base(&self) -> u64 {
        match self {
            Self::Piece(piece) => piece.base,
            Self::Run(run) => run.base,
        }
    }

    /// The first position behind it.
    pub(crate) fn end(&self) -> u64 {
        match self {
            Self::Piece(piece) => piece.end(),
            Self::Run(run) => run.end(),
        }
    }

    /// The segment it is in.
    pub(crate) fn segment(&self) -> u32 {
        match self {
            Self::Piece(piece) => piece.at.segment,
            Self::Run(run) => run.at.segment,
        }
    }

    /// Bytes of its records.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(match self {
            Self::Piece(piece) => piece.at.len,
            Self::Run(run) => run.bytes,
        })
    }

    /// When its first record was appended, in milliseconds since 1970.
    pub(crate) fn first(&self) -> u64 {
        match self {
            Self::Piece(piece) => piece.timestamp,
            Self::Run(run) => run.first,
        }
    }

    /// When its last record was appended.
    pub(crate) fn last(&self) -> u64 {
        match self {
            Self::Piece(piece) => piece.timestamp,
            Self::Run(run) => run.last,
        }
    }
}

/// A run's positions from `from` up to `to`. Which records these are is in the footer; their share of the bytes is close
/// enough.
fn part_of(run: &Run, from: u64, to: u64) -> Run {
    let count = (to - from) as u32;
    let bytes = (u64::from(run.bytes) * u64::from(count) / u64::from(run.count)) as u32;
    Run {
        base: from,
        count,
        bytes,
        ..*run
    }
}

/// The parts of one entry, ascending.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    parts: VecDeque<Part>,
    bytes: u64,
}

impl Index {
    /// Adds a record.
    pub(crate) fn push(&mut self, piece: Piece) {
        if let Some(Part::Piece(last)) = self.parts.back_mut()
            && last.end() == piece.base
            && last.timestamp == piece.timestamp
            && last.at.segment == piece.at.segment
            && last.at.offset + last.at.len == piece.at.offset
            && last.at.len + piece.at.len <= TOGETHER
        {
            last.count += piece.count;
            last.at.len += piece.at.len;
            self.bytes += u64::from(piece.at.len);
        } else {
            self.insert(Part::Piece(piece));
        }
    }

    /// Adds a part where it belongs, but for what is there already: that is a copy then. Records are there or not; a run
    /// may be a copy in part, since what was moved into a segment may be followed there by what came behind it.
    pub(crate) fn insert(&mut self, part: Part) {
        if self.parts.back().is_none_or(|last| last.end() <= part.base()) {
            return self.put(part);
        }
        let gaps = self.gaps(part.base(), part.end());
        match part {
            Part::Run(run) => {
                for (from, to) in gaps {
                    self.put(Part::Run(part_of(&run, from, to)));
                }
            }
            Part::Piece(_) if gaps == [(part.base(), part.end())] => self.put(part),
            Part::Piece(_) => {}
        }
    }

    /// What of these positions no part holds.
    fn gaps(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut next = from;
        let held = self.parts.range(self.first_after(from)..);
        for part in held.take_while(|part| part.base() < to) {
            if part.base() > next {
                gaps.push((next, part.base()));
            }
            next = part.end();
        }
        if next < to {
            gaps.push((next, to));
        }
        gaps
    }

    fn put(&mut self, part: Part) {
        let index = self.first_after(part.base());
        self.bytes += part.bytes();
        self.parts.insert(index, part);
    }

    fn first_after(&self, position: u64) -> usize {
        if self.parts.back().is_none_or(|last| last.end() <= position) {
            return self.parts.len();
        }
        self.parts.partition_point(|part| part.end() <= position)
    }

    /// The part that holds a position, or the first one after it.
    pub(crate) fn at_or_after(&self, position: u64) -> Option<Part> {
        self.parts.get(self.first_after(position)).copied()
    }

    /// The first part.
    pub(crate) fn first(&self) -> Option<Part> {
        self.parts.front().copied()
    }

    /// The last part.
    pub(crate) fn last(&self) -> Option<Part> {
        self.parts.back().copied()
    }

    /// The first part that has a record with this time or a later one.
    pub(crate) fn since(&self, timestamp: u64) -> Option<Part> {
        let index = self.parts.partition_point(|part| part.last() < timestamp);
        self.parts.get(index).copied()
    }

    /// Forgets what lies below a position, as far as it is wholly below.
    pub(crate) fn trim(&mut self, start: u64) {
        while let Some(first) = self.parts.front_mut()
            && first.base() < start
        {
            if let Part::Run(run) = first
                && run.end() > start
            {
                let left = part_of(run, start, run.end());
                self.bytes -= u64::from(run.bytes - left.bytes);
                *run = left;
                break;
            }
            if first.end() > start {
                break;
            }
            self.bytes -= first.bytes();
            self.parts.pop_front();
        }
        if self.parts.capacity() > 64 && self.parts.capacity() > 4 * self.parts.len() {
            self.parts.shrink_to_fit();
        }
    }

    /// Consecutive pieces in a segment, each group with the place of its first part; and the runs in it, where it was finished
    /// before and went on for want of room. All parts are looked at: what was moved here may be the oldest.
    pub(crate) fn in_segment(&self, segment: u32) -> (Vec<Vec<Piece>>, Vec<Run>) {
        let mut groups: Vec<Vec<Piece>> = Vec::new();
        let mut runs = Vec::new();
        for part in self.parts.iter().rev() {
            match part {
                Part::Run(run) if run.at.segment == segment => runs.push(*run),
                Part::Run(_) => {}
                Part::Piece(piece) if piece.at.segment != segment => {}
                Part::Piece(piece) => match groups.last_mut() {
                    Some(group) if group.last().is_some_and(|next| next.base == piece.end()) => {
                        group.push(*piece);
                    }
                    _ => groups.push(vec![*piece]),
                },
            }
        }
        for group in &mut groups {
            group.reverse();
        }
        (groups, runs)
    }

    /// The pieces of a run are in its segment's footer now.
    pub(crate) fn collapse(&mut self, run: Run) {
        let from = self.first_after(run.base);
        let to = self.parts.partition_point(|part| part.base() < run.end());
        if from >= to {
            return;
        }
        self.parts.drain(from..to);
        self.parts.insert(from, Part::Run(run));
    }

    /// Consecutive pieces were moved out of a segment: what holds their positions there is replaced by them.
    pub(crate) fn replace(&mut self, segment: u32, pieces: &[Piece], start: u64) {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
            return;
        };
        let (from, to) = (first.base.max(start), last.end());
        let index = self.first_after(from);
        while let Some(part) = self.parts.get_mut(index).filter(|part| part.base() < to) {
            if part.segment() != segment {
                // It is not as it was when they were read: what is there stays.
                break;
            }
            match part {
                Part::Run(run) if run.end() > to => {
                    let left = part_of(run, to, run.end());
                    self.bytes -= u64::from(run.bytes - left.bytes);
                    *run = left;
                }
                Part::Piece(piece) if piece.end() > to => break,
                part => {
                    self.bytes -= part.bytes();
                    self.parts.remove(index);
                }
            }
        }
        for piece in pieces.iter().filter(|piece| piece.end() > start) {
            self.insert(Part::Piece(*piece));
        }
    }

    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All parts.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Part> {
        self.parts.iter()
    }
}
