//! Takes frames out of what comes in.

use bytes::{Buf as _, BytesMut};

use super::{DATA, END_STREAM, Frame, HEAD_BYTES, MAX_DATA_BYTES, MAX_FRAME_BYTES, MAX_WINDOW, PADDED};
use super::{on_a_stream, parse};
use crate::broker::http2::fault::{Code, Fault};

/// Where in a connection's frames its input begins.
#[derive(Debug, Default)]
pub(in crate::broker::http2) struct Reader {
    /// In a DATA frame that comes in pieces.
    long: Option<Long>,
}

/// What is still to come of a DATA frame.
#[derive(Debug)]
struct Long {
    stream: u32,
    data: usize,
    /// Behind the data.
    padding: usize,
    /// What the padding takes from the windows: the byte of its length too.
    padding_flow: u32,
    is_last: bool,
}

impl Reader {
    /// Takes the next frame out of `input`; `None` until it is there in whole, or [`MAX_FRAME_BYTES`] of it.
    ///
    /// # Errors
    /// It is not well-formed.
    pub(in crate::broker::http2) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        if let Some(long) = &mut self.long {
            let piece = long.next(input);
            if long.is_over() {
                self.long = None;
            }
            return Ok(piece);
        }
        let Some(&[a, b, c, kind, flags, d, e, f, g]) = input.get(..HEAD_BYTES) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([d, e, f, g]) & MAX_WINDOW;
        let most = if kind == DATA {
            MAX_DATA_BYTES
        } else {
            MAX_FRAME_BYTES
        };
        if length > most {
            let text = format!("a frame of kind {kind} has {length} bytes; {most} are taken");
            return Err(Fault::Connection(Code::FRAME_SIZE_ERROR, text));
        }
        if length > MAX_FRAME_BYTES {
            on_a_stream(stream, "DATA")?;
            if input.len() < HEAD_BYTES + MAX_FRAME_BYTES {
                return Ok(None);
            }
            input.advance(HEAD_BYTES);
            self.long = Some(Long::begin(stream, flags, length, input));
            return self.next(input);
        }
        if input.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        input.advance(HEAD_BYTES);
        let payload = input.split_to(length).freeze();
        parse(kind, flags, stream, payload).map(Some)
    }

    /// The bytes of `input` that are missing until [`Reader::next`] takes something, as far as is known.
    pub(in crate::broker::http2) fn missing(&self, input: &[u8]) -> usize {
        let wanted = match (&self.long, input) {
            (Some(long), _) => long.wanted(),
            (None, [a, b, c, ..]) if input.len() >= HEAD_BYTES => {
                HEAD_BYTES + MAX_FRAME_BYTES.min(u32::from_be_bytes([0, *a, *b, *c]) as usize)
            }
            _ => HEAD_BYTES,
        };
        wanted.saturating_sub(input.len())
    }
}

impl Long {
    /// `input` begins with the payload, which is longer than any padding.
    fn begin(stream: u32, flags: u8, length: usize, input: &mut BytesMut) -> Self {
        let has = |flag: u8| flags & flag != 0;
        let padding = has(PADDED).then(|| usize::from(input.get_u8()));
        let padding_flow = padding.map_or(0, |padding| padding + 1);
        Self {
            stream,
            data: length - padding_flow,
            padding: padding.unwrap_or(0),
            padding_flow: padding_flow as u32,
            is_last: has(END_STREAM),
        }
    }

    /// The bytes that are handed on together: few small pieces, and no more memory than for other frames.
    fn wanted(&self) -> usize {
        (self.data + self.padding).min(MAX_FRAME_BYTES)
    }

    fn is_over(&self) -> bool {
        self.data + self.padding == 0
    }

