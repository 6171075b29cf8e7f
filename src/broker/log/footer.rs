//! The index at the end of a finished segment, so that a start need not read the segment.
//!
//! A record of pieces for each entry's run ([`Kind::Pieces`]), one that lists the runs ([`Kind::Runs`]), and as the
//! segment's last record one that says where that list is ([`Kind::Footer`], `base`). All of them are ordinary
//! records with checksums. Where any is missing or damaged, the segment is scanned, and that is said.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::disk::DiskFile;
use super::frame::{FrameAt, HEADER, Header, Kind, split};
use super::piece::{Piece, Run, read_pieces, read_runs};
use super::scan::{Damage, Visitor, scan};

/// The runs of a finished segment; `None` where its index is missing or damaged.
///
/// # Errors
/// What the system says.
pub(crate) fn runs(file: &dyn DiskFile, segment: u32) -> io::Result<Option<Vec<(u32, Run)>>> {
    let size = file.size()?;
    let Some(footer) = footer(file, segment, size)? else {
        return Ok(None);
    };
    let list = record(file, segment, footer.meta.base, size)?;
    Ok(list
        .filter(|(header, _)| header.meta.kind == Kind::Runs)
        .and_then(|(_, payload)| read_runs(segment, payload)))
}

/// Whether a segment ends with an index.
///
/// # Errors
/// What the system says.
pub(crate) fn is_finished(file: &dyn DiskFile, segment: u32) -> io::Result<bool> {
    Ok(footer(file, segment, file.size()?)?.is_some())
}

fn footer(file: &dyn DiskFile, segment: u32, size: u64) -> io::Result<Option<Header>> {
    let Some(last) = size.checked_sub(HEADER as u64) else {
        return Ok(None);
    };
    let last = record(file, segment, last, size)?;
    Ok(last
        .map(|(header, _)| header)
        .filter(|header| header.meta.kind == Kind::Footer))
}

/// The record at a place, if it is a good one.
pub(super) fn record(
    file: &dyn DiskFile,
    segment: u32,
    at: u64,
    size: u64,
) -> io::Result<Option<(Header, Bytes)>> {
    let mut head = [0; HEADER];
    if at + HEADER as u64 > size {
        return Ok(None);
    }
    file.read(&mut head, at)?;
    let Some(header) = Header::parse(&head).filter(|header| header.segment == segment) else {
        return Ok(None);
    };
    if at + (HEADER + header.len as usize) as u64 > size {
        return Ok(None);
    }
    let mut payload = vec![0; header.len as usize];
    file.read(&mut payload, at + HEADER as u64)?;
    Ok(header.matches(&payload).then(|| (header, Bytes::from(payload))))
}

/// Pieces of runs that were looked at lately, up to a bound.
#[derive(Debug, Default)]
pub(crate) struct PieceCache(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    pieces: HashMap<FrameAt, Arc<[Piece]>>,
    order: VecDeque<FrameAt>,
    count: usize,
}

impl PieceCache {
    /// Pieces in memory at most, 40 bytes each: 4 MB. A run that has more is kept alone.
    const MOST: usize = 100_000;

    /// The pieces of a run of this entry. Blocking.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn pieces(&self, file: &dyn DiskFile, entry: u32, run: &Run) -> io::Result<Arc<[Piece]>> {
        if let Some(found) = self.0.lock().pieces.get(&run.at) {
            return Ok(Arc::clone(found));
        }
        let mut bytes = vec![0; run.at.len as usize];
        file.read(&mut bytes, u64::from(run.at.offset))?;
        let segment = run.at.segment;
        let found = split(&Bytes::from(bytes))
            .ok()
            .and_then(|mut records| records.pop())
            .filter(|(header, _)| header.meta.kind == Kind::Pieces && header.meta.entry == entry)
            .and_then(|(_, payload)| read_pieces(segment, payload));
        let found = match found {
            Some(found) => found,
            None => {
                tracing::error!(
                    segment,
                    offset = run.at.offset,
                    "the index of a finished segment is damaged: the segment is scanned instead"
                );
                let mut seen = Seen(entry, Vec::new());
                scan(file, segment, Some(file.size()?), &mut seen)?;
                seen.1
            }
        };
        let found: Arc<[Piece]> = found.into();
        let mut cached = self.0.lock();
        while cached.count + found.len() > Self::MOST
            && let Some(oldest) = cached.order.pop_front()
        {
            let gone = cached.pieces.remove(&oldest).map_or(0, |pieces| pieces.len());
            cached.count -= gone;
        }
        if cached.pieces.insert(run.at, Arc::clone(&found)).is_none() {
            cached.order.push_back(run.at);
            cached.count += found.len();
        }
        Ok(found)
    }
}

/// The batches of one entry.
struct Seen(u32, Vec<Piece>);

impl Visitor for Seen {
    fn record(&mut self, at: FrameAt, header: &Header, _payload: &[u8]) {
        let meta = header.meta;
        if meta.kind.is_batch() && meta.entry == self.0 {
            self.1.push(Piece {
                base: meta.base,
                count: meta.count,
                at,
                timestamp: meta.timestamp,
            });
        }
    }

    fn damage(&mut self, _damage: &Damage) {}
}
