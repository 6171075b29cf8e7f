//! Bytes in a row: what waits to be written to the socket, and what waits to be read of a request. Holds nothing while
//! nothing waits.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Shorter pieces are copied together, longer ones stay where they are.
const COPIED_BYTES: usize = 1024;

/// Bytes, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pieces: VecDeque<Bytes>,
    /// What follows the pieces.
    tail: BytesMut,
    bytes: usize,
}

impl Pieces {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Adds what `put` puts.
    pub(super) fn put(&mut self, put: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        put(&mut self.tail);
        self.bytes += self.tail.len() - before;
    }

    /// Adds bytes that lie elsewhere.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        if bytes.len() <= COPIED_BYTES {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.pieces.push_back(tail);
        }
        self.pieces.push_back(bytes);
    }

    /// Takes the first of them; empty where there is none.
    pub(super) fn pop(&mut self) -> Bytes {
        let first = self.pieces.pop_front();
        let first = first.unwrap_or_else(|| std::mem::take(&mut self.tail).freeze());
        self.bytes -= first.len();
        first
    }

    /// Gives the memory back once all is written.
    pub(super) fn rest(&mut self) {
        if self.bytes == 0 {
            *self = Self::default();
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.tail, |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.pieces.iter().map(AsRef::as_ref);
        let all = pieces.chain(std::iter::once(self.tail.as_ref()));
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(all.filter(|bytes| !bytes.is_empty())) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(front) = self.pieces.front_mut() {
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
        self.tail.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_however_much_is_taken_at_a_time() {
        for step in [1, 7, 1000, 5000] {
            let mut output = Pieces::default();
            let mut expected = Vec::new();
            for size in [3, 2000, 1, 1024, 1025, 4] {
                let piece: Vec<u8> = (0..size).map(|at| at as u8).collect();
                output.put(|out| out.extend_from_slice(b"head"));
                output.push(Bytes::from(piece.clone()));
                expected.extend_from_slice(b"head");
                expected.extend(piece);
            }
            assert_eq!(output.len(), expected.len());
            let mut got = Vec::new();
            while output.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 2];
                let count = output.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                let taken = seen.len().min(step);
                got.extend_from_slice(&seen[..taken]);
                output.advance(taken);
            }
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn large_pieces_stay_where_they_are_and_small_ones_are_taken_together() {
        let mut pieces = Pieces::default();
        let large = Bytes::from(vec![7; 5000]);
        for piece in [&b"a"[..], b"bc"] {
            pieces.push(Bytes::copy_from_slice(piece));
        }
        pieces.push(large.clone());
        pieces.push(Bytes::from_static(b"d"));
        assert_eq!(pieces.len(), 5004);
        assert_eq!(pieces.pop(), "abc");
        assert_eq!(pieces.pop().as_ptr(), large.as_ptr());
        assert_eq!(pieces.pop(), "d");
        assert!(pieces.pop().is_empty());
        assert_eq!(pieces.len(), 0);
    }
}
