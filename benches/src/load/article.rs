//! The article's protocol, from the client's end.

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::connect::Part;
use crate::article::Payload;
use crate::article::handler_client::HandlerClient;

/// What is returned opens a stream and reads its answers.
pub(super) fn open(part: Part) -> BoxFuture<'static, anyhow::Result<()>> {
    let Part {
        index,
        channel,
        due,
        body,
        pace,
        latencies,
        ..
    } = part;
    let payloads = UnboundedReceiverStream::new(due).map(move |sequence| Payload {
        sequence,
        body: body.clone(),
    });
    Box::pin(async move {
        // grpc-go answers nothing before its first ack, so the answer cannot be waited for while streams are opened.
        let response = HandlerClient::new(channel).handle(payloads).await?;
        let mut acks = response.into_inner();
        while let Some(ack) = acks.message().await.context("reading an ack")? {
            if let Some(latency) = pace.latency(index, ack.sequence) {
                latencies.record(index, latency);
            }
        }
        Ok(())
    })
}
