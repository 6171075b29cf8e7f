//! The payloads of records.

use bytes::Bytes;

use super::entry::{EntryState, Phase};
use super::producers::{Producers, Window};
use super::progress::Progress;
pub(crate) use crate::broker::log::number::{Reader, put_bytes, put_u64, unzigzag, zigzag};
use crate::broker::store::{EntryId, NewMessage, Offset, StoredMessage};

/// At least the bytes that a batch takes in the journal.
pub(crate) fn batch_size(messages: &[NewMessage], producer: &str) -> usize {
    let message = |m: &NewMessage| {
        let headers: usize = m
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + 20)
            .sum();
        m.key.len() + m.body.len() + headers + 40
    };
    crate::broker::log::frame::HEADER + 24 + producer.len() + messages.iter().map(message).sum::<usize>()
}

/// Appends the payload of a batch.
pub(crate) fn put_batch<'a>(
    out: &mut Vec<u8>,
    producer: &str,
    messages: impl Iterator<Item = &'a NewMessage>,
) {
    put_bytes(out, producer.as_bytes());
    for message in messages {
        put_u64(out, message.sequence);
        put_bytes(out, &message.key);
        put_u64(out, message.headers.len() as u64);
        for (name, value) in &message.headers {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value);
        }
        put_bytes(out, &message.body);
    }
}

/// The producer of a batch and the sequences in it.
pub(crate) fn batch_sequences(payload: Bytes) -> Option<(String, Vec<u64>)> {
    let mut reader = Reader::new(payload);
    let producer = reader.string()?;
    let mut sequences = Vec::new();
    while !reader.is_empty() {
        sequences.push(reader.u64()?);
        reader.bytes()?;
        for _ in 0..reader.u64()? {
            reader.bytes()?;
            reader.bytes()?;
        }
        reader.bytes()?;
    }
    Some((producer, sequences))
}

/// The messages of a batch whose first one is at `first`. They share the payload's memory.
pub(crate) fn read_batch(payload: Bytes, first: Offset, timestamp: u64) -> Option<Vec<StoredMessage>> {
    let mut reader = Reader::new(payload);
    let producer = reader.string()?;
    let published_at = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(timestamp);
    let mut messages = Vec::new();
    while !reader.is_empty() {
        let sequence = reader.u64()?;
        let key = reader.bytes()?;
        let count = reader.u64()?;
        let mut headers = Vec::new();
        for _ in 0..count {
            headers.push((reader.string()?, reader.bytes()?));
        }
        messages.push(StoredMessage {
            offset: Offset(first.0 + messages.len() as u64),
            key,
            headers,
            body: reader.bytes()?,
            producer: producer.clone(),
            sequence,
            published_at,
        });
    }
    Some(messages)
}

/// Appends what names an entry.
pub(crate) fn put_id(out: &mut Vec<u8>, id: &EntryId) {
    put_bytes(out, id.topic.as_bytes());
    put_bytes(out, id.topic_uid.as_bytes());
    put_u64(out, u64::from(id.partition));
    put_u64(out, id.epoch);
}

/// Reads what names an entry.
pub(crate) fn read_id(reader: &mut Reader) -> Option<EntryId> {
    Some(EntryId {
        topic: reader.string()?,
        topic_uid: reader.string()?,
        partition: reader.u32()?,
        epoch: reader.u64()?,
    })
}

/// Appends a group's progress, or a change of it.
pub(crate) fn put_progress(out: &mut Vec<u8>, group: &str, progress: &Progress) {
    put_bytes(out, group.as_bytes());
    put_u64(out, progress.floor);
    put_u64(out, progress.done.len() as u64);
    let mut last = progress.floor;
    for range in progress.done.iter() {
        put_u64(out, range.start.wrapping_sub(last));
        put_u64(out, range.end - range.start);
        last = range.end;
    }
    put_u64(out, progress.counts.len() as u64);
    for (&offset, &count) in &progress.counts {
        put_u64(out, offset);
        put_u64(out, u64::from(count));
    }
}

/// Reads a group's progress.
pub(crate) fn read_progress(reader: &mut Reader) -> Option<(String, Progress)> {
    let group = reader.string()?;
    let mut progress = Progress {
        floor: reader.u64()?,
        ..Progress::default()
    };
    let mut last = progress.floor;
    for _ in 0..reader.u64()? {
        let start = last.wrapping_add(reader.u64()?);
        last = start.checked_add(reader.u64()?)?;
        progress.done.insert(start..last);
    }
    for _ in 0..reader.u64()? {
        progress.counts.insert(reader.u64()?, reader.u32()?);
    }
    Some((group, progress))
}

/// Appends groups' progress.
pub(crate) fn put_groups<'a>(
    out: &mut Vec<u8>,
    groups: impl ExactSizeIterator<Item = (&'a String, &'a Progress)>,
) {
    put_u64(out, groups.len() as u64);
    for (group, progress) in groups {
        put_progress(out, group, progress);
    }
}

