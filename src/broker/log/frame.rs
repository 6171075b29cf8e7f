//! How a record lies on the disk.
//!
//! A header of 56 bytes, the payload, zeros up to a multiple of 8. The header has a checksum of its own, so that a
//! damaged payload still says which positions of which entry it held. Every header also says how far its segment
//! was synced when the record was written: that is how recovery tells damage (before that mark) from a torn write.

use bytes::{BufMut, Bytes};

/// Bytes of a header.
pub(crate) const HEADER: usize = 56;

const MAGIC: u32 = 0x3152_4c53;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// The state of everything, at the head of each segment. `base` and `count`: the end and number of the segment
    /// before.
    Checkpoint = 1,
    /// Messages of an entry.
    Batch = 2,
    /// An entry begins here and takes appends.
    EntryOpened = 3,
    /// Nothing more is appended to an entry.
    EntrySealed = 4,
    /// An entry is gone.
    EntryDropped = 5,
    /// What changed in a group's progress.
    Progress = 6,
    /// What came from the entry before: groups' progress and producers' sequences.
    Handoff = 7,
    /// Positions below `base` are gone by retention.
    Trim = 8,
    /// The highest term of the operator's leader (`base`).
    Term = 9,
    /// Nothing but the mark of how far the segment was synced.
    Mark = 10,
    /// A copy of a sealed entry of another broker begins (`base`: its first position).
    EntryCopying = 11,
    /// Where the records of an entry are in the segment that ends here.
    Pieces = 12,
    /// Where the [`Kind::Pieces`] of that segment are.
    Runs = 13,
    /// The last record of a finished segment: where its [`Kind::Runs`] are (`base`).
    Footer = 14,
    /// Messages of an entry that were moved here from an older segment.
    Moved = 15,
    /// A group is forgotten.
    Forgotten = 16,
}

impl Kind {
    fn from_u32(kind: u32) -> Option<Self> {
        Some(match kind {
            1 => Self::Checkpoint,
            2 => Self::Batch,
            3 => Self::EntryOpened,
            4 => Self::EntrySealed,
            5 => Self::EntryDropped,
            6 => Self::Progress,
            7 => Self::Handoff,
            8 => Self::Trim,
            9 => Self::Term,
            10 => Self::Mark,
            11 => Self::EntryCopying,
            12 => Self::Pieces,
            13 => Self::Runs,
            14 => Self::Footer,
            15 => Self::Moved,
            16 => Self::Forgotten,
            _ => return None,
        })
    }

    /// Whether it holds messages.
    pub(crate) fn is_batch(self) -> bool {
        matches!(self, Self::Batch | Self::Moved)
    }
}

/// What the submitter of a record says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// What it is.
    pub(crate) kind: Kind,
    /// The entry's number on this disk; 0: none.
    pub(crate) entry: u32,
    /// The first position.
    pub(crate) base: u64,
    /// Positions.
    pub(crate) count: u32,
    /// Milliseconds since 1970.
    pub(crate) timestamp: u64,
}

/// A header as read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// What the submitter said.
    pub(crate) meta: Meta,
    /// Bytes of payload.
    pub(crate) len: u32,
    /// The segment it was written to.
    pub(crate) segment: u32,
    /// Everything before this offset of the segment had been synced when this was written.
    pub(crate) durable: u32,
    payload_crc: u32,
}

impl Header {
    /// Bytes of the whole record.
    pub(crate) fn frame_len(&self) -> usize {
        padded(HEADER + self.len as usize)
    }

    /// Reads a header; `None` where there is none or it is damaged.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | (u64::from(u32_at(at + 4)) << 32);
        if u32_at(0) != MAGIC || crc32c::crc32c(&bytes[..48]) != u32_at(48) {
            return None;
        }
        Some(Self {
            meta: Meta {
                kind: Kind::from_u32(u32_at(8))?,
                entry: u32_at(20),
                base: u64_at(24),
                count: u32_at(40),
                timestamp: u64_at(32),
            },
            len: u32_at(4),
            segment: u32_at(12),
            durable: u32_at(16),
            payload_crc: u32_at(44),
        })
    }

    /// Whether the payload is what was written.
    pub(crate) fn matches(&self, payload: &[u8]) -> bool {
        payload.len() == self.len as usize && crc32c::crc32c(payload) == self.payload_crc
    }
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FrameAt {
    /// The segment's number.
    pub(crate) segment: u32,
    /// Its first byte.
    pub(crate) offset: u32,
    /// Its bytes, padding included.
    pub(crate) len: u32,
}

