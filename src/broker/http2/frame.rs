//! Frames as they come off the wire and go onto it (RFC 9113, sections 4 and 6), without any state of a connection.

pub(super) mod put;
mod reader;

use bytes::{Buf as _, Bytes};

use super::fault::{Code, Fault};

pub(super) use reader::Reader;

/// What a client sends first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const HEAD_BYTES: usize = 9;
/// The largest payload of a frame that every peer takes without saying so; none that is not DATA is taken that is larger.
pub(super) const MAX_FRAME_BYTES: usize = 16 << 10;
/// The largest payload of a DATA frame that is taken. Longer ones than [`MAX_FRAME_BYTES`] are handed on in pieces, so what a connection
/// holds of a frame does not grow with this.
const MAX_DATA_BYTES: usize = 256 << 10;
/// Windows and increments have 31 bits.
pub(super) const MAX_WINDOW: u32 = (1 << 31) - 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 32;

/// A stream's dependency and weight.
const PRIORITY_BYTES: usize = 5;

const SETTINGS_HEADER_TABLE_SIZE: u16 = 1;
const SETTINGS_ENABLE_PUSH: u16 = 2;
const SETTINGS_MAX_CONCURRENT_STREAMS: u16 = 3;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
const SETTINGS_MAX_FRAME_SIZE: u16 = 5;
const SETTINGS_MAX_HEADER_LIST_SIZE: u16 = 6;

/// A frame that came in whole (of a long DATA frame: a piece), and is well-formed by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Data {
        stream: u32,
        data: Bytes,
        /// What it takes from the windows: the data and its padding.
        flow: u32,
        is_last: bool,
    },
    Headers {
        stream: u32,
        block: Bytes,
        is_last: bool,
        is_whole: bool,
    },
    Continuation {
        stream: u32,
        block: Bytes,
        is_whole: bool,
    },
    Reset {
        stream: u32,
    },
    Settings {
        /// The window of streams, where it is said. The other settings ask nothing of who pushes nothing, keeps no
        /// table, and sends no larger frames than every peer must take.
        initial_window: Option<u32>,
    },
    SettingsAck,
    Ping([u8; 8]),
    Pong([u8; 8]),
    GoAway,
    Window {
        stream: u32,
        by: u32,
    },
    /// Priorities, and what nobody knows: to be ignored.
    Other,
}

fn parse(kind: u8, flags: u8, stream: u32, mut payload: Bytes) -> Result<Frame, Fault> {
    let flow = payload.len() as u32;
    let has = |flag: u8| flags & flag != 0;
    match kind {
        DATA => {
            on_a_stream(stream, "DATA")?;
            unpad(&mut payload, has(PADDED))?;
            Ok(Frame::Data {
                stream,
                data: payload,
                flow,
                is_last: has(END_STREAM),
            })
        }
        HEADERS => {
            on_a_stream(stream, "HEADERS")?;
            unpad(&mut payload, has(PADDED))?;
            if has(WITH_PRIORITY) {
                depends(stream, &payload)?;
                payload.advance(PRIORITY_BYTES);
            }
            Ok(Frame::Headers {
                stream,
                block: payload,
                is_last: has(END_STREAM),
                is_whole: has(END_HEADERS),
            })
        }
        PRIORITY => {
            on_a_stream(stream, "PRIORITY")?;
            sized(&payload, PRIORITY_BYTES, "PRIORITY")?;
            depends(stream, &payload)?;
            Ok(Frame::Other)
        }
        RST_STREAM => {
            on_a_stream(stream, "RST_STREAM")?;
            sized(&payload, 4, "RST_STREAM")?;
            Ok(Frame::Reset { stream })
        }
        SETTINGS => settings(has(ACK), stream, &payload),
        PUSH_PROMISE => Err(Fault::connection(
            Code::PROTOCOL_ERROR,
            "a client sent PUSH_PROMISE",
        )),
        PING => {
            on_the_connection(stream, "PING")?;
            match <[u8; 8]>::try_from(payload.as_ref()) {
                Ok(bytes) if has(ACK) => Ok(Frame::Pong(bytes)),
                Ok(bytes) => Ok(Frame::Ping(bytes)),
                Err(_) => sized(&payload, 8, "PING").map(|()| Frame::Other),
            }
        }
        GOAWAY => {
            on_the_connection(stream, "GOAWAY")?;
            if payload.len() < 8 {
                sized(&payload, 8, "GOAWAY")?;
            }
            Ok(Frame::GoAway)
        }
        WINDOW_UPDATE => {
            sized(&payload, 4, "WINDOW_UPDATE")?;
            match payload.get_u32() & MAX_WINDOW {
                0 if stream == 0 => Err(Fault::connection(
                    Code::PROTOCOL_ERROR,
                    "WINDOW_UPDATE by nothing",
                )),
                0 => Err(Fault::Stream(stream, Code::PROTOCOL_ERROR)),
                by => Ok(Frame::Window { stream, by }),
            }
        }
        CONTINUATION => {
            on_a_stream(stream, "CONTINUATION")?;
            Ok(Frame::Continuation {
                stream,
                block: payload,
                is_whole: has(END_HEADERS),
            })
        }
        _ => Ok(Frame::Other),
    }
}

