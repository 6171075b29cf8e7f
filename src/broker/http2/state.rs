//! One connection without its socket: what frames do to it and its streams, and what it answers.

mod flow;
mod opening;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;

use super::body::RequestBody;
use super::control::Control;
use super::fault::{Code, Fault};
use super::frame::put::{self, Asked};
use super::frame::{Frame, MAX_WINDOW};
use super::headers::HeaderReader;
use super::pieces::Pieces;
use super::ready::Ready;
use super::stream::{MOST_OUTPUT_BYTES, Stream, Went, Wire};
use super::window::{DEFAULT_WINDOW, Receiving, Sending};

/// Whoever serves streams always reads them, so windows only have to cover the round trip.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 2 << 20;
const MAX_HEADER_LIST_BYTES: u32 = 16 << 10;
/// Streams that the client opened and reset at once: more than these close the connection ("rapid reset").
const MAX_UNSEEN_RESETS: usize = 20;
/// Streams that were reset here for the client's faults: more than these close the connection.
const MAX_FAULTS: usize = 256;
/// The ping that is answered when the client has read that the connection ends.
const FAREWELL: [u8; 8] = *b"farewell";

/// Serves what comes in.
pub(in crate::broker) trait Dispatch {
    /// Answers one request. What it returns is dropped when the client resets the stream.
    fn call(&self, request: Request<RequestBody>) -> BoxFuture<'static, Response<Body>>;

    /// A request had more headers than it may.
    fn headers_refused(&self);
}

/// A header block that is not whole yet.
struct Partial {
    stream: u32,
    block: BytesMut,
    is_last: bool,
}

/// Whether the connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    No,
    /// The client was told that it ends, and may have opened streams before it read that.
    Announced,
    /// It has read it: no streams come any more.
    Known,
}

/// The two sides' state.
pub(super) struct State<D> {
    pub output: Pieces,
    /// The peer's SETTINGS have come.
    pub has_begun: bool,
    dispatch: Arc<D>,
    max_streams: usize,
    streams: BTreeMap<u32, Box<Stream>>,
    ready: Arc<Ready>,
    /// The streams that are run now.
    woken: Vec<u32>,
    reader: HeaderReader,
    partial: Option<Partial>,
    /// The highest stream that was opened.
    last: u32,
    window: Receiving,
    sending: Sending,
    /// The window that the peer gives new streams.
    peer_window: u32,
    /// Streams that ended here first: what the client had sent by then is to be ignored.
    ended: VecDeque<u32>,
    /// Streams that wait until something was written.
    stalled: VecDeque<u32>,
    unseen_resets: usize,
    faults: usize,
    control: Control,
    going: Going,
    peer_goes: bool,
}

impl<D: Dispatch> State<D> {
    /// A connection that begins; its output begins with this side's SETTINGS.
    pub(super) fn new(dispatch: Arc<D>, max_streams: u32) -> Self {
        let mut output = Pieces::default();
        let asked = Asked {
            max_streams,
            stream_window: STREAM_WINDOW,
            max_header_list_bytes: MAX_HEADER_LIST_BYTES,
        };
        output.put(|out| {
            put::settings(out, &asked);
            put::window(out, 0, CONNECTION_WINDOW - DEFAULT_WINDOW);
        });
        Self {
            output,
            has_begun: false,
            dispatch,
            max_streams: max_streams as usize,
            streams: BTreeMap::new(),
            ready: Arc::default(),
            woken: Vec::new(),
            reader: HeaderReader::default(),
            partial: None,
            last: 0,
            window: Receiving::new(CONNECTION_WINDOW),
            sending: Sending::new(DEFAULT_WINDOW),
            peer_window: DEFAULT_WINDOW,
            ended: VecDeque::new(),
            stalled: VecDeque::new(),
            unseen_resets: 0,
            faults: 0,
            control: Control::default(),
            going: Going::No,
            peer_goes: false,
        }
    }

    /// What wakes the connection for its streams.
    pub(super) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The last stream that was looked at.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    /// The window that is left to the client with what it was not told of, and the streams that are open.
    #[cfg(test)]
    pub(super) fn left(&self) -> ((u32, u32), usize) {
        (self.window.left(), self.streams.len())
    }

    /// Nothing is left to be done, and nothing will come.
    pub(super) fn is_over(&self) -> bool {
        (self.peer_goes || self.going == Going::Known) && self.streams.is_empty() && self.output.len() == 0
    }

    /// Begins to end: streams that are open go on.
    pub(super) fn shut_down(&mut self) {
        if self.going == Going::No {
            self.going = Going::Announced;
            self.output.put(|out| {
                put::go_away(out, MAX_WINDOW, Code::NO_ERROR, "");
                put::ping(out, FAREWELL, false);
            });
        }
    }

    /// Asks whether the peer is there.
    pub(super) fn ping(&mut self) {
        self.output.put(|out| put::ping(out, [0; 8], false));
    }

