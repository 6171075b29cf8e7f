//! A connection's socket, watched for what HTTP/2's implementation leaves unbounded: how long it takes until the
//! peer says anything, and pings and settings without end, each of which must be answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The 24 bytes with which a connection begins.
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
/// So many frames that only keep the connection busy, with nothing else between them and within [`CONTROL_TIME`],
/// close it.
const MOST_CONTROL: u32 = 1000;
const CONTROL_TIME: Duration = Duration::from_secs(10);

const NEW: u8 = 0;
const BEGUN: u8 = 1;
const FLOODED: u8 = 2;

/// How far a connection has come; shared with whoever waits for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU8>);

impl Progress {
    /// The preface and the header of the first frame are there.
    pub(super) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed) != NEW
    }

    /// It was closed because of a flood of frames that say nothing.
    pub(super) fn is_flooded(&self) -> bool {
        self.0.load(Ordering::Relaxed) == FLOODED
    }
}

/// A socket that is watched.
pub(super) struct Watched<S = TcpStream> {
    stream: S,
    frames: Frames,
    progress: Progress,
}

impl<S> Watched<S> {
    /// Watches from the first byte on.
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            frames: Frames {
                skip: PREFACE_BYTES,
                header: [0; FRAME_HEADER_BYTES],
                have: 0,
                control: 0,
                since: None,
            },
            progress: Progress::default(),
        }
    }

    /// To ask how far it has come.
    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

/// Follows the frames that come in.
#[derive(Debug)]
struct Frames {
    /// Bytes until the next frame's header.
    skip: usize,
    header: [u8; FRAME_HEADER_BYTES],
    have: usize,
    /// Frames in a row that ask for an answer and carry nothing.
    control: u32,
    since: Option<Instant>,
}

enum Seen {
    Nothing,
    Frame,
    Flood,
}

impl Frames {
    fn see(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::Nothing;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return seen;
            }
            let wanted = FRAME_HEADER_BYTES - self.have;
            let (head, rest) = bytes.split_at(wanted.min(bytes.len()));
            if let Some(place) = self.header.get_mut(self.have..self.have + head.len()) {
                place.copy_from_slice(head);
            }
            self.have += head.len();
            bytes = rest;
            if self.have < FRAME_HEADER_BYTES {
                return seen;
            }
            self.have = 0;
            seen = Seen::Frame;
            let [a, b, c, kind, flags, ..] = self.header;
            self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
            if self.is_flood(kind, flags) {
                return Seen::Flood;
            }
        }
    }

    fn is_flood(&mut self, kind: u8, flags: u8) -> bool {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const RST_STREAM: u8 = 3;
        const SETTINGS: u8 = 4;
        const PING: u8 = 6;
        const GOAWAY: u8 = 7;
        const WINDOW_UPDATE: u8 = 8;
        const CONTINUATION: u8 = 9;
        const ACK: u8 = 1;
        match kind {
            // Carry something, or are bounded by the implementation.
            DATA | HEADERS | RST_STREAM | GOAWAY | WINDOW_UPDATE | CONTINUATION => self.control = 0,
            PING | SETTINGS if flags & ACK != 0 => {}
            // Pings, settings, priorities, and what nobody knows.
            _ => {
                if self.control == 0 {
                    self.since = None;
                }
                self.control += 1;
            }
        }
        if self.control < MOST_CONTROL {
            return false;
        }
        // Only whoever sends that many is worth a look at the clock.
        let now = Instant::now();
        match self.since {
            Some(since) if now.duration_since(since) < CONTROL_TIME => true,
            _ => {
                self.since = Some(now);
                self.control = 1;
                false
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        match self.frames.see(new) {
            Seen::Frame if !self.progress.has_begun() => self.progress.0.store(BEGUN, Ordering::Relaxed),
            Seen::Frame | Seen::Nothing => {}
            Seen::Flood => {
                self.progress.0.store(FLOODED, Ordering::Relaxed);
                return Poll::Ready(Err(io::Error::other("too many pings and settings")));
            }
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 0]);
        bytes.extend(payload);
        bytes
    }

    /// What is seen when the bytes come `size` at a time.
    fn floods(bytes: &[u8], size: usize) -> bool {
        let mut frames = Watched::new(()).frames;
        bytes
            .chunks(size)
            .any(|chunk| matches!(frames.see(chunk), Seen::Flood))
    }

    #[test]
    fn pings_alone_are_a_flood_however_they_are_cut_and_pings_beside_messages_are_none() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let ping = frame(6, 0, &[0; 8]);
        let many = [preface.to_vec(), ping.repeat(3 * MOST_CONTROL as usize)].concat();
        let beside = [ping.clone(), frame(0, 0, &[1; 100])].concat();
        let beside = [preface.to_vec(), beside.repeat(3 * MOST_CONTROL as usize)].concat();
        let answers = [
            preface.to_vec(),
            frame(6, 1, &[0; 8]).repeat(3 * MOST_CONTROL as usize),
        ]
        .concat();
        for size in [1, 7, 9, 1000, 1 << 20] {
            assert!(floods(&many, size), "{size}");
            assert!(!floods(&beside, size), "{size}");
            assert!(!floods(&answers, size), "{size}");
        }
    }
}
