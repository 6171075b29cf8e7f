//! One stream: a request that comes in and an answer that goes out, run by its connection's task.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::Response;
use http_body::Body as _;
use parking_lot::Mutex;
use tonic::body::Body;

use super::body::{AnswerWaker, Mailbox};
use super::fault::Code;
use super::frame::{MAX_FRAME_BYTES, put};
use super::headers;
use super::pieces::Pieces;
use super::window::{Receiving, Sending};

/// A connection that has so much to write takes no more of its streams' answers until that is gone.
pub(super) const MOST_OUTPUT_BYTES: usize = 64 << 10;

/// What runs for as long as an answer is sent, whether the client reads that or not: put it among the answer's
/// extensions. It is dropped as soon as the stream is gone.
#[derive(Clone)]
pub(in crate::broker) struct Beside(Arc<Mutex<Option<BoxFuture<'static, ()>>>>);

impl Beside {
    /// Runs `future`.
    pub(in crate::broker) fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::pin(future)))))
    }

    /// What is to run; once.
    pub(in crate::broker) fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.0.lock().take()
    }
}

/// A stream that is open.
pub(super) struct Stream {
    pub mailbox: Arc<Mailbox>,
    /// What the client may still send.
    pub window: Receiving,
    /// What it may still be sent.
    pub sending: Sending,
    /// Bytes that came and were not read.
    pub held: u32,
    /// Bytes of the body that are still to come, where that was said.
    pub left: Option<u64>,
    /// The client has sent all.
    pub is_received: bool,
    /// It was looked at since it was opened.
    pub was_run: bool,
    /// It waits until something was written.
    pub is_stalled: bool,
    id: u32,
    waker: Waker,
    answer_waker: Waker,
    answer: Answer,
    /// Data that waits for a window.
    unsent: Bytes,
}

enum Answer {
    Awaited(BoxFuture<'static, Response<Body>>),
    Begun {
        body: Body,
        beside: Option<BoxFuture<'static, ()>>,
    },
}

/// Where answers are written.
pub(super) struct Wire<'a> {
    pub output: &'a mut Pieces,
    /// The connection's window.
    pub window: &'a mut Sending,
}

/// How a stream is after it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// It waits to be woken.
    On,
    /// It has more to send than the connection takes now.
    Stalled,
    /// All is sent.
    Done,
    /// It cannot be answered any further.
    Failed,
}

impl Stream {
    /// A request whose answer is `call`.
    pub(super) fn new(
        id: u32,
        mailbox: Arc<Mailbox>,
        windows: (Receiving, Sending),
        call: BoxFuture<'static, Response<Body>>,
    ) -> Self {
        Self {
            waker: Waker::from(Arc::clone(&mailbox)),
            answer_waker: Waker::from(Arc::new(AnswerWaker(Arc::clone(&mailbox)))),
            mailbox,
            window: windows.0,
            sending: windows.1,
            held: 0,
            left: None,
            is_received: false,
            was_run: false,
            is_stalled: false,
            id,
            answer: Answer::Awaited(call),
            unsent: Bytes::new(),
        }
    }

    /// Whether a larger window would let it send.
    pub(super) fn waits_for_window(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Runs what serves it, and sends what that answers.
    pub(super) fn run(&mut self, wire: &mut Wire<'_>) -> Went {
        self.was_run = true;
        self.mailbox.begin();
        let waker = self.waker.clone();
        let mut context = Context::from_waker(&waker);
        // A fault in what serves one stream is not to end the others'.
        let went = catch_unwind(AssertUnwindSafe(|| self.advance(&mut context, wire)));
        went.unwrap_or(Went::Failed)
    }

    fn advance(&mut self, context: &mut Context<'_>, wire: &mut Wire<'_>) -> Went {
        if let Answer::Awaited(call) = &mut self.answer {
            let Poll::Ready(response) = call.as_mut().poll(context) else {
                return Went::On;
            };
            if self.begin(response, wire) {
                return Went::Done;
            }
        }
        let Answer::Begun { body, beside } = &mut self.answer else {
            return Went::On;
        };
        if let Some(future) = beside
            && self
                .mailbox
                .run_beside(|| future.as_mut().poll(context))
                .is_ready()
        {
            *beside = None;
        }
        let context = &mut Context::from_waker(&self.answer_waker);
        loop {
            send(&mut self.unsent, self.id, &mut self.sending, wire);
            if !self.unsent.is_empty() {
                return Went::On;
            }
            if wire.output.len() >= MOST_OUTPUT_BYTES {
                return Went::Stalled;
            }
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Pending => return Went::On,
                Poll::Ready(Some(Ok(next))) => match next.into_data() {
                    Ok(data) => self.unsent = data,
                    Err(next) => {
                        let trailers = next.into_trailers().unwrap_or_default();
                        let mut block = BytesMut::new();
                        headers::put_fields(&mut block, &trailers);
                        wire.output.put(|out| put::headers(out, self.id, &block, true));
                        return Went::Done;
                    }
                },
                Poll::Ready(None) => {
                    wire.output.put(|out| put::data_head(out, self.id, 0, true));
                    return Went::Done;
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "an answer broke off");
                    return Went::Failed;
                }
            }
        }
    }

    /// Sends the answer's head. True where that is all.
    fn begin(&mut self, mut response: Response<Body>, wire: &mut Wire<'_>) -> bool {
        let beside = response.extensions_mut().remove::<Beside>();
        let (head, body) = response.into_parts();
        let mut block = BytesMut::new();
        headers::put_head(&mut block, head.status, &head.headers);
        let is_last = body.is_end_stream();
        wire.output.put(|out| put::headers(out, self.id, &block, is_last));
        self.answer = Answer::Begun {
            body,
            beside: beside.and_then(|beside| beside.take()),
        };
        is_last
    }

    /// What the client is told when the stream is over on this side.
    pub(super) fn farewell(&self, went: Went) -> Option<Code> {
        match went {
            Went::Failed => Some(Code::INTERNAL_ERROR),
            // It need not send the rest.
            Went::Done if !self.is_received => Some(Code::NO_ERROR),
            Went::Done | Went::On | Went::Stalled => None,
        }
    }
}

/// Sends as much as the windows allow.
fn send(unsent: &mut Bytes, id: u32, window: &mut Sending, wire: &mut Wire<'_>) {
    while !unsent.is_empty() {
        let size = unsent
            .len()
            .min(MAX_FRAME_BYTES)
            .min(window.left())
            .min(wire.window.left());
        if size == 0 {
            return;
        }
        window.take(size);
        wire.window.take(size);
        wire.output.put(|out| put::data_head(out, id, size, false));
        wire.output.push(unsent.split_to(size));
    }
}
