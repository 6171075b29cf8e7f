//! What the body of a bench message carries, so that whoever receives it can check it.

use bytes::{BufMut as _, Bytes, BytesMut};

/// Bytes before the filling.
pub(super) const HEADER: usize = 40;
const MAGIC: &[u8; 4] = b"SLB1";
/// The checksum covers what comes after it.
const CHECKED: usize = 8;

/// Who sent a message, and when it was meant to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) run: u64,
    pub(super) producer: u32,
    /// Of this producer, from 0.
    pub(super) number: u64,
    /// Nanoseconds since 1970.
    pub(super) intended: u64,
}

/// What a body turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Message(Header),
    /// It is not one of ours.
    Foreign,
    /// It is one of ours, and was damaged.
    Damaged,
}

/// Appends one body of `size` bytes.
pub(super) fn write(slab: &mut BytesMut, header: &Header, size: usize) -> Bytes {
    slab.reserve(size);
    slab.put_slice(MAGIC);
    slab.put_u32_le(0);
    slab.put_u64_le(header.run);
    slab.put_u32_le(header.producer);
    slab.put_u32_le(size as u32);
    slab.put_u64_le(header.number);
    slab.put_u64_le(header.intended);
    slab.put_bytes(header.number as u8, size.saturating_sub(HEADER));
    let checksum = crc32c::crc32c(&slab[CHECKED..]);
    slab[4..CHECKED].copy_from_slice(&checksum.to_le_bytes());
    slab.split().freeze()
}

pub(super) fn read(body: &[u8]) -> Read {
    if !body.starts_with(MAGIC) {
        return Read::Foreign;
    }
    let u32_at = |at: usize| {
        body.get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_le_bytes)
    };
    let u64_at = |at: usize| {
        body.get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map(u64::from_le_bytes)
    };
    let header = || {
        let is_whole =
            u32_at(20)? as usize == body.len() && u32_at(4)? == crc32c::crc32c(body.get(CHECKED..)?);
        let header = Header {
            run: u64_at(8)?,
            producer: u32_at(16)?,
            number: u64_at(24)?,
            intended: u64_at(32)?,
        };
        is_whole.then_some(header)
    };
    header().map_or(Read::Damaged, Read::Message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_damage_of_a_body_is_seen() {
        let header = Header {
            run: 7,
            producer: 3,
            number: 1 << 40,
            intended: u64::MAX,
        };
        let mut slab = BytesMut::new();
        for size in [HEADER, HEADER + 1, 256] {
            let body = write(&mut slab, &header, size);
            assert_eq!((body.len(), read(&body)), (size, Read::Message(header)));
            for index in 4..size {
                let mut damaged = body.to_vec();
                damaged[index] ^= 0x10;
                assert_eq!(read(&damaged), Read::Damaged, "byte {index}");
            }
            assert_eq!(read(&body[..size - 1]), Read::Damaged);
            assert_eq!(read(&body[..4]), Read::Damaged);
        }
        assert_eq!(read(b"hello"), Read::Foreign);
    }
}
