//! A request's body, counted while it comes in: a message that does not come in one piece takes its whole size from
//! `limits.maxInflightBytes` until it is there. Whoever decodes it counts it from then on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::broker::http2::RequestBody;
use crate::broker::refusals::{Reason, Refusals};
use crate::broker::service::{Inflight, Reserved, Shared};

/// gRPC's head of a message: one byte of flags, four of length.
const HEAD_BYTES: usize = 5;

/// A body that is counted.
pub(super) struct Receiving<B = RequestBody> {
    body: B,
    inflight: Arc<Inflight>,
    refusals: Arc<Refusals>,
    pieces: Pieces,
}

#[derive(Debug, Default)]
struct Pieces {
    /// A longer message is refused by its head, by whoever decodes it.
    longest: usize,
    head: [u8; HEAD_BYTES],
    have: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    held: Option<Reserved>,
}

impl<B> Receiving<B> {
    /// Counts `body`, whose messages have at most `longest` bytes.
    pub(super) fn new(body: B, shared: &Shared, longest: usize) -> Self {
        Self {
            body,
            inflight: Arc::clone(&shared.inflight),
            refusals: Arc::clone(&shared.refusals),
            pieces: Pieces {
                longest,
                ..Pieces::default()
            },
        }
    }
}

impl Pieces {
    /// False where there is no room for the message that begins in `bytes`.
    fn see(&mut self, mut bytes: &[u8], inflight: &Arc<Inflight>) -> bool {
        loop {
            let taken = self.left.min(bytes.len());
            self.left -= taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.left == 0 {
                self.held = None;
            }
            if bytes.is_empty() {
                return true;
            }
            let (head, rest) = bytes.split_at((HEAD_BYTES - self.have).min(bytes.len()));
            if let Some(place) = self.head.get_mut(self.have..self.have + head.len()) {
                place.copy_from_slice(head);
            }
            self.have += head.len();
            bytes = rest;
            if self.have < HEAD_BYTES {
                return true;
            }
            self.have = 0;
            let [_, length @ ..] = self.head;
            self.left = u32::from_be_bytes(length) as usize;
            if self.left > bytes.len() && self.left <= self.longest {
                self.held = inflight.receive(self.left as u64);
                if self.held.is_none() {
                    return false;
                }
            }
        }
    }
}

impl<B> Body for Receiving<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let frame = Pin::new(&mut this.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
            && !this.pieces.see(data, &this.inflight)
        {
            let text = "the broker receives as many bytes as it may (limits.maxInflightBytes); send smaller batches, \
                        or open the stream again later";
            this.refusals.count(Reason::Receiving, &text);
            return Poll::Ready(Some(Err(Box::new(Status::resource_exhausted(text)))));
        }
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> Pieces {
        Pieces {
            longest: 2000,
            ..Pieces::default()
        }
    }

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.extend(vec![7; length as usize]);
        bytes
    }

    #[test]
    fn a_message_counts_from_its_first_piece_to_its_last_and_one_in_a_piece_does_not() {
        let inflight = Inflight::new(1000);
        let mut pieces = new();
        let bytes = [message(100), message(300), message(0), message(50)].concat();
        assert!(pieces.see(&bytes, &inflight));
        assert_eq!(inflight.used(), 0);
        for (at, byte) in bytes.iter().enumerate() {
            assert!(pieces.see(&[*byte], &inflight));
            let expected = match at {
                4..104 => 100,
                109..409 => 300,
                419..469 => 50,
                _ => 0,
            };
            assert_eq!(inflight.used(), expected, "after byte {at}");
        }
    }

    #[test]
    fn there_is_room_for_so_many_and_what_goes_away_gives_it_back() {
        let inflight = Inflight::new(1000);
        let begin = |length: u32| {
            let mut pieces = new();
            let fits = pieces.see(&message(length)[..10], &inflight);
            (fits, pieces)
        };
        let first = begin(600);
        let second = begin(600);
        assert_eq!((first.0, second.0), (true, false));
        drop(first);
        assert!(begin(600).0);
        assert_eq!(inflight.used(), 0);
        let refused_by_its_head = begin(2001);
        assert_eq!((refused_by_its_head.0, inflight.used()), (true, 0));
    }
}
