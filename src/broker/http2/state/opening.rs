//! Headers: what opens a stream, and what ends a request.

use std::sync::Arc;

use bytes::BytesMut;
use http::{HeaderMap, Request, StatusCode};

use super::{Dispatch, Going, MAX_HEADER_LIST_BYTES, STREAM_WINDOW, State};
use crate::broker::http2::body::{Mailbox, RequestBody};
use crate::broker::http2::fault::{Code, Fault};
use crate::broker::http2::frame::put;
use crate::broker::http2::headers::{self, Block, Head};
use crate::broker::http2::ready::Waking;
use crate::broker::http2::stream::Stream;
use crate::broker::http2::window::{Receiving, Sending};

/// As they come, in one frame and those that go on.
const MAX_HEADER_BLOCK_BYTES: usize = 32 << 10;

impl<D: Dispatch> State<D> {
    pub(super) fn go_on(&mut self, id: u32, block: &[u8], is_whole: bool) -> Result<(), Fault> {
        let Some(mut partial) = self.partial.take().filter(|partial| partial.stream == id) else {
            return Err(Fault::connection(
                Code::PROTOCOL_ERROR,
                "CONTINUATION of no headers",
            ));
        };
        partial.block.extend_from_slice(block);
        if partial.block.len() > MAX_HEADER_BLOCK_BYTES {
            return Err(Fault::connection(Code::ENHANCE_YOUR_CALM, "headers without end"));
        }
        if is_whole {
            return self.headers(id, &partial.block, partial.is_last);
        }
        self.partial = Some(partial);
        Ok(())
    }

    pub(super) fn headers(&mut self, id: u32, block: &[u8], is_last: bool) -> Result<(), Fault> {
        let most = MAX_HEADER_LIST_BYTES as usize;
        if id <= self.last {
            // They are read in any case: the peer's table goes on.
            let is_fine = self.reader.trailers(block, most)?;
            let Some(stream) = self.streams.get_mut(&id) else {
                return self.closed(id).map_err(|_| {
                    Fault::connection(Code::STREAM_CLOSED, "HEADERS on a stream that is closed")
                });
            };
            let is_short = stream.left.is_some_and(|left| left > 0);
            if stream.is_received {
                return self.fail(Fault::Stream(id, Code::STREAM_CLOSED));
            }
            if !is_last || !is_fine || is_short {
                return self.fail(Fault::Stream(id, Code::PROTOCOL_ERROR));
            }
            stream.is_received = true;
            stream.mailbox.end();
            return Ok(());
        }
        if id.is_multiple_of(2) {
            return Err(Fault::connection(
                Code::PROTOCOL_ERROR,
                "a client's stream has an even number",
            ));
        }
        let read = self.reader.request(block, most)?;
        if self.going == Going::Known {
            return Ok(());
        }
        self.last = id;
        if self.streams.len() >= self.max_streams {
            self.end(id, Code::REFUSED_STREAM);
            return Ok(());
        }
        match read {
            Block::Request(head) => self.open(id, *head, is_last),
            Block::Malformed => self.fail(Fault::Stream(id, Code::PROTOCOL_ERROR)),
            Block::TooLarge => {
                self.dispatch.headers_refused();
                let mut block = BytesMut::new();
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                headers::put_head(&mut block, status, &HeaderMap::new());
                self.output.put(|out| put::headers(out, id, &block, true));
                if !is_last {
                    self.end(id, Code::NO_ERROR);
                }
                Ok(())
            }
        }
    }

    fn open(&mut self, id: u32, head: Head, is_last: bool) -> Result<(), Fault> {
        if is_last && head.content_length.is_some_and(|length| length > 0) {
            return self.fail(Fault::Stream(id, Code::PROTOCOL_ERROR));
        }
        let mailbox = Mailbox::new(Waking::new(id, &self.ready));
        let mut request = Request::new(RequestBody::new(Arc::clone(&mailbox)));
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = head.headers;
        if is_last {
            mailbox.end();
        }
        let call = self.dispatch.call(request);
        let windows = (Receiving::new(STREAM_WINDOW), Sending::new(self.peer_window));
        let mut stream = Stream::new(id, mailbox, windows, call);
        stream.left = head.content_length;
        stream.is_received = is_last;
        stream.mailbox.waking().wake();
        self.streams.insert(id, Box::new(stream));
        Ok(())
    }
}
