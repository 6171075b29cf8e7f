//! Frames that go onto the wire.

use bytes::{BufMut, BytesMut};

use super::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEAD_BYTES, HEADERS, MAX_DATA_BYTES,
    MAX_FRAME_BYTES, PING, RST_STREAM, SETTINGS, SETTINGS_HEADER_TABLE_SIZE, SETTINGS_INITIAL_WINDOW_SIZE,
    SETTINGS_MAX_CONCURRENT_STREAMS, SETTINGS_MAX_FRAME_SIZE, SETTINGS_MAX_HEADER_LIST_SIZE, WINDOW_UPDATE,
};
use crate::broker::http2::fault::Code;

fn head(out: &mut BytesMut, length: usize, kind: u8, flags: u8, stream: u32) {
    out.reserve(HEAD_BYTES + length.min(64));
    out.put_uint(length as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
}

/// The head of a DATA frame of `length` bytes.
pub(in crate::broker::http2) fn data_head(out: &mut BytesMut, stream: u32, length: usize, is_last: bool) {
    head(out, length, DATA, if is_last { END_STREAM } else { 0 }, stream);
}

/// A header block, in as many frames as it takes.
pub(in crate::broker::http2) fn headers(out: &mut BytesMut, stream: u32, block: &[u8], is_last: bool) {
    let mut kind = HEADERS;
    let mut flags = if is_last { END_STREAM } else { 0 };
    let mut rest = block;
    loop {
        let (piece, left) = rest.split_at(rest.len().min(MAX_FRAME_BYTES));
        rest = left;
        if rest.is_empty() {
            flags |= END_HEADERS;
        }
        head(out, piece.len(), kind, flags, stream);
        out.extend_from_slice(piece);
        if rest.is_empty() {
            return;
        }
        (kind, flags) = (CONTINUATION, 0);
    }
}

/// RST_STREAM.
pub(in crate::broker::http2) fn reset(out: &mut BytesMut, stream: u32, code: Code) {
    head(out, 4, RST_STREAM, 0, stream);
    out.put_u32(code.0);
}

/// WINDOW_UPDATE of a stream, or with stream 0 of the connection.
pub(in crate::broker::http2) fn window(out: &mut BytesMut, stream: u32, by: u32) {
    head(out, 4, WINDOW_UPDATE, 0, stream);
    out.put_u32(by);
}

/// PING, or the answer to one.
pub(in crate::broker::http2) fn ping(out: &mut BytesMut, payload: [u8; 8], is_answer: bool) {
    head(out, 8, PING, if is_answer { ACK } else { 0 }, 0);
    out.extend_from_slice(&payload);
}

/// The acknowledgement of the peer's SETTINGS.
pub(in crate::broker::http2) fn settings_ack(out: &mut BytesMut) {
    head(out, 0, SETTINGS, ACK, 0);
}

/// GOAWAY: streams above `last` were not looked at.
pub(in crate::broker::http2) fn go_away(out: &mut BytesMut, last: u32, code: Code, text: &str) {
    head(out, 8 + text.len(), GOAWAY, 0, 0);
    out.put_u32(last);
    out.put_u32(code.0);
    out.extend_from_slice(text.as_bytes());
}

/// What this side asks for.
pub(in crate::broker::http2) struct Asked {
    pub max_streams: u32,
    pub stream_window: u32,
    pub max_header_list_bytes: u32,
}

/// This side's SETTINGS. Clients are to keep no headers in mind between calls.
pub(in crate::broker::http2) fn settings(out: &mut BytesMut, asked: &Asked) {
    let entries = [
        (SETTINGS_HEADER_TABLE_SIZE, 0),
        (SETTINGS_MAX_CONCURRENT_STREAMS, asked.max_streams),
        (SETTINGS_INITIAL_WINDOW_SIZE, asked.stream_window),
        (SETTINGS_MAX_FRAME_SIZE, MAX_DATA_BYTES as u32),
        (SETTINGS_MAX_HEADER_LIST_SIZE, asked.max_header_list_bytes),
    ];
    head(out, 6 * entries.len(), SETTINGS, 0, 0);
    for (id, value) in entries {
        out.put_u16(id);
        out.put_u32(value);
    }
}
