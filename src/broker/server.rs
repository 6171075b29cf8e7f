//! The accept loop and the life of a connection: every limit of HTTP/2 is set here, and every connection is drained
//! when the broker stops.

mod receiving;
mod wire;

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;

use super::refusals::{Reason, Refusals};
use super::service::{BrokerService, Shared, credit};
use crate::pb::broker_server::BrokerServer;
use receiving::Receiving;
use wire::{Progress, Watched};

/// Every handler drains its stream, so windows only have to cover the round trip.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 2 << 20;
const MAX_FRAME_BYTES: u32 = 16 << 10;
/// Bytes of answers that wait for the client's window, per stream.
const SEND_BUFFER_BYTES: usize = 64 << 10;
const MAX_HEADER_LIST_BYTES: u32 = 16 << 10;
/// Clients keep no headers in mind between calls: a table of 4 KiB a connection, for the sake of a stream that is
/// opened once.
const HEADER_TABLE_BYTES: u32 = 0;
/// Streams that the client opened and reset at once: more than these close the connection ("rapid reset").
const MAX_PENDING_ACCEPT_RESETS: usize = 20;
/// Streams that were reset here for the client's faults: more than these close the connection.
const MAX_LOCAL_ERROR_RESETS: usize = 256;
/// The operator and the other brokers; not bounded by the clients' limit, so that they always get in.
const MAX_CONTROL_CONNECTIONS: u32 = 4096;
/// Streams at once on a connection of the operator or of another broker.
const MAX_CONTROL_STREAMS: u32 = 1000;

/// Who connects to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Publishers and subscribers.
    Clients,
    /// The operator and other brokers.
    Control,
}

/// How long a peer may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until HTTP/2's preface and first frame have come.
    pub handshake: Duration,
    /// Until it is pinged.
    pub keepalive_interval: Duration,
    /// Until it has answered a ping, and taken what was sent to it.
    pub keepalive_timeout: Duration,
}

/// What a listener serves. `sluice.v1.Broker` does not go through a router.
#[derive(Clone)]
pub struct Dispatch {
    /// Serves `sluice.v1.Broker`, where it is served.
    pub broker: Option<Arc<BrokerService>>,
    /// The broker.
    pub shared: Arc<Shared>,
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
                let longest = self.max_request_bytes;
                let request = request.map(|body| Receiving::new(body, &self.shared, longest));
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
    /// How long peers may be silent.
    pub patience: Patience,
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
                Ok((stream, peer)) => self.accepted(stream, peer, &connections, &stop),
                Err(error) => {
                    // Out of file descriptors, most likely: those that are open may close meanwhile.
                    let text = format!("a connection was not accepted: {error}");
                    self.shared.refusals.count(Reason::Accept, &text);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }

    fn accepted(&self, stream: TcpStream, peer: SocketAddr, connections: &TaskTracker, stop: &Stop) {
        let limits = self.shared.credit.limits();
        let (most, max_streams) = match self.audience {
            Audience::Clients => (limits.max_connections, limits.max_streams_per_connection),
            Audience::Control => (MAX_CONTROL_CONNECTIONS, MAX_CONTROL_STREAMS),
        };
        if connections.len() >= most as usize {
            let text = format!("{most} connections are open (limits.maxConnections); {peer} is one too many");
            self.shared.refusals.count(Reason::ConnectionLimit, &text);
            return;
        }
        if let Err(error) = self.prepare(&stream) {
            tracing::debug!(%error, "the connection was gone at once");
            return;
        }
        let mut dispatch = self.dispatch.clone();
        dispatch.max_request_bytes = limits.max_request_bytes();
        let open = credit::Open::connection(&self.shared.counters);
        let connection = Connection {
            peer,
            patience: self.patience,
            max_streams,
            stop: stop.clone(),
            refusals: Arc::clone(&self.shared.refusals),
        };
        connections.spawn(async move {
            let _open = open;
            connection.serve(stream, dispatch).await;
        });
    }

    /// HTTP/2's pings find out that a peer is silent, and the kernel that it takes nothing: where its window is full,
    /// not even the ping gets out.
    fn prepare(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let patience = self.patience.keepalive_interval + self.patience.keepalive_timeout;
        let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?;
        Ok(())
    }
}

/// One connection's limits.
struct Connection {
    peer: SocketAddr,
    patience: Patience,
    max_streams: u32,
    stop: Stop,
    refusals: Arc<Refusals>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, dispatch: Dispatch) {
        let stream = Watched::new(stream);
        let progress = stream.progress();
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_concurrent_streams(self.max_streams)
            .max_pending_accept_reset_streams(MAX_PENDING_ACCEPT_RESETS)
            .max_local_error_reset_streams(MAX_LOCAL_ERROR_RESETS)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .header_table_size(HEADER_TABLE_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(self.patience.keepalive_interval)
            .keep_alive_timeout(self.patience.keepalive_timeout)
            .serve_connection(TokioIo::new(stream), dispatch);
        tokio::pin!(connection);
        let mut handshake = Some(Box::pin(tokio::time::sleep(self.patience.handshake)));
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        self.ended(&error, &progress);
                    }
                    return;
                }
                () = wait(&mut handshake), if handshake.is_some() => {
                    handshake = None;
                    if !progress.has_begun() {
                        let text = format!("{} said nothing that begins HTTP/2 in time", self.peer);
                        self.refusals.count(Reason::Handshake, &text);
                        return;
                    }
                }
                () = self.stop.drain.cancelled() => break,
            }
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = self.stop.kill.cancelled() => {}
        }
    }

    /// Counts an end that was one side's fault.
    fn ended(&self, error: &hyper::Error, progress: &Progress) {
        let peer = self.peer;
        let reason = if progress.is_flooded() {
            Some(Reason::Control)
        } else if !progress.has_begun() {
            Some(Reason::Handshake)
        } else {
            reason(error)
        };
        match reason {
            Some(reason) => {
                let source = error
                    .source()
                    .map_or_else(String::new, |source| format!(": {source}"));
                self.refusals.count(
                    reason,
                    &format!("the connection of {peer} was closed: {error}{source}"),
                );
            }
            None => tracing::debug!(%error, %peer, "a connection ended"),
        }
    }
}

/// Why HTTP/2 closed a connection from this side; `None` where the peer just went away.
fn reason(error: &hyper::Error) -> Option<Reason> {
    if error.is_timeout() {
        return Some(Reason::Keepalive);
    }
    let mut source = error.source();
    while let Some(cause) = source {
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut) {
            return Some(Reason::Keepalive);
        }
        if let Some(h2) = cause.downcast_ref::<h2::Error>()
            && !h2.is_io()
        {
            return match h2.reason() {
                Some(h2::Reason::ENHANCE_YOUR_CALM) => Some(Reason::Resets),
                Some(_) if h2.is_library() => Some(Reason::Protocol),
                _ => None,
            };
        }
        source = cause.source();
    }
    None
}

async fn wait(sleep: &mut Option<Pin<Box<tokio::time::Sleep>>>) {
    match sleep {
        Some(sleep) => sleep.as_mut().await,
        None => std::future::pending().await,
    }
}