fn settings(is_ack: bool, stream: u32, payload: &[u8]) -> Result<Frame, Fault> {
    on_the_connection(stream, "SETTINGS")?;
    if is_ack {
        return sized(payload, 0, "an acknowledgement of SETTINGS").map(|()| Frame::SettingsAck);
    }
    if !payload.len().is_multiple_of(6) {
        return sized(payload, 0, "SETTINGS").map(|()| Frame::Other);
    }
    let mut initial_window = None;
    for mut entry in payload.chunks_exact(6) {
        let (id, value) = (entry.get_u16(), entry.get_u32());
        match id {
            SETTINGS_ENABLE_PUSH if value > 1 => {
                return Err(Fault::connection(
                    Code::PROTOCOL_ERROR,
                    "SETTINGS_ENABLE_PUSH is neither 0 nor 1",
                ));
            }
            SETTINGS_INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                return Err(Fault::connection(
                    Code::FLOW_CONTROL_ERROR,
                    "SETTINGS_INITIAL_WINDOW_SIZE has more than 31 bits",
                ));
            }
            SETTINGS_INITIAL_WINDOW_SIZE => initial_window = Some(value),
            SETTINGS_MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                return Err(Fault::connection(
                    Code::PROTOCOL_ERROR,
                    "SETTINGS_MAX_FRAME_SIZE is out of range",
                ));
            }
            _ => {}
        }
    }
    Ok(Frame::Settings { initial_window })
}

fn unpad(payload: &mut Bytes, is_padded: bool) -> Result<(), Fault> {
    if !is_padded {
        return Ok(());
    }
    let padding = payload.first().map(|&one| usize::from(one));
    match padding {
        Some(padding) if padding < payload.len() => {
            payload.advance(1);
            payload.truncate(payload.len() - padding);
            Ok(())
        }
        _ => Err(Fault::connection(
            Code::PROTOCOL_ERROR,
            "a frame has more padding than bytes",
        )),
    }
}

/// A stream may not depend on itself; other than that, priorities say nothing here.
fn depends(stream: u32, mut payload: &[u8]) -> Result<(), Fault> {
    if payload.len() < PRIORITY_BYTES {
        return Err(Fault::connection(
            Code::FRAME_SIZE_ERROR,
            "HEADERS end within their priority",
        ));
    }
    if payload.get_u32() & MAX_WINDOW == stream {
        return Err(Fault::connection(
            Code::PROTOCOL_ERROR,
            "a stream depends on itself",
        ));
    }
    Ok(())
}

fn on_a_stream(stream: u32, kind: &'static str) -> Result<(), Fault> {
    match stream {
        0 => Err(Fault::Connection(
            Code::PROTOCOL_ERROR,
            format!("{kind} on no stream"),
        )),
        _ => Ok(()),
    }
}

fn on_the_connection(stream: u32, kind: &'static str) -> Result<(), Fault> {
    match stream {
        0 => Ok(()),
        _ => Err(Fault::Connection(
            Code::PROTOCOL_ERROR,
            format!("{kind} on a stream"),
        )),
    }
}

fn sized(payload: &[u8], size: usize, kind: &'static str) -> Result<(), Fault> {
    if payload.len() == size {
        return Ok(());
    }
    Err(Fault::Connection(
        Code::FRAME_SIZE_ERROR,
        format!("{kind} has {} bytes", payload.len()),
    ))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Frame>, Fault> {
        let (mut reader, mut input) = (Reader::default(), BytesMut::from(bytes));
        std::iter::from_fn(|| reader.next(&mut input).transpose()).collect()
    }

    #[test]
    fn what_is_put_is_read_again_and_long_headers_go_on_in_further_frames() {
        let mut out = BytesMut::new();
        let block = vec![7; 2 * MAX_FRAME_BYTES + 5];
        put::headers(&mut out, 3, &block, true);
        put::data_head(&mut out, 3, 2, true);
        out.extend_from_slice(b"ab");
        put::window(&mut out, 0, 9);
        put::ping(&mut out, [1; 8], false);
        put::ping(&mut out, [2; 8], true);
        put::reset(&mut out, 5, Code::CANCEL);
        put::settings_ack(&mut out);
        let frames = all(&out).unwrap();
        let mut sizes = Vec::new();
        for frame in &frames[..3] {
            match frame {
                Frame::Headers {
                    block,
                    is_whole,
                    is_last,
                    ..
                } => sizes.push((block.len(), *is_whole, *is_last)),
                Frame::Continuation { block, is_whole, .. } => sizes.push((block.len(), *is_whole, false)),
                other => panic!("{other:?}"),
            }
        }
        let full = MAX_FRAME_BYTES;
        assert_eq!(
            sizes,
            [(full, false, true), (full, false, false), (5, true, false)]
        );
        assert_eq!(
            frames[3..],
            [
                Frame::Data {
                    stream: 3,
                    data: Bytes::from_static(b"ab"),
                    flow: 2,
                    is_last: true
                },
                Frame::Window { stream: 0, by: 9 },
                Frame::Ping([1; 8]),
                Frame::Pong([2; 8]),
                Frame::Reset { stream: 5 },
                Frame::SettingsAck,
            ]
        );
    }

    #[test]
    fn padding_takes_from_the_window_and_is_not_data() {
        let frame = [0, 0, 6, DATA, PADDED, 0, 0, 0, 1, 3, b'a', b'b', 0, 0, 0];
        assert_eq!(
            all(&frame).unwrap(),
            [Frame::Data {
                stream: 1,
                data: Bytes::from_static(b"ab"),
                flow: 6,
                is_last: false
            }]
        );
        let too_much = [0, 0, 3, DATA, PADDED, 0, 0, 0, 1, 3, 0, 0];
        assert!(matches!(
            all(&too_much),
            Err(Fault::Connection(Code::PROTOCOL_ERROR, _))
        ));
    }
}