    fn next(&mut self, input: &mut BytesMut) -> Option<Frame> {
        if input.len() < self.wanted() {
            return None;
        }
        let data = input.split_to(self.data.min(input.len())).freeze();
        self.data -= data.len();
        let is_whole = input.len() >= self.padding && self.data == 0;
        let mut flow = data.len() as u32;
        if is_whole {
            input.advance(std::mem::take(&mut self.padding));
            flow += self.padding_flow;
        }
        Some(Frame::Data {
            stream: self.stream,
            data,
            flow,
            is_last: is_whole && self.is_last,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes out of `wire`, cut into pieces of `cut` bytes, and how it ended.
    fn read(wire: &[u8], cut: usize) -> (Vec<Frame>, Option<Fault>) {
        let (mut reader, mut input, mut frames) = (Reader::default(), BytesMut::new(), Vec::new());
        for piece in wire.chunks(cut) {
            input.extend_from_slice(piece);
            loop {
                match reader.next(&mut input) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => {
                        let missing = reader.missing(&input);
                        assert!((1..=HEAD_BYTES + MAX_FRAME_BYTES).contains(&missing));
                        break;
                    }
                    Err(fault) => return (frames, Some(fault)),
                }
            }
        }
        (frames, None)
    }

    fn head(length: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
        let mut head = (length as u32).to_be_bytes()[1..].to_vec();
        head.extend([kind, flags]);
        head.extend(stream.to_be_bytes());
        head
    }

    /// The data of all pieces, what they took from the windows, and how many were the last.
    fn join(frames: &[Frame]) -> (Vec<u8>, u32, usize) {
        let mut joined = (Vec::new(), 0, 0);
        for frame in frames {
            let Frame::Data {
                data,
                flow,
                is_last,
                stream: 1,
            } = frame
            else {
                panic!("{frame:?}");
            };
            joined.0.extend_from_slice(data);
            joined.1 += flow;
            joined.2 += usize::from(*is_last);
        }
        joined
    }

    #[test]
    fn only_data_may_be_longer_than_16_kib_and_not_longer_than_was_announced() {
        for (kind, length) in [(1, MAX_FRAME_BYTES + 1), (DATA, MAX_DATA_BYTES + 1)] {
            let (frames, fault) = read(&head(length, kind, 0, 1), 100);
            assert_eq!(frames, []);
            assert!(matches!(
                fault,
                Some(Fault::Connection(Code::FRAME_SIZE_ERROR, _))
            ));
        }
        let (_, fault) = read(&head(MAX_DATA_BYTES, DATA, 0, 0), 100);
        assert!(matches!(fault, Some(Fault::Connection(Code::PROTOCOL_ERROR, _))));
    }

    proptest! {
        #[test]
        fn a_long_frame_comes_in_pieces_of_which_only_the_last_ends_the_stream(length in MAX_FRAME_BYTES + 1..=MAX_DATA_BYTES, padding in proptest::option::of(0u8..), is_last: bool, cut in 1usize..100_000) {
            let flags = if is_last { END_STREAM } else { 0 } | if padding.is_some() { PADDED } else { 0 };
            let mut wire = head(length, DATA, flags, 1);
            wire.extend(padding);
            let padded = padding.map_or(0, |padding| usize::from(padding) + 1);
            let data: Vec<u8> = (0..length - padded).map(|at| (at % 251) as u8).collect();
            wire.extend_from_slice(&data);
            wire.resize(HEAD_BYTES + length, 0);
            let ping = [head(8, 6, 0, 0), vec![9; 8]].concat();
            wire.extend_from_slice(&ping);
            let (mut frames, fault) = read(&wire, cut);
            prop_assert!(fault.is_none());
            prop_assert_eq!(frames.pop(), Some(Frame::Ping([9; 8])));
            prop_assert!(frames.len() <= length / MAX_FRAME_BYTES + 2);
            prop_assert_eq!(join(&frames), (data, length as u32, usize::from(is_last)));
            let ends = frames.iter().position(|frame| matches!(frame, Frame::Data { is_last: true, .. }));
            prop_assert!(ends.is_none_or(|at| at == frames.len() - 1));
        }

        #[test]
        fn the_same_frames_come_out_however_the_bytes_are_cut(bytes in proptest::collection::vec(any::<u8>(), 0..200), kinds in proptest::collection::vec((0u8..11, 0u8..64, 0u32..4, 0usize..40), 0..8), cut in 1usize..30) {
            let mut wire = Vec::new();
            for (kind, flags, stream, length) in kinds {
                let payload = bytes.get(..length).unwrap_or(&bytes);
                wire.extend(head(payload.len(), kind, flags, stream));
                wire.extend_from_slice(payload);
            }
            let (expected, expected_fault) = read(&wire, wire.len().max(1));
            let (frames, fault) = read(&wire, cut);
            prop_assert_eq!(frames, expected);
            prop_assert_eq!(format!("{fault:?}"), format!("{expected_fault:?}"));
        }
    }
}
