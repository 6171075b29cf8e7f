//! One connection with its socket: reads, runs the streams, writes, and minds the clock.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::fault::{Code, Fault};
use super::frame::{PREFACE, Reader, put};
use super::state::{Dispatch, State};
use super::stream::MOST_OUTPUT_BYTES;

/// Bytes that are read at a time: as few as this where little comes, twice as many each time that a read is full.
const READ_BYTES: usize = 4 << 10;
const MOST_READ_BYTES: usize = 64 << 10;
/// Nothing more is read while answers to frames (not to requests) fill so much more than a connection may hold.
const MOST_UNSENT_BYTES: usize = 2 * MOST_OUTPUT_BYTES;
/// Rounds of reading, running and writing until others have their turn.
const ROUNDS: usize = 4;
/// How long a client may take to read the last that it was told, and to close its side.
const LINGER: Duration = Duration::from_secs(1);

/// How long a peer may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until HTTP/2's preface and first frame have come.
    pub handshake: Duration,
    /// Until it is pinged.
    pub keepalive_interval: Duration,
    /// Until it has answered a ping, and taken what was sent to it.
    pub keepalive_timeout: Duration,
}

/// Why a connection ended.
#[derive(Debug)]
pub(in crate::broker) enum Ended {
    /// Either side was done with it.
    Closed,
    /// It did not begin in time.
    NotBegun,
    /// A ping was not answered.
    Silent,
    /// Frames that carry nothing, without end.
    Flooded,
    /// Streams reset as soon as they were opened, or at fault one after the other.
    Calmed(String),
    /// The peer does not keep to HTTP/2.
    Protocol(String),
    /// It broke.
    Broken(io::Error),
}

/// What the timer is for.
#[derive(Debug, Clone, Copy)]
enum Waits {
    Handshake,
    Quiet,
    Pong { since: Instant },
    Linger,
}

/// One connection; resolves when it has ended.
pub(in crate::broker) struct Connection<S, D> {
    socket: S,
    state: State<D>,
    input: BytesMut,
    reader: Reader,
    read_bytes: usize,
    has_preface: bool,
    patience: Patience,
    timer: Pin<Box<Sleep>>,
    waits: Waits,
    last_read: Instant,
    /// Why it ends, while the peer reads that.
    ending: Option<Ended>,
}

impl<S, D> Connection<S, D>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dispatch,
{
    /// Serves `socket`, with at most so many streams at once.
    pub(in crate::broker) fn new(socket: S, dispatch: Arc<D>, max_streams: u32, patience: Patience) -> Self {
        Self {
            socket,
            state: State::new(dispatch, max_streams),
            input: BytesMut::new(),
            reader: Reader::default(),
            read_bytes: READ_BYTES,
            has_preface: false,
            patience,
            timer: Box::pin(tokio::time::sleep(patience.handshake)),
            waits: Waits::Handshake,
            last_read: Instant::now(),
            ending: None,
        }
    }

    /// The same with its socket changed by `change`, and its timer in the present runtime.
    pub(in crate::broker) fn moved(mut self, change: impl FnOnce(S) -> io::Result<S>) -> io::Result<Self> {
        self.socket = change(self.socket)?;
        self.timer.set(tokio::time::sleep_until(self.timer.deadline()));
        Ok(self)
    }

    /// Takes no new streams, and ends when those that are open have ended.
    pub(in crate::broker) fn shut_down(&mut self) {
        self.state.shut_down();
    }

    /// The window that is left to the client with what it was not told of, and the streams that are open.
    #[cfg(test)]
    pub(super) fn left(&self) -> ((u32, u32), usize) {
        self.state.left()
    }

    fn on_time(&mut self, context: &mut Context<'_>) -> Result<(), Ended> {
        while self.timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let next = match self.waits {
                Waits::Linger => return Err(Ended::Closed),
                Waits::Handshake if !self.state.has_begun => return Err(Ended::NotBegun),
                Waits::Pong { since } if self.last_read < since => return Err(Ended::Silent),
                _ if now - self.last_read >= self.patience.keepalive_interval => {
                    self.state.ping();
                    self.waits = Waits::Pong { since: now };
                    now + self.patience.keepalive_timeout
                }
                _ => {
                    self.waits = Waits::Quiet;
                    self.last_read + self.patience.keepalive_interval
                }
            };
            self.timer.as_mut().reset(next);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.state.output.len() >= MOST_UNSENT_BYTES
    }