/// Reads groups' progress.
pub(crate) fn read_groups(reader: &mut Reader) -> Option<Vec<(String, Progress)>> {
    let mut groups = Vec::new();
    for _ in 0..reader.u64()? {
        groups.push(read_progress(reader)?);
    }
    Some(groups)
}

/// Appends producers' windows.
pub(crate) fn put_producers(out: &mut Vec<u8>, producers: &Producers) {
    put_u64(out, producers.len() as u64);
    for (producer, window) in producers.iter() {
        put_bytes(out, producer.as_bytes());
        put_u64(out, window.used());
        put_u64(
            out,
            window
                .forgotten()
                .map_or(0, |sequence| sequence.saturating_add(1)),
        );
        let pairs: Vec<_> = window.iter().collect();
        put_u64(out, pairs.len() as u64);
        let (mut last_sequence, mut last_offset) = (0u64, 0u64);
        for (sequence, offset) in pairs {
            put_u64(out, zigzag(sequence.wrapping_sub(last_sequence)));
            put_u64(out, zigzag(offset.wrapping_sub(last_offset)));
            (last_sequence, last_offset) = (sequence, offset);
        }
    }
}

/// Reads producers' windows.
pub(crate) fn read_producers(reader: &mut Reader) -> Option<Producers> {
    let mut producers = Producers::default();
    for _ in 0..reader.u64()? {
        let producer = reader.string()?;
        let used = reader.u64()?;
        let forgotten = reader.u64()?.checked_sub(1);
        let mut pairs = Vec::new();
        let (mut sequence, mut offset) = (0u64, 0u64);
        for _ in 0..reader.u64()? {
            sequence = sequence.wrapping_add(unzigzag(reader.u64()?));
            offset = offset.wrapping_add(unzigzag(reader.u64()?));
            pairs.push((sequence, offset));
        }
        producers.insert(producer, Window::restore(pairs, forgotten, used));
    }
    Some(producers)
}

/// Appends everything about an entry but its batches.
pub(crate) fn put_entry(out: &mut Vec<u8>, number: u32, id: &EntryId, state: &EntryState) {
    put_u64(out, u64::from(number));
    put_id(out, id);
    let (phase, sealed_at) = match state.phase {
        Phase::Opening | Phase::Open => (0, 0),
        Phase::Sealed => (1, 0),
        Phase::Copying { sealed_at } => (2, sealed_at),
        Phase::Dropped => (3, 0),
    };
    put_u64(out, phase);
    put_u64(out, sealed_at);
    put_u64(out, u64::from(state.needs_handoff));
    put_u64(out, state.next);
    put_u64(out, state.start);
    put_u64(out, state.damaged.len() as u64);
    for range in state.damaged.iter() {
        put_u64(out, range.start);
        put_u64(out, range.end);
    }
    put_producers(out, &state.producers);
    put_groups(out, state.groups.iter());
}

/// Reads what [`put_entry`] wrote. The index is empty.
pub(crate) fn read_entry(reader: &mut Reader) -> Option<(u32, EntryId, EntryState)> {
    let number = reader.u32()?;
    let id = read_id(reader)?;
    let phase = reader.u64()?;
    let sealed_at = reader.u64()?;
    let phase = match phase {
        0 => Phase::Open,
        1 => Phase::Sealed,
        2 => Phase::Copying { sealed_at },
        3 => Phase::Dropped,
        _ => return None,
    };
    let mut state = EntryState::new(phase, reader.u64()? != 0);
    state.next = reader.u64()?;
    state.start = reader.u64()?;
    for _ in 0..reader.u64()? {
        let start = reader.u64()?;
        state.damaged.insert(start..reader.u64()?);
    }
    state.producers = read_producers(reader)?;
    state.groups = read_groups(reader)?.into_iter().collect();
    Some((number, id, state))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_read_back(values in prop::collection::vec(any::<u64>(), 0..20)) {
            let mut out = Vec::new();
            for &value in &values {
                put_u64(&mut out, value);
                prop_assert_eq!(unzigzag(zigzag(value)), value);
            }
            let mut reader = Reader::new(Bytes::from(out));
            for value in values {
                prop_assert_eq!(reader.u64(), Some(value));
            }
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn rubbish_is_refused_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = read_batch(bytes.clone(), Offset(0), 0);
            let _ = batch_sequences(bytes.clone());
            let _ = read_groups(&mut Reader::new(bytes.clone()));
            let _ = read_producers(&mut Reader::new(bytes.clone()));
            let _ = read_entry(&mut Reader::new(bytes));
        }
    }

    #[test]
    fn a_batch_fits_its_announced_size() {
        let messages = vec![NewMessage {
            key: Bytes::from_static(b"k"),
            headers: vec![("a".into(), Bytes::from_static(b"b")); 3],
            body: Bytes::from_static(b"body"),
            sequence: u64::MAX,
        }];
        let mut out = Vec::new();
        put_batch(&mut out, "p", messages.iter());
        assert!(out.len() + crate::broker::log::frame::HEADER + 8 <= batch_size(&messages, "p"));
        assert_eq!(
            batch_sequences(Bytes::from(out)),
            Some(("p".into(), vec![u64::MAX]))
        );
    }
}