    /// Does what a frame asks for.
    ///
    /// # Errors
    /// The connection is to end.
    pub(super) fn see(&mut self, frame: Frame) -> Result<(), Fault> {
        if !self.has_begun && !matches!(frame, Frame::Settings { .. }) {
            return Err(Fault::connection(
                Code::PROTOCOL_ERROR,
                "the first frame is not SETTINGS",
            ));
        }
        if self.partial.is_some() && !matches!(frame, Frame::Continuation { .. }) {
            return Err(Fault::connection(
                Code::PROTOCOL_ERROR,
                "another frame came before the headers were whole",
            ));
        }
        self.control.count(&frame)?;
        match frame {
            Frame::Data {
                stream,
                data,
                flow,
                is_last,
            } => self.data(stream, data, flow, is_last),
            Frame::Headers {
                stream,
                block,
                is_last,
                is_whole: true,
            } => self.headers(stream, &block, is_last),
            Frame::Headers {
                stream,
                block,
                is_last,
                is_whole: false,
            } => {
                self.partial = Some(Partial {
                    stream,
                    block: BytesMut::from(block),
                    is_last,
                });
                Ok(())
            }
            Frame::Continuation {
                stream,
                block,
                is_whole,
            } => self.go_on(stream, &block, is_whole),
            Frame::Reset { stream } => self.reset(stream),
            Frame::Settings { initial_window } => {
                self.has_begun = true;
                self.output.put(put::settings_ack);
                initial_window.map_or(Ok(()), |size| self.resize(size))
            }
            Frame::SettingsAck => {
                self.reader.forget();
                Ok(())
            }
            Frame::Ping(payload) => {
                self.output.put(|out| put::ping(out, payload, true));
                Ok(())
            }
            Frame::Pong(FAREWELL) if self.going == Going::Announced => {
                self.going = Going::Known;
                let last = self.last;
                self.output.put(|out| put::go_away(out, last, Code::NO_ERROR, ""));
                Ok(())
            }
            Frame::GoAway => {
                self.peer_goes = true;
                Ok(())
            }
            Frame::Window { stream, by } => self.grow(stream, by),
            Frame::Pong(_) | Frame::Other => Ok(()),
        }
    }

    /// Runs the streams that were woken.
    pub(super) fn run(&mut self) {
        self.unseen_resets = 0;
        let mut woken = std::mem::take(&mut self.woken);
        self.ready.take(&mut woken);
        for &id in &woken {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let went = stream.run(&mut Wire {
                output: &mut self.output,
                window: &mut self.sending,
            });
            let read = stream.mailbox.finish();
            stream.held = stream.held.saturating_sub(read);
            match went {
                Went::On => self.give_back(id, read),
                Went::Stalled => {
                    // Once, however often it is woken meanwhile.
                    if !std::mem::replace(&mut stream.is_stalled, true) {
                        self.stalled.push_back(id);
                    }
                    self.give_back(id, read);
                }
                Went::Done | Went::Failed => {
                    let farewell = stream.farewell(went);
                    self.give_back(id, read);
                    if let Some(code) = farewell {
                        self.end(id, code);
                    } else {
                        self.remove(id);
                    }
                }
            }
        }
        self.woken = woken;
    }

    /// Wakes the streams that waited until something was written.
    pub(super) fn written(&mut self) {
        if self.output.len() >= MOST_OUTPUT_BYTES {
            return;
        }
        for id in std::mem::take(&mut self.stalled) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.is_stalled = false;
                stream.mailbox.waking().wake();
            }
        }
    }

    /// Streams that the client opened after it was told that none are taken any more.
    fn is_ignored(&self, stream: u32) -> bool {
        self.going == Going::Known && stream > self.last
    }

    /// A stream that is not open must have been.
    fn was_opened(&self, stream: u32) -> Result<(), Fault> {
        if stream <= self.last || self.is_ignored(stream) {
            return Ok(());
        }
        Err(Fault::connection(
            Code::PROTOCOL_ERROR,
            "a frame on a stream that was never opened",
        ))
    }

    /// A stream that is not open: nothing to do where the client may not know, else a fault.
    fn closed(&self, stream: u32) -> Result<(), Fault> {
        if self.ended.contains(&stream) || self.is_ignored(stream) {
            return Ok(());
        }
        self.was_opened(stream)?;
        Err(Fault::Stream(stream, Code::STREAM_CLOSED))
    }

    fn reset(&mut self, id: u32) -> Result<(), Fault> {
        let Some(stream) = self.streams.get(&id) else {
            return self.was_opened(id);
        };
        if !stream.was_run {
            self.unseen_resets += 1;
        }
        self.remove(id);
        if self.unseen_resets > MAX_UNSEEN_RESETS {
            return Err(Fault::connection(
                Code::ENHANCE_YOUR_CALM,
                "streams are reset as soon as they are opened",
            ));
        }
        Ok(())
    }

    /// Resets a stream for the client's fault, and ends the connection where that is its habit.
    ///
    /// # Errors
    /// The connection is to end.
    pub(super) fn fail(&mut self, fault: Fault) -> Result<(), Fault> {
        let Fault::Stream(id, code) = fault else {
            return Err(fault);
        };
        self.faults += 1;
        if self.faults > MAX_FAULTS {
            return Err(Fault::connection(
                Code::ENHANCE_YOUR_CALM,
                "too many streams were at fault",
            ));
        }
        self.end(id, code);
        Ok(())
    }

    /// Ends a stream from this side.
    fn end(&mut self, id: u32, code: Code) {
        self.output.put(|out| put::reset(out, id, code));
        self.remove(id);
        if self.ended.len() >= self.max_streams {
            self.ended.pop_front();
        }
        self.ended.push_back(id);
    }

    /// Frees all that a stream held, at once.
    fn remove(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        stream.mailbox.cancel();
        let held = stream.held;
        drop(stream);
        self.give_back(0, held);
    }
}

impl<D> State<D> {
    /// Frees all streams. What reads a body in a task of its own is told that nothing comes any more.
    pub(super) fn abandon(&mut self) {
        for stream in std::mem::take(&mut self.streams).into_values() {
            stream.mailbox.cancel();
        }
    }
}

impl<D> Drop for State<D> {
    fn drop(&mut self) {
        self.abandon();
    }
}
