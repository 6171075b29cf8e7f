//! The accept loop and the life of a connection: how many there are, why they end, and how they are drained when the
//! broker stops.

mod balance;
mod receiving;
mod threads;

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
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
use threads::Seat;
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
        let Some(seat) = self.threads.seat() else {
            return;
        };
        let life = Life {
            seat,
            _open: credit::Open::connection(&self.shared.counters),
            peer,
            stop: stop.clone(),
            refusals: Arc::clone(&self.shared.refusals),
            connections: connections.clone(),
        };
        let connection = Connection::new(stream, Arc::clone(&self.dispatch), max_streams, self.patience);
        life.goes_on(connection);
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

/// What belongs to a connection on whichever thread it is served.
struct Life {
    seat: Seat,
    _open: credit::Open,
    peer: SocketAddr,
    stop: Stop,
    refusals: Arc<Refusals>,
    connections: TaskTracker,
}

/// Why a thread does not serve a connection any more.
enum Left {
    Ended(Ended),
    /// Another thread is to serve it.
    Moves,
    /// It was cut off as the broker stopped.
    Cut,
}

impl Life {
    /// Has the connection served by the thread that is to serve it now.
    fn goes_on(self, connection: Connection<TcpStream, Dispatch>) {
        let thread = self.seat.thread();
        let Some(handle) = self.seat.handle(thread).cloned() else {
            return;
        };
        // A socket belongs to the event loop in which it becomes one of tokio's.
        let moved = {
            let _there = handle.enter();
            connection.moved(|socket| TcpStream::from_std(socket.into_std()?))
        };
        match moved {
            Ok(connection) => {
                let connections = self.connections.clone();
                connections.spawn_on(self.served(connection, thread), &handle);
            }
            Err(error) => self.refusals.count(
                Reason::Accept,
                &format_args!("no thread could take the connection of {}: {error}", self.peer),
            ),
        }
    }

    async fn served(self, mut connection: Connection<TcpStream, Dispatch>, thread: usize) {
        match self.until_left(&mut connection, thread).await {
            Left::Ended(ended) => tell(&ended, self.peer, &self.refusals),
            Left::Moves => self.goes_on(connection),
            Left::Cut => {}
        }
    }

    async fn until_left(&self, connection: &mut Connection<TcpStream, Dispatch>, thread: usize) -> Left {
        // Looked at whenever something has come in.
        let moves = std::future::poll_fn(|_| {
            if self.seat.thread() == thread {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        });
        tokio::select! {
            biased;
            ended = &mut *connection => return Left::Ended(ended),
            () = self.stop.drain.cancelled() => connection.shut_down(),
            () = moves => return Left::Moves,
        }
        tokio::select! {
            biased;
            ended = connection => Left::Ended(ended),
            () = self.stop.kill.cancelled() => Left::Cut,
        }
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

#[cfg(test)]
mod tests {
    use tokio_stream::wrappers::UnboundedReceiverStream;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::broker::core_tests::support::{
        chain_entry, close, configuration, options, shared, topic, until,
    };
    use crate::broker::store::Store;
    use crate::pb;
    use crate::pb::broker_client::BrokerClient;
    use crate::pb::publish_request::Request as Said;
    use crate::pb::publish_response::Response as Answer;

    const PATIENCE: Patience = Patience {
        handshake: Duration::from_secs(10),
        keepalive_interval: Duration::from_secs(60),
        keepalive_timeout: Duration::from_secs(20),
    };

    fn say(request: Said) -> pb::PublishRequest {
        pb::PublishRequest {
            request: Some(request),
        }
    }

    #[tokio::test]
    async fn streams_go_on_when_their_connections_move_to_other_threads() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(options(directory.path(), "a"), Arc::default()).unwrap();
        let chains = vec![vec![chain_entry(1, "a", None)]];
        let orders = configuration("a", 1, vec![topic("orders", chains)]);
        store.configure(&orders).unwrap();
        let shared = shared(&store);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let threads = Arc::new(Threads::gathered(2).unwrap());
        let stop = Stop {
            drain: CancellationToken::new(),
            kill: CancellationToken::new(),
        };
        let server = Server {
            listener,
            audience: Audience::Clients,
            dispatch: Arc::new(Dispatch {
                broker: Some(Arc::new(BrokerService::new(Arc::clone(&shared)))),
                shared: Arc::clone(&shared),
                rest: Routes::default(),
            }),
            shared,
            patience: PATIENCE,
            threads: Arc::clone(&threads),
        };
        let server = tokio::spawn(server.run(stop.clone()));

        let mut streams = Vec::new();
        for _ in 0..4 {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let mut client = BrokerClient::new(endpoint.connect().await.unwrap());
            let (requests, outgoing) = tokio::sync::mpsc::unbounded_channel();
            let open = pb::PublishOpen {
                topic: "orders".to_owned(),
                ..pb::PublishOpen::default()
            };
            requests.send(say(Said::Open(open))).unwrap();
            let answers = client.publish(UnboundedReceiverStream::new(outgoing)).await;
            streams.push((requests, answers.unwrap().into_inner()));
        }
        for sequence in 1..=20 {
            let is_spread = sequence % 2 == 0;
            threads.spread(is_spread);
            for (requests, answers) in &mut streams {
                let payload = pb::Payload {
                    body: "hello".into(),
                    sequence,
                    ..pb::Payload::default()
                };
                let batch = pb::PublishBatch {
                    payloads: vec![payload],
                    ..pb::PublishBatch::default()
                };
                requests.send(say(Said::Batch(batch))).unwrap();
                loop {
                    let answer = answers.message().await.unwrap().unwrap();
                    if let Some(Answer::Ack(ack)) = answer.response
                        && ack.sequence == sequence
                    {
                        break;
                    }
                }
            }
            let expected = if is_spread { [2, 2] } else { [4, 0] };
            until("its threads", async || threads.tasks() == expected).await;
        }
        drop(streams);
        stop.drain.cancel();
        server.await.unwrap();
        until("no tasks", async || threads.tasks() == [0, 0]).await;
        close(store).await;
    }
}
