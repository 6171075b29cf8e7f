//! The accept loop and the life of a connection: how many there are, why they end, and how they are drained when the
//! broker stops.

mod receiving;
mod threads;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;

pub use super::http2::Patience;
use super::http2::{self, Connection, Ended, RequestBody};
use super::refusals::{Reason, Refusals};
use super::service::{BrokerService, Shared, credit};
use crate::pb::broker_server::BrokerServer;
use receiving::Receiving;
pub use threads::Threads;

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

/// What a listener serves. `sluice.v1.Broker` does not go through a router.
pub struct Dispatch {
    /// Serves `sluice.v1.Broker`, where it is served.
    pub broker: Option<Arc<BrokerService>>,
    /// The broker.
    pub shared: Arc<Shared>,
    /// Everything else.
    pub rest: Routes,
}

impl http2::Dispatch for Dispatch {
    fn call(&self, request: Request<RequestBody>) -> BoxFuture<'static, Response<Body>> {
        let answer = match &self.broker {
            Some(broker) if request.uri().path().starts_with("/sluice.v1.Broker/") => {
                let longest = self.shared.credit.limits().max_request_bytes();
                let request = request.map(|body| Receiving::new(body, &self.shared, longest));
                BrokerServer::from_arc(Arc::clone(broker))
                    .max_decoding_message_size(longest)
                    .call(request)
            }
            _ => Box::pin(self.rest.clone().call(request)),
        };
        Box::pin(answer.map(|answer| match answer {
            Ok(response) => response,
            Err(never) => match never {},
        }))
    }

    fn headers_refused(&self) {
        let text = "a request has more headers than 16 KiB; send fewer, or shorter ones";
        self.shared.refusals.count(Reason::Headers, &text);
    }
}

/// One listener of the broker.
pub struct Server {
    /// Bound already.
    pub listener: TcpListener,
    /// Who connects.
    pub audience: Audience,
    /// What is served.
    pub dispatch: Arc<Dispatch>,
    /// The broker.
    pub shared: Arc<Shared>,
    /// How long peers may be silent.
    pub patience: Patience,
    /// Where connections are served.
    pub threads: Arc<Threads>,
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
        let open = credit::Open::connection(&self.shared.counters);
        let Some((thread, served)) = self.threads.choose() else {
            return;
        };
        // A socket belongs to the event loop in which it becomes one of tokio's.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "the connection was gone at once");
                return;
            }
        };
        let dispatch = Arc::clone(&self.dispatch);
        let patience = self.patience;
        let stop = stop.clone();
        let refusals = Arc::clone(&self.shared.refusals);
        let serving = async move {
            let _kept = (open, served);
            match TcpStream::from_std(stream) {
                Ok(stream) => {
                    let connection = Connection::new(stream, dispatch, max_streams, patience);
                    if let Some(ended) = serve(connection, &stop).await {
                        tell(&ended, peer, &refusals);
                    }
                }
                Err(error) => refusals.count(
                    Reason::Accept,
                    &format_args!("the connection of {peer} was not accepted: {error}"),
                ),
            }
        };
        connections.spawn_on(serving, thread);
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

/// Serves a connection until it has ended; `None` where it was cut off as the broker stopped.
async fn serve(mut connection: Connection<TcpStream, Dispatch>, stop: &Stop) -> Option<Ended> {
    tokio::select! {
        biased;
        ended = &mut connection => return Some(ended),
        () = stop.drain.cancelled() => connection.shut_down(),
    }
    tokio::select! {
        biased;
        ended = &mut connection => Some(ended),
        () = stop.kill.cancelled() => None,
    }
}

/// Counts an end that was the client's fault.
fn tell(ended: &Ended, peer: SocketAddr, refusals: &Refusals) {
    let (reason, text): (_, &dyn std::fmt::Display) = match ended {
        Ended::Closed => return,
        Ended::NotBegun => (Reason::Handshake, &"it said nothing that begins HTTP/2 in time"),
        Ended::Silent => (Reason::Keepalive, &"it did not answer a ping in time"),
        Ended::Flooded => (
            Reason::Control,
            &"it sent pings, settings and empty frames without end",
        ),
        Ended::Calmed(text) => (Reason::Resets, text),
        Ended::Protocol(text) => (Reason::Protocol, text),
        Ended::Broken(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            (Reason::Keepalive, &"it took nothing of what was sent to it")
        }
        Ended::Broken(error) => {
            tracing::debug!(%error, %peer, "a connection broke");
            return;
        }
    };
    refusals.count(
        reason,
        &format_args!("the connection of {peer} was closed: {text}"),
    );
}
