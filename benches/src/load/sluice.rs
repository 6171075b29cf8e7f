//! Sluice's Publish, from the client's end: batches within the credit, cumulative acks.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, bail};
use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use futures::{Stream, StreamExt as _};
use sluice::pb::broker_client::BrokerClient;
use sluice::pb::publish_request::Request;
use sluice::pb::publish_response::Response;
use sluice::pb::{Payload, PublishBatch, PublishOpen, PublishRequest};
use tokio::sync::mpsc;

use super::connect::Part;

/// Messages of one batch, at most.
const BATCH: usize = 512;

/// What may be sent, and what is settled.
#[derive(Default)]
struct Window {
    credit: AtomicU64,
    settled: AtomicU64,
    waker: AtomicWaker,
}

/// What is due, as batches.
struct Batches {
    due: mpsc::UnboundedReceiver<u64>,
    taken: Vec<u64>,
    sent: u64,
    body: bytes::Bytes,
    window: Arc<Window>,
}

impl Stream for Batches {
    type Item = PublishRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<PublishRequest>> {
        let this = &mut *self;
        this.window.waker.register(context.waker());
        let unsettled = this.sent - this.window.settled.load(Ordering::Acquire);
        let room = this
            .window
            .credit
            .load(Ordering::Acquire)
            .saturating_sub(unsettled);
        if room == 0 {
            return Poll::Pending;
        }
        let most = BATCH.min(room as usize);
        let count = ready!(this.due.poll_recv_many(context, &mut this.taken, most));
        if count == 0 {
            return Poll::Ready(None);
        }
        this.sent += count as u64;
        let payloads = this.taken.drain(..).map(|sequence| Payload {
            sequence,
            body: this.body.clone(),
            ..Payload::default()
        });
        let batch = PublishBatch {
            payloads: payloads.collect(),
            waited_nanos: 0,
            offered_messages: None,
        };
        Poll::Ready(Some(PublishRequest {
            request: Some(Request::Batch(batch)),
        }))
    }
}

/// Opens a stream and waits for its welcome; what is returned reads its answers.
pub(super) async fn open(part: Part) -> anyhow::Result<BoxFuture<'static, anyhow::Result<()>>> {
    let window = Arc::new(Window::default());
    let open = PublishOpen {
        topic: part.topic,
        ..PublishOpen::default()
    };
    let batches = Batches {
        due: part.due,
        taken: Vec::new(),
        sent: 0,
        body: part.body,
        window: Arc::clone(&window),
    };
    let requests = futures::stream::once(std::future::ready(PublishRequest {
        request: Some(Request::Open(open)),
    }));
    let mut client = BrokerClient::new(part.channel);
    let mut responses = client.publish(requests.chain(batches)).await?.into_inner();
    let (index, pace, latencies) = (part.index, part.pace, part.latencies);
    let first = responses.message().await?.and_then(|response| response.response);
    let Some(Response::Welcome(welcome)) = first else {
        bail!("the broker did not welcome the stream: {first:?}");
    };
    let grant = |credit: u64| {
        window.credit.store(credit, Ordering::Release);
        window.waker.wake();
    };
    grant(welcome.credit.unwrap_or_default().messages);
    Ok(Box::pin(async move {
        let mut settled = 0;
        while let Some(response) = responses.message().await.context("reading an answer")? {
            match response.response {
                Some(Response::Ack(ack)) => {
                    for number in settled + 1..=ack.sequence {
                        if let Some(latency) = pace.latency(index, number) {
                            latencies.record(index, latency);
                        }
                    }
                    settled = ack.sequence;
                    window.settled.store(settled, Ordering::Release);
                    window.waker.wake();
                }
                Some(Response::Credit(credit)) => {
                    window.credit.store(credit.messages, Ordering::Release);
                    window.waker.wake();
                }
                Some(other) => bail!("the broker refused a message: {other:?}"),
                None => {}
            }
        }
        Ok(())
    }))
}
