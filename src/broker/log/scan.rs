//! Reading segments back after a start, and finding where the good data ends.
//!
//! A bad record is a torn write if nothing after it proves that it had been synced: then the segment is cut there.
//! It is damage if a later record says that the segment was synced beyond it (`Header::durable`), or if it lies
//! before the end that the next segment's checkpoint knows: then it is kept, reported and stepped over.

use std::io;

use super::disk::DiskFile;
use super::frame::{FrameAt, HEADER, Header, padded};
use super::piece::Run;

/// A part of a segment that had been synced and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Where.
    pub(crate) at: FrameAt,
    /// The record's header, where that is intact.
    pub(crate) header: Option<Header>,
}

/// Who is told what a scan finds, in the order of the journal.
pub(crate) trait Visitor {
    /// What comes next, up to [`Visitor::complete`], lies before a whole checkpoint: only where batches are matters.
    fn sealed(&mut self) {}
    /// From here on everything matters, and the first record is a checkpoint (or the journal's first record).
    fn complete(&mut self) {}
    /// The runs of a segment that is not read.
    fn runs(&mut self, runs: Vec<(u32, Run)>) {
        drop(runs);
    }
    /// A good record.
    fn record(&mut self, at: FrameAt, header: &Header, payload: &[u8]);
    /// Damage.
    fn damage(&mut self, damage: &Damage);
}

/// Reads one segment. `known_end` is its end where a later segment tells; `None` for the open tail.
/// Returns the end of the good data and whether damage was found.
///
/// # Errors
/// What the system says.
pub(crate) fn scan(
    file: &dyn DiskFile,
    segment: u32,
    known_end: Option<u64>,
    visitor: &mut dyn Visitor,
) -> io::Result<(u64, bool)> {
    let mut window = Window::new(file)?;
    let mut at = 0u64;
    let mut damaged = false;
    loop {
        if known_end.is_some_and(|end| at >= end) {
            return Ok((at, damaged));
        }
        let header = window.header(at, segment)?;
        if let Some(header) = header
            && let Some(payload) = window.payload(at, &header)?
        {
            visitor.record(place(segment, at, header.frame_len() as u64), &header, payload);
            at += header.frame_len() as u64;
            continue;
        }
        let step = header.map(|header| at + header.frame_len() as u64);
        let next = match window.next_good(step.unwrap_or(at + 8), segment)? {
            Some(next) => next,
            None if known_end.is_some() => known_end.unwrap_or(at),
            None => return Ok((at, damaged)),
        };
        if known_end.is_none() && window.durable_after(next, segment)? <= at {
            return Ok((at, damaged));
        }
        damaged = true;
        let end = step.filter(|step| *step <= next).unwrap_or(next);
        visitor.damage(&Damage {
            at: place(segment, at, end - at),
            header,
        });
        at = end;
    }
}

fn place(segment: u32, at: u64, len: u64) -> FrameAt {
    FrameAt {
        segment,
        offset: at as u32,
        len: len as u32,
    }
}

/// A part of a file in memory that follows the scan.
struct Window<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DiskFile) -> io::Result<Self> {
        Ok(Self {
            file,
            len: file.size()?,
            start: 0,
            buffer: Vec::new(),
        })
    }

    /// Bytes at a place; fewer where the file ends.
    fn get(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        const READ: usize = 256 << 10;
        let inside = at >= self.start && at + len as u64 <= self.start + self.buffer.len() as u64;
        if !inside {
            let len = (len.max(READ) as u64).min(self.len.saturating_sub(at)) as usize;
            self.buffer.resize(len, 0);
            self.file.read(&mut self.buffer, at)?;
            self.start = at;
        }
        let from = ((at - self.start) as usize).min(self.buffer.len());
        let to = (from + len).min(self.buffer.len());
        Ok(&self.buffer[from..to])
    }

    fn header(&mut self, at: u64, segment: u32) -> io::Result<Option<Header>> {
        Ok(Header::parse(self.get(at, HEADER)?).filter(|header| header.segment == segment))
    }

    fn payload(&mut self, at: u64, header: &Header) -> io::Result<Option<&[u8]>> {
        let len = header.len as usize;
        if at + padded(HEADER + len) as u64 > self.len {
            return Ok(None);
        }
        let payload = self.get(at + HEADER as u64, len)?;
        Ok(header.matches(payload).then_some(payload))
    }

    /// The first good record at or after a place.
    fn next_good(&mut self, from: u64, segment: u32) -> io::Result<Option<u64>> {
        let mut at = from.next_multiple_of(8);
        while at + HEADER as u64 <= self.len {
            if let Some(header) = self.header(at, segment)?
                && self.payload(at, &header)?.is_some()
            {
                return Ok(Some(at));
            }
            at += 8;
        }
        Ok(None)
    }

    /// The furthest sync that a good record from a place on knows of.
    fn durable_after(&mut self, from: u64, segment: u32) -> io::Result<u64> {
        let mut durable = 0;
        let mut at = from;
        while let Some(good) = self.next_good(at, segment)? {
            if let Some(header) = self.header(good, segment)? {
                durable = durable.max(u64::from(header.durable));
                at = good + header.frame_len() as u64;
            } else {
                at = good + 8;
            }
        }
        Ok(durable)
    }
}

/// The header of a segment's first record.
///
/// # Errors
/// What the system says.
pub(crate) fn first_record(segments: &super::segment::Segments, number: u32) -> io::Result<Option<Header>> {
    let Some(file) = segments.file(number) else {
        return Ok(None);
    };
    let head = super::footer::record(&*file, number, 0, file.size()?)?;
    Ok(head.map(|(header, _)| header))
}

/// Whether a segment holds any good record.
///
/// # Errors
/// What the system says.
pub(crate) fn has_records(segments: &super::segment::Segments, number: u32) -> io::Result<bool> {
    let Some(file) = segments.file(number) else {
        return Ok(false);
    };
    Ok(Window::new(&*file)?.next_good(0, number)?.is_some())
}