    /// Reads once, and does what came.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if self.is_full() {
            return Poll::Pending;
        }
        let missing = self.reader.missing(&self.input);
        self.input.reserve(missing.max(self.read_bytes));
        let room = self.input.capacity() - self.input.len();
        let Poll::Ready(read) = poll_read_buf(Pin::new(&mut self.socket), context, &mut self.input) else {
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
            return Poll::Pending;
        };
        let count = read.map_err(Ended::Broken)?;
        if count == 0 {
            return Poll::Ready(Err(Ended::Closed));
        }
        self.read_bytes = if count == room {
            (2 * self.read_bytes).min(MOST_READ_BYTES)
        } else {
            (self.read_bytes / 2)
                .max(count.next_power_of_two())
                .clamp(READ_BYTES, MOST_READ_BYTES)
        };
        self.last_read = Instant::now();
        Poll::Ready(self.frames().map_err(|fault| self.fault(fault)))
    }

    fn frames(&mut self) -> Result<(), Fault> {
        if !self.has_preface {
            let have = self.input.len().min(PREFACE.len());
            if self.input.get(..have) != PREFACE.get(..have) {
                return Err(Fault::connection(
                    Code::PROTOCOL_ERROR,
                    "the connection does not begin as HTTP/2 does",
                ));
            }
            if have < PREFACE.len() {
                return Ok(());
            }
            self.input.advance(have);
            self.has_preface = true;
        }
        loop {
            match self.reader.next(&mut self.input) {
                Ok(Some(frame)) => self.state.see(frame)?,
                Ok(None) => return Ok(()),
                Err(fault) => self.state.fail(fault)?,
            }
        }
    }

    /// Tells the peer, and says why the connection ends.
    fn fault(&mut self, fault: Fault) -> Ended {
        let has_begun = self.state.has_begun;
        let (code, text, ended) = match fault {
            Fault::Flood => {
                let text = "too many pings, settings and empty frames".to_owned();
                (Code::ENHANCE_YOUR_CALM, text, Ended::Flooded)
            }
            Fault::Connection(code @ Code::ENHANCE_YOUR_CALM, text) => {
                (code, text.clone(), Ended::Calmed(text))
            }
            Fault::Connection(code, text) if has_begun => (code, text.clone(), Ended::Protocol(text)),
            Fault::Connection(code, text) => (code, text, Ended::NotBegun),
            Fault::Stream(_, code) => {
                let text = "a stream was at fault".to_owned();
                (code, text.clone(), Ended::Protocol(text))
            }
        };
        let last = self.state.last();
        self.state.output.put(|out| put::go_away(out, last, code, &text));
        ended
    }

    fn write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        while self.state.output.len() > 0 {
            let wrote = poll_write_buf(Pin::new(&mut self.socket), context, &mut self.state.output);
            match std::task::ready!(wrote) {
                Ok(0) => return Poll::Ready(Err(Ended::Closed)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(Ended::Broken(error))),
            }
        }
        self.state.output.rest();
        Poll::Ready(Ok(()))
    }

    /// One round. Ready where there may be more to do.
    fn round(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        self.on_time(context)?;
        if self.ending.is_some() {
            return self.end(context);
        }
        let was_full = self.is_full();
        let read = match self.read(context) {
            Poll::Ready(Err(ended @ (Ended::Closed | Ended::Broken(_)))) => return Poll::Ready(Err(ended)),
            Poll::Ready(Err(ended)) => {
                self.state.abandon();
                self.linger(ended);
                return Poll::Ready(Ok(()));
            }
            read => read.is_ready(),
        };
        self.state.run();
        // Pending or not: what is left wakes the connection when it can go.
        let _: Poll<()> = self.write(context)?;
        self.state.written();
        if self.state.is_over() {
            self.linger(Ended::Closed);
            return Poll::Ready(Ok(()));
        }
        let may_read_again = was_full && !self.is_full();
        if !read && !may_read_again && self.state.ready().sleep(context) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// From now on only what was said is written, and what comes is not looked at.
    fn linger(&mut self, ended: Ended) {
        self.ending = Some(ended);
        self.waits = Waits::Linger;
        self.timer.as_mut().reset(Instant::now() + LINGER);
    }

    /// Writes what is left, and reads what the peer had sent: a socket that is closed before loses the last words.
    fn end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        std::task::ready!(self.write(context))?;
        std::task::ready!(Pin::new(&mut self.socket).poll_shutdown(context)).map_err(Ended::Broken)?;
        self.input.clear();
        self.input.reserve(READ_BYTES);
        let read = poll_read_buf(Pin::new(&mut self.socket), context, &mut self.input);
        match std::task::ready!(read) {
            Ok(0) | Err(_) => Poll::Ready(Err(Ended::Closed)),
            Ok(_) => Poll::Ready(Ok(())),
        }
    }
}

impl<S, D> Future for Connection<S, D>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dispatch,
{
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let this = &mut *self;
        this.state.ready().awake();
        for _ in 0..ROUNDS {
            match this.round(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                // Why it ends was known before.
                Poll::Ready(Err(ended)) => return Poll::Ready(this.ending.take().unwrap_or(ended)),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
