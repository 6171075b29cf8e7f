//! The record decoder.

use bytes::Bytes;

use crate::broker::log::frame::{HEADER, split};
use crate::broker::log::{Frames, Header, Kind, Meta};

/// Nothing panics; what was written reads back; no flipped bit goes unnoticed.
pub fn run(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(records) = split(&bytes) {
        let len: usize = records.iter().map(|(header, _)| header.frame_len()).sum();
        assert!(len >= data.len() && len < data.len() + 8);
    }
    for at in (0..data.len()).step_by(8) {
        if let Some(header) = Header::parse(&data[at..]) {
            assert!(header.frame_len() >= HEADER);
        }
    }
    write_and_flip(data);
}

/// The input says what the records are and which bit is flipped.
fn write_and_flip(data: &[u8]) {
    let Some((&[low, high, bit], rest)) = data.split_first_chunk() else {
        return;
    };
    let mut frames = Frames::default();
    frames.begin(u32::from(low), 0, u32::from(high), 1);
    let mut payloads = Vec::new();
    for (base, payload) in rest.chunks(1 + usize::from(bit) / 4).take(50).enumerate() {
        let meta = Meta {
            kind: Kind::Batch,
            entry: 1,
            base: base as u64,
            count: 1,
            timestamp: 2,
        };
        frames.push(meta, |out| out.extend_from_slice(payload));
        payloads.push(payload);
    }
    let mut written = frames.bytes().to_vec();
    let records = split(&Bytes::copy_from_slice(&written)).expect("what was written is good");
    assert!(records.iter().map(|(_, payload)| &payload[..]).eq(payloads));
    if written.is_empty() {
        return;
    }
    let byte = usize::from(u16::from_le_bytes([low, high])) % written.len();
    written[byte] ^= 1 << (bit % 8);
    let mut at = 0;
    let mut harmless = false;
    for (header, _) in &records {
        let (reserved, padding) = (at + 52..at + HEADER, at + HEADER + header.len as usize);
        at += header.frame_len();
        harmless |= reserved.contains(&byte) || (padding..at).contains(&byte);
    }
    assert_eq!(split(&Bytes::from(written)).is_ok(), harmless);
}
