//! What names one delivery.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Bytes of a token.
const LEN: usize = 32;

/// A delivery of one message of one partition to one member of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    /// Of this group object in this boot: deliveries of another one are over.
    pub(crate) nonce: u32,
    /// The epoch under which it was delivered.
    pub(crate) epoch: u32,
    /// The partition.
    pub(crate) partition: u32,
    /// The message's offset.
    pub(crate) offset: u64,
    /// The delivery's number.
    pub(crate) delivery: u64,
}

impl Token {
    /// As it goes over the wire; `buffer` keeps the tokens of one batch together.
    pub(crate) fn write(&self, buffer: &mut BytesMut) -> Bytes {
        buffer.reserve(LEN);
        buffer.put_u32_le(self.nonce);
        buffer.put_u32_le(self.epoch);
        buffer.put_u32_le(self.partition);
        buffer.put_u64_le(self.offset);
        buffer.put_u64_le(self.delivery);
        let crc = crc32c::crc32c(&buffer[..LEN - 4]);
        buffer.put_u32_le(crc);
        buffer.split_to(LEN).freeze()
    }

    /// Reads it; `None` for what is no token.
    pub(crate) fn read(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() != LEN {
            return None;
        }
        let crc = crc32c::crc32c(&bytes[..LEN - 4]);
        let token = Self {
            nonce: bytes.get_u32_le(),
            epoch: bytes.get_u32_le(),
            partition: bytes.get_u32_le(),
            offset: bytes.get_u64_le(),
            delivery: bytes.get_u64_le(),
        };
        (bytes.get_u32_le() == crc).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_nothing_else_does() {
        let token = Token {
            nonce: 1,
            epoch: 2,
            partition: 3,
            offset: 4,
            delivery: 5,
        };
        let mut buffer = BytesMut::new();
        let first = token.write(&mut buffer);
        let second = Token { delivery: 6, ..token }.write(&mut buffer);
        assert_eq!(Token::read(&first), Some(token));
        assert_ne!(first, second);
        let mut bad = first.to_vec();
        bad[9] ^= 1;
        assert_eq!(Token::read(&bad), None);
        assert_eq!(Token::read(b"rubbish"), None);
    }
}