/// The records of one group commit, encoded.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    buf: Vec<u8>,
    segment: u32,
    durable: u32,
    base: u32,
    timestamp: u64,
}

impl Frames {
    /// Begins a group at `base` in `segment`, which is synced up to `durable`.
    pub(crate) fn begin(&mut self, segment: u32, base: u32, durable: u32, timestamp: u64) {
        self.buf.clear();
        self.segment = segment;
        self.base = base;
        self.durable = durable;
        self.timestamp = timestamp;
    }

    /// Makes room for so many bytes.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.buf.reserve(bytes);
    }

    /// Gives back the memory of a group that was large.
    pub(crate) fn rest(&mut self) {
        const KEEP: usize = 256 << 10;
        self.buf.clear();
        self.buf.shrink_to(KEEP);
    }

    /// The time of this group, in milliseconds since 1970. Never goes back.
    pub(crate) fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// The encoded records.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Adds a record whose payload `write` appends to the buffer. It must write nothing else there.
    pub(crate) fn push(&mut self, meta: Meta, write: impl FnOnce(&mut Vec<u8>)) -> FrameAt {
        let start = self.buf.len();
        self.buf.resize(start + HEADER, 0);
        write(&mut self.buf);
        let len = self.buf.len() - start - HEADER;
        let payload_crc = crc32c::crc32c(&self.buf[start + HEADER..]);
        let mut header = [0u8; HEADER];
        let mut out = &mut header[..];
        out.put_u32_le(MAGIC);
        out.put_u32_le(len as u32);
        out.put_u32_le(meta.kind as u32);
        out.put_u32_le(self.segment);
        out.put_u32_le(self.durable);
        out.put_u32_le(meta.entry);
        out.put_u64_le(meta.base);
        out.put_u64_le(meta.timestamp);
        out.put_u32_le(meta.count);
        out.put_u32_le(payload_crc);
        let crc = crc32c::crc32c(&header[..48]);
        header[48..52].copy_from_slice(&crc.to_le_bytes());
        self.buf[start..start + HEADER].copy_from_slice(&header);
        self.buf.resize(padded(self.buf.len()), 0);
        FrameAt {
            segment: self.segment,
            offset: self.base + start as u32,
            len: (self.buf.len() - start) as u32,
        }
    }
}

/// Splits whole records (as one read from the disk or a peer brings them) into headers and payloads.
///
/// # Errors
/// Where a record is damaged, with the byte it begins at.
pub(crate) fn split(bytes: &Bytes) -> Result<Vec<(Header, Bytes)>, usize> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let header = Header::parse(&bytes[at..]).ok_or(at)?;
        let end = at + HEADER + header.len as usize;
        if end > bytes.len() {
            return Err(at);
        }
        let payload = bytes.slice(at + HEADER..end);
        if !header.matches(&payload) {
            return Err(at);
        }
        records.push((header, payload));
        at += header.frame_len();
    }
    Ok(records)
}

/// The next multiple of 8.
pub(crate) fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(base: u64) -> Meta {
        Meta {
            kind: Kind::Batch,
            entry: 7,
            base,
            count: 3,
            timestamp: 99,
        }
    }

    #[test]
    fn a_large_group_s_memory_is_kept_for_the_next_and_given_back_at_rest() {
        let mut frames = Frames::default();
        frames.reserve(4 << 20);
        frames.begin(4, 1000, 960, 0);
        assert!(frames.buf.capacity() >= 4 << 20);
        frames.rest();
        assert!(frames.buf.capacity() <= 256 << 10);
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let mut frames = Frames::default();
        frames.begin(4, 1000, 960, 0);
        let first = frames.push(meta(5), |out| out.extend_from_slice(b"hello"));
        let second = frames.push(meta(8), |_| {});
        assert_eq!((first.offset, first.len), (1000, 64));
        assert_eq!((second.offset, second.len), (1064, 56));
        let records = split(&Bytes::copy_from_slice(frames.bytes())).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].0.meta, meta(5));
        assert_eq!((records[0].0.segment, records[0].0.durable), (4, 960));
        assert_eq!(&records[0].1[..], b"hello");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut frames = Frames::default();
        frames.begin(1, 0, 0, 0);
        frames.push(meta(5), |out| out.extend_from_slice(b"eight by"));
        let good = frames.bytes().to_vec();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let reserved = (52..56).contains(&(bit / 8));
            assert_eq!(split(&Bytes::from(bad)).is_err(), !reserved, "bit {bit}");
        }
    }
}
