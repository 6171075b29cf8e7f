//! Data that comes in, and what either side may send.

use bytes::Bytes;

use super::{Dispatch, State};
use crate::broker::http2::fault::{Code, Fault};
use crate::broker::http2::frame::put;

impl<D: Dispatch> State<D> {
    pub(super) fn data(&mut self, id: u32, data: Bytes, flow: u32, is_last: bool) -> Result<(), Fault> {
        if !self.window.take(flow) {
            return Err(Fault::connection(
                Code::FLOW_CONTROL_ERROR,
                "more data than the connection's window",
            ));
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            self.give_back(0, flow);
            return self.closed(id).or_else(|fault| self.fail(fault));
        };
        let size = data.len() as u64;
        let left = stream.left.map(|left| left.checked_sub(size));
        let code = if stream.is_received {
            Some(Code::STREAM_CLOSED)
        } else if !stream.window.take(flow) {
            Some(Code::FLOW_CONTROL_ERROR)
        } else if left == Some(None) || (is_last && left.flatten().is_some_and(|left| left > 0)) {
            Some(Code::PROTOCOL_ERROR)
        } else {
            None
        };
        if let Some(code) = code {
            self.give_back(0, flow);
            return self.fail(Fault::Stream(id, code));
        }
        stream.left = left.flatten();
        let padding = flow - size as u32;
        stream.held += size as u32;
        let unread = if data.is_empty() {
            0
        } else {
            stream.mailbox.push(data)
        };
        stream.held -= unread;
        if is_last {
            stream.is_received = true;
            stream.mailbox.end();
        }
        self.give_back(id, padding + unread);
        Ok(())
    }

    /// Lets the peer send as much again as was used.
    pub(super) fn give_back(&mut self, id: u32, bytes: u32) {
        if bytes == 0 {
            return;
        }
        if let Some(by) = self.window.give_back(bytes) {
            self.output.put(|out| put::window(out, 0, by));
        }
        if let Some(stream) = self.streams.get_mut(&id)
            && let Some(by) = stream.window.give_back(bytes)
            && !stream.is_received
        {
            self.output.put(|out| put::window(out, id, by));
        }
    }

    pub(super) fn grow(&mut self, id: u32, by: u32) -> Result<(), Fault> {
        if id == 0 {
            let could_send = self.sending.left() > 0;
            if !self.sending.grow(i64::from(by)) {
                return Err(Fault::connection(
                    Code::FLOW_CONTROL_ERROR,
                    "the connection's window has more than 31 bits",
                ));
            }
            if !could_send {
                self.wake_waiting();
            }
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            // It may have been sent before the client knew that the stream is over.
            return self.was_opened(id);
        };
        if !stream.sending.grow(i64::from(by)) {
            return self.fail(Fault::Stream(id, Code::FLOW_CONTROL_ERROR));
        }
        if stream.waits_for_window() {
            stream.mailbox.waking().wake();
        }
        Ok(())
    }

    /// The peer gives streams another window, those that are open too.
    pub(super) fn resize(&mut self, size: u32) -> Result<(), Fault> {
        let by = i64::from(size) - i64::from(self.peer_window);
        self.peer_window = size;
        for stream in self.streams.values_mut() {
            if !stream.sending.grow(by) {
                return Err(Fault::connection(
                    Code::FLOW_CONTROL_ERROR,
                    "a stream's window has more than 31 bits",
                ));
            }
        }
        self.wake_waiting();
        Ok(())
    }

    fn wake_waiting(&self) {
        for stream in self.streams.values().filter(|stream| stream.waits_for_window()) {
            stream.mailbox.waking().wake();
        }
    }
}
