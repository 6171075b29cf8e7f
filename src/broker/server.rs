//! The accept loop and the life of a connection: every limit of HTTP/2 is set here, and every connection is drained
//! when the broker stops.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;

use super::service::{BrokerService, Shared, credit};
use crate::pb::broker_server::BrokerServer;

/// A connection that has not sent HTTP/2's preface and first frame by then is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The 24 bytes of the preface and the header of the SETTINGS frame that follows it.
const HANDSHAKE_BYTES: usize = 33;
/// A connection that says nothing for so long is pinged.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// A ping that is not answered for so long closes the connection.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Every handler drains its stream, so windows only have to cover the round trip.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 2 << 20;
const MAX_FRAME_BYTES: u32 = 16 << 10;
/// Bytes of answers that wait for the client's window, per stream.
const SEND_BUFFER_BYTES: usize = 64 << 10;
const MAX_HEADER_LIST_BYTES: u32 = 16 << 10;
/// Streams that the client opened and reset at once: more than these close the connection ("rapid reset").
const MAX_PENDING_ACCEPT_RESETS: usize = 20;
/// Streams that were reset here for the client's faults: more than these close the connection.
const MAX_LOCAL_ERROR_RESETS: usize = 256;
/// The operator and the other brokers; not bounded by the clients' limit, so that they always get in.
const MAX_CONTROL_CONNECTIONS: u32 = 4096;
/// Streams at once on a connection of the operator or of another broker.
const MAX_CONTROL_STREAMS: u32 = 1000;

/// Connections that were refused, by reason.
#[derive(Debug, Default)]
pub struct Refusals {
    limit: AtomicU64,
    handshake: AtomicU64,
    accept: AtomicU64,
}

impl Refusals {
    /// Each reason and its number.
    pub fn all(&self) -> [(&'static str, u64); 3] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("limit", get(&self.limit)),
            ("handshake", get(&self.handshake)),
            ("accept", get(&self.accept)),
        ]
    }
}

/// Who connects to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Publishers and subscribers.
    Clients,
    /// The operator and other brokers.
    Control,
}

/// What a listener serves. `sluice.v1.Broker` does not go through a router.
#[derive(Clone)]
pub struct Dispatch {
    /// Serves `sluice.v1.Broker`, where it is served.
    pub broker: Option<Arc<BrokerService>>,
    /// The largest request of `sluice.v1.Broker`, in bytes.
    pub max_request_bytes: usize,
    /// Everything else.
    pub rest: Routes,
}

impl hyper::service::Service<Request<Incoming>> for Dispatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        match &self.broker {
            Some(broker) if request.uri().path().starts_with("/sluice.v1.Broker/") => {
                BrokerServer::from_arc(Arc::clone(broker))
                    .max_decoding_message_size(self.max_request_bytes)
                    .call(request)
            }
            _ => Box::pin(self.rest.clone().call(request)),
        }
    }
}

/// One listener of the broker.
pub struct Server {
    /// Bound already.
    pub listener: TcpListener,
    /// Who connects.
    pub audience: Audience,
    /// What is served.
    pub dispatch: Dispatch,
    /// The broker.
    pub shared: Arc<Shared>,
    /// Counts what is refused.
    pub refusals: Arc<Refusals>,
}

/// When a server stops: first it accepts nothing new and sends GOAWAY, later it closes what is still open.
#[derive(Debug, Clone)]
pub struct Stop {
    /// No new connections and streams.
    pub drain: CancellationToken,
    /// No connections.
    pub kill: CancellationToken,
}

impl Server {
    /// Serves until `stop.drain`, and returns when all connections are closed, at `stop.kill` at the latest.
    pub async fn run(self, stop: Stop) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.drain.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => self.accepted(stream, &connections, &stop),
                Err(error) => {
                    // Out of file descriptors, most likely: those that are open may close meanwhile.
                    self.refusals.accept.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }

    fn accepted(&self, stream: TcpStream, connections: &TaskTracker, stop: &Stop) {
        let limits = self.shared.credit.limits();
        let (most, max_streams) = match self.audience {
            Audience::Clients => (limits.max_connections, limits.max_streams_per_connection),
            Audience::Control => (MAX_CONTROL_CONNECTIONS, MAX_CONTROL_STREAMS),
        };
        if connections.len() >= most as usize {
            self.refusals.limit.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the connection was gone at once");
            return;
        }
        let mut dispatch = self.dispatch.clone();
        dispatch.max_request_bytes = limits.max_request_bytes();
        let open = credit::Open::connection(&self.shared.counters);
        let connection = serve(
            stream,
            dispatch,
            max_streams,
            stop.clone(),
            Arc::clone(&self.refusals),
        );
        connections.spawn(async move {
            let _open = open;
            connection.await;
        });
    }
}

async fn serve(stream: TcpStream, dispatch: Dispatch, max_streams: u32, stop: Stop, refusals: Arc<Refusals>) {
    let read = Arc::new(AtomicUsize::new(0));
    let stream = Counted {
        stream,
        read: Arc::clone(&read),
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(max_streams)
        .max_pending_accept_reset_streams(MAX_PENDING_ACCEPT_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_ERROR_RESETS)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), dispatch);
    tokio::pin!(connection);
    let has_begun = || read.load(Ordering::Relaxed) >= HANDSHAKE_BYTES;
    let mut handshake = Some(Box::pin(tokio::time::sleep(HANDSHAKE_TIMEOUT)));
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    if !has_begun() {
                        refusals.handshake.fetch_add(1, Ordering::Relaxed);
                    }
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
            () = wait(&mut handshake), if handshake.is_some() => {
                handshake = None;
                if !has_begun() {
                    refusals.handshake.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
            () = stop.drain.cancelled() => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = stop.kill.cancelled() => {}
    }
}

async fn wait(sleep: &mut Option<Pin<Box<tokio::time::Sleep>>>) {
    match sleep {
        Some(sleep) => sleep.as_mut().await,
        None => std::future::pending().await,
    }
}

/// A connection that counts its first bytes, for the handshake's deadline.
struct Counted {
    stream: TcpStream,
    read: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        let so_far = self.read.load(Ordering::Relaxed);
        if so_far < HANDSHAKE_BYTES {
            self.read
                .store(so_far + buffer.filled().len() - before, Ordering::Relaxed);
        }
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
