//! Opens all connections and streams.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use h2::client::SendRequest;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::stream::{Common, Stream, open};

/// Connections that are opened at once: a server's backlog must hold them.
const AT_ONCE: usize = 64;

pub(super) async fn all(
    common: &Arc<Common>,
    reading: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Vec<Arc<Mutex<Stream>>>> {
    let load = &common.load;
    let connections: Vec<SendRequest<Bytes>> = stream::iter(0..load.connections)
        .map(|_| connect(common))
        .buffered(AT_ONCE)
        .try_collect()
        .await
        .context("connecting")?;
    let mut opening = stream::iter(0..load.connections * load.streams)
        .map(|index| {
            let connection = connections.get(index % load.connections).cloned();
            let common = Arc::clone(common);
            async move { open(common, connection.context("there is no connection")?, index).await }
        })
        .buffered(AT_ONCE);
    let mut streams = Vec::new();
    while let Some((stream, answers)) = opening.try_next().await.context("opening a stream")? {
        streams.push(stream);
        reading.spawn(answers);
    }
    Ok(streams)
}

async fn connect(common: &Common) -> anyhow::Result<SendRequest<Bytes>> {
    let socket = TcpStream::connect(common.load.address).await?;
    socket.set_nodelay(true)?;
    let (requests, connection) = h2::client::handshake(socket).await?;
    // Its streams fail where it fails.
    tokio::spawn(connection);
    Ok(requests)
}
