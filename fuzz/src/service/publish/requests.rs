//! The requests of a stream, as they come off the wire.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame};
use parking_lot::Mutex;
use prost::Message as _;
use tonic::codec::Codec as _;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::pb;
use crate::pb::publish_request::Request;

/// The client's end.
#[derive(Clone, Default)]
pub(super) struct Requests(Arc<Mutex<Wire>>);

#[derive(Default)]
struct Wire {
    frames: VecDeque<Bytes>,
    end: Option<Result<(), Status>>,
    waker: Option<Waker>,
}

impl Requests {
    /// The broker's end.
    pub(super) fn streaming(&self) -> Streaming<pb::PublishRequest> {
        let decoder = ProstCodec::<pb::PublishResponse, pb::PublishRequest>::default().decoder();
        Streaming::new_request(decoder, Incoming(Arc::clone(&self.0)), None, None)
    }

    /// Sends one.
    pub(super) fn send(&self, request: Option<Request>) {
        let request = pb::PublishRequest { request };
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(request.encoded_len() as u32);
        frame.put(&request.encode_to_vec()[..]);
        let mut wire = self.0.lock();
        wire.frames.push_back(frame.freeze());
        wire.wake();
    }

    /// Half-closes the stream, or resets it.
    pub(super) fn end(&self, end: Result<(), Status>) {
        let mut wire = self.0.lock();
        if end.is_err() {
            wire.frames.clear();
        }
        wire.end.get_or_insert(end);
        wire.wake();
    }

    /// Whether nothing more can be sent.
    pub(super) fn is_ended(&self) -> bool {
        self.0.lock().end.is_some()
    }
}

impl Wire {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

struct Incoming(Arc<Mutex<Wire>>);

impl Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut wire = self.0.lock();
        if let Some(frame) = wire.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        match wire.end.clone() {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(status)) => Poll::Ready(Some(Err(status))),
            None => {
                wire.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
