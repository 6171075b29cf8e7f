//! Reading an entry's batches, without a lock while the disk is asked.

use std::sync::Arc;

use bytes::Bytes;

use super::codec;
use super::entry::Entry;
use super::index::{Part, Piece};
use crate::broker::log::frame::HEADER;
use crate::broker::log::{Header, Journal, frame};
use crate::broker::store::{Offset, StoredMessage};

/// Why positions cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// Positions from the asked one up to this one are damaged.
    #[error("data lost: positions up to {} are damaged on this disk", .0 - 1)]
    Damaged(u64),
    /// Positions below this one are gone by retention.
    #[error("positions before {0} are gone by retention")]
    Gone(u64),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
}

/// The records that lie together with the one that holds `position`, which is committed. `None`: nothing is there yet.
///
/// A segment that was written lately is read right here, since its pages are in memory: a detour over another
/// thread would cost more than the copy. Older ones may wait for the disk and are read on a blocking thread.
pub(crate) async fn piece(
    journal: &Arc<Journal>,
    entry: &Arc<Entry>,
    position: u64,
) -> Result<Option<(Piece, Bytes)>, ReadError> {
    let mut moved = false;
    loop {
        let Some(part) = find(entry, position)? else {
            return Ok(None);
        };
        let read = if journal.is_recent(part.segment()) {
            read_at(journal, entry.number, &part, position)
        } else {
            let (journal, number) = (Arc::clone(journal), entry.number);
            tokio::task::spawn_blocking(move || read_at(&journal, number, &part, position))
                .await
                .unwrap_or_else(|e| Err(e.into()))
        };
        match read {
            Ok(Ok(found)) => return Ok(Some(found)),
            Ok(Err(next)) => {
                report(entry, position, next);
                return Err(ReadError::Damaged(next));
            }
            // It may have been moved to another segment, or trimmed, meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !moved => moved = true,
            Err(error) => {
                let start = entry.state().start;
                if start > position {
                    return Err(ReadError::Gone(start));
                }
                return Err(ReadError::Unavailable(format!(
                    "the disk cannot be read: {error}"
                )));
            }
        }
    }
}

/// The piece of a part that holds a position, and its bytes; where the part's segment has none, the next position
/// that it may have.
fn read_at(
    journal: &Journal,
    entry: u32,
    part: &Part,
    position: u64,
) -> std::io::Result<Result<(Piece, Bytes), u64>> {
    let piece = match part {
        Part::Piece(piece) => *piece,
        Part::Run(run) => {
            let pieces = journal.pieces(entry, run)?;
            let index = pieces.partition_point(|piece| piece.end() <= position);
            match pieces.get(index) {
                Some(piece) if piece.base <= position => *piece,
                next => return Ok(Err(next.map_or(run.end(), |piece| piece.base.min(run.end())))),
            }
        }
    };
    Ok(Ok((piece, journal.read(piece.at)?)))
}

fn find(entry: &Entry, position: u64) -> Result<Option<Part>, ReadError> {
    let state = entry.state();
    if position < state.start {
        return Err(ReadError::Gone(state.start));
    }
    if let Some(end) = state.damaged.end_of(position) {
        return Err(ReadError::Damaged(end));
    }
    if position >= state.committed {
        return Ok(None);
    }
    match state.index.at_or_after(position) {
        Some(part) if part.base() <= position => Ok(Some(part)),
        other => Err(ReadError::Damaged(
            other.map_or(state.committed, |part| part.base()),
        )),
    }
}

/// Messages from `position` on, as many as lie together there.
pub(crate) async fn messages(
    journal: &Arc<Journal>,
    entry: &Arc<Entry>,
    position: u64,
) -> Result<Vec<StoredMessage>, ReadError> {
    let Some((piece, bytes)) = piece(journal, entry, position).await? else {
        return Ok(Vec::new());
    };
    let records = records(entry, &bytes, &piece);
    if let Some(first) = records.iter().find(|record| record.end > position)
        && first.good.is_none()
    {
        return Err(ReadError::Damaged(first.end));
    }
    let good: Vec<_> = records.into_iter().filter_map(|record| record.good).collect();
    Ok(decode(&good, entry.id.epoch, position))
}

/// Messages of whole batches, from `position` on and up to the first gap.
pub(crate) fn decode(batches: &[(Header, Bytes)], epoch: u64, position: u64) -> Vec<StoredMessage> {
    let mut messages = Vec::new();
    let mut next = position;
    for (header, payload) in batches {
        let meta = header.meta;
        let end = meta.base + u64::from(meta.count);
        if end <= next {
            continue;
        }
        let first = Offset::new(epoch, meta.base);
        let batch = codec::read_batch(payload.clone(), first, meta.timestamp);
        let Some(batch) = batch.filter(|_| meta.base <= next) else {
            break;
        };
        messages.extend(
            batch
                .into_iter()
                .filter(|message| message.offset.position() >= next),
        );
        next = end;
    }
    messages
}

/// A record of a piece.
#[derive(Debug)]
pub(crate) struct Record {
    /// The position behind it.
    pub(crate) end: u64,
    /// As it is on the disk.
    pub(crate) raw: Bytes,
    /// Its header and payload; `None` where it is damaged.
    pub(crate) good: Option<(Header, Bytes)>,
}

/// The records of a piece. Damage is reported, and kept in the entry's state.
pub(crate) fn records(entry: &Entry, bytes: &Bytes, piece: &Piece) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = 0;
    let mut next = piece.base;
    while at < bytes.len() {
        let header = Header::parse(&bytes[at..]);
        let (len, end) = match header {
            Some(header) => (
                header.frame_len(),
                header.meta.base + u64::from(header.meta.count),
            ),
            None => next_record(entry, bytes, at, piece),
        };
        let raw = bytes.slice(at..(at + len).min(bytes.len()));
        let good = frame::split(&raw).ok().and_then(|mut records| records.pop());
        if good.is_none() {
            report(entry, next, end);
        }
        at += raw.len();
        next = end;
        records.push(Record { end, raw, good });
    }
    records
}

/// The distance to the next good record behind one without a readable header, and that record's first position.
fn next_record(entry: &Entry, bytes: &Bytes, at: usize, piece: &Piece) -> (usize, u64) {
    let mut next = at + 8;
    while next < bytes.len() {
        if let Some(header) = Header::parse(&bytes[next..]).filter(|header| header.meta.entry == entry.number)
            && let Some(payload) = bytes.get(next + HEADER..next + HEADER + header.len as usize)
            && header.matches(payload)
        {
            return (next - at, header.meta.base);
        }
        next += 8;
    }
    (bytes.len() - at, piece.end())
}

/// Keeps damage that a read found.
fn report(entry: &Entry, from: u64, to: u64) {
    let id = &entry.id;
    let mut state = entry.state();
    if state.damaged.contains(from) {
        return;
    }
    state.damaged.insert(from..to);
    drop(state);
    tracing::error!(
        topic = id.topic,
        partition = id.partition,
        epoch = id.epoch,
        from,
        to,
        "data lost: positions from..to are damaged on this disk and will not be served"
    );
}
