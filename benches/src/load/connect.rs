//! Opens all connections and streams.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use super::latency::Latencies;
use super::pace::Pace;
use super::{Due, Load, Protocol, article, sluice};

/// Connections that are opened at once: a server's backlog must hold them.
const AT_ONCE: usize = 64;

/// One stream's part of the load.
pub(super) struct Part {
    pub(super) index: usize,
    pub(super) channel: Channel,
    pub(super) due: mpsc::UnboundedReceiver<u64>,
    pub(super) body: bytes::Bytes,
    pub(super) topic: String,
    pub(super) pace: Arc<Pace>,
    pub(super) latencies: Arc<Latencies>,
}

pub(super) async fn all(
    load: &Load,
    pace: &Arc<Pace>,
    latencies: &Arc<Latencies>,
    streams: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Vec<Due>> {
    let endpoint = Endpoint::from_shared(format!("http://{}", load.address))?
        .connect_timeout(Duration::from_secs(10))
        .tcp_nodelay(true);
    let channels: Vec<Channel> = stream::iter(0..load.connections)
        .map(|_| endpoint.connect())
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
        .context("connecting")?;
    let body = bytes::Bytes::from(vec![0x5a; load.size]);
    let mut senders = Vec::new();
    let mut parts = Vec::new();
    for index in 0..load.connections * load.streams {
        let (sender, due) = mpsc::unbounded_channel();
        senders.push(sender);
        let channel = channels
            .get(index % channels.len())
            .context("there is no connection")?;
        parts.push(Part {
            index,
            channel: channel.clone(),
            due,
            body: body.clone(),
            topic: load.topic.clone(),
            pace: Arc::clone(pace),
            latencies: Arc::clone(latencies),
        });
    }
    let protocol = load.protocol;
    let mut opening = stream::iter(parts)
        .map(|part| async move {
            match protocol {
                Protocol::Article => Ok(article::open(part)),
                Protocol::Sluice => sluice::open(part).await,
            }
        })
        .buffer_unordered(AT_ONCE);
    while let Some(reading) = opening.try_next().await.context("opening a stream")? {
        streams.spawn(reading);
    }
    Ok(senders)
}
