//! The connection against another implementation of HTTP/2 as the client, over a pipe, and against bytes that nobody
//! would send.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tonic::body::Body;

use super::connection::{Connection, Ended, Patience};
use super::frame::PREFACE;
use super::state::Dispatch;
use super::stream::Beside;
use super::{RequestBody, body};

const PATIENCE: Patience = Patience {
    handshake: Duration::from_secs(5),
    keepalive_interval: Duration::from_secs(60),
    keepalive_timeout: Duration::from_secs(20),
};
const IMPATIENCE: Patience = Patience {
    handshake: Duration::from_millis(50),
    keepalive_interval: Duration::from_millis(100),
    keepalive_timeout: Duration::from_secs(2),
};

/// `/echo` sends back what comes as it comes, `/count` how much it was, with trailers, `/drop` nothing.
#[derive(Default)]
struct Service {
    /// What runs beside answers now.
    beside: Arc<AtomicUsize>,
    too_large: AtomicUsize,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Dispatch for Service {
    fn call(&self, request: Request<RequestBody>) -> BoxFuture<'static, Response<Body>> {
        let path = request.uri().path().to_owned();
        let body = request.into_body();
        self.beside.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(&self.beside));
        async move {
            let mut response = match path.as_str() {
                "/echo" => Response::new(Body::new(body)),
                "/count" => {
                    let counted = body.collect().await.map(|all| all.to_bytes().len());
                    let mut trailers = HeaderMap::new();
                    trailers.insert("count", counted.unwrap_or(usize::MAX).into());
                    let frame: Result<_, body::Cancelled> = Ok(http_body::Frame::trailers(trailers));
                    Response::new(Body::new(StreamBody::new(futures::stream::iter([frame]))))
                }
                _ => Response::new(Body::empty()),
            };
            response.extensions_mut().insert(Beside::new(async move {
                let _running = running;
                std::future::pending::<()>().await;
            }));
            response
        }
        .boxed()
    }

    fn headers_refused(&self) {
        self.too_large.fetch_add(1, Ordering::Relaxed);
    }
}

struct Served {
    ended: Ended,
    /// Bytes that the client may still send on the connection, and those that it was not told of yet.
    window: (u32, u32),
    streams: usize,
}

fn serve(socket: DuplexStream, service: &Arc<Service>, patience: Patience) -> JoinHandle<Served> {
    let mut connection = Connection::new(socket, Arc::clone(service), 100, patience);
    tokio::spawn(async move {
        let ended = (&mut connection).await;
        let (window, streams) = connection.left();
        Served {
            ended,
            window,
            streams,
        }
    })
}

/// One stream of a client.
#[derive(Debug, Clone)]
struct Plan {
    path: &'static str,
    pieces: Vec<usize>,
    /// Resets the stream after so many pieces.
    cut: Option<usize>,
    /// Lets the server send so much more at a time.
    release: usize,
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let plan = (
        prop_oneof![3 => Just("/echo"), 1 => Just("/count"), 1 => Just("/drop")],
        proptest::collection::vec(
            prop_oneof![4 => Just(0usize), 4 => 1usize..300, 4 => 1usize..40_000, 1 => 1usize..400_000],
            0..6,
        ),
        proptest::option::weighted(0.2, 0usize..4),
        1usize..20_000,
    );
    let plan = plan.prop_map(|(path, pieces, cut, release)| Plan {
        path,
        pieces,
        cut,
        release,
    });
    proptest::collection::vec(plan, 1..12)
}

async fn run(client: h2::client::SendRequest<Bytes>, index: usize, plan: Plan) {
    let mut client = client.ready().await.unwrap();
    let request = Request::post(format!("http://broker{}", plan.path))
        .body(())
        .unwrap();
    let (response, mut sending) = client.send_request(request, false).unwrap();
    let total: usize = plan.pieces.iter().sum();
    let pieces = plan.pieces.clone();
    let cut = plan.cut;
    let send = async move {
        for (at, size) in pieces.into_iter().enumerate() {
            if cut == Some(at) {
                sending.send_reset(h2::Reason::CANCEL);
                return false;
            }
            // Bytes that tell which stream and piece they are of.
            let piece = Bytes::from(vec![(index * 16 + at) as u8; size]);
            // A stream that has ended over there takes no more.
            if sending.send_data(piece, false).is_err() {
                return true;
            }
        }
        let _ = sending.send_data(Bytes::new(), true);
        true
    };
    let read = async move {
        let mut response = response.await?;
        let mut got = Vec::new();
        while let Some(data) = response.body_mut().data().await {
            let data = data?;
            got.extend_from_slice(&data);
            let mut left = data.len();
            while left > 0 {
                let some = left.min(plan.release);
                response.body_mut().flow_control().release_capacity(some)?;
                left -= some;
                tokio::task::yield_now().await;
            }
        }
        let trailers = response.body_mut().trailers().await?;
        Ok::<_, h2::Error>((got, trailers))
    };
    let (is_whole, read) = futures::join!(send, read);
    if !is_whole {
        return;
    }
    match plan.path {
        "/echo" => {
            let expected: Vec<u8> = plan
                .pieces
                .iter()
                .enumerate()
                .flat_map(|(at, &size)| vec![(index * 16 + at) as u8; size])
                .collect();
            assert!(read.unwrap().0 == expected, "stream {index} came back otherwise");
        }
        "/count" => {
            let trailers = read.unwrap().1.unwrap();
            assert_eq!(trailers["count"].to_str().unwrap(), total.to_string());
        }
        _ => assert!(read.unwrap().0.is_empty()),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn another_implementation_gets_back_what_it_sent_whatever_its_windows_and_cuts(
        plans in plans(),
        pipe in 16usize..70_000,
        window in prop_oneof![1u32..100, 100u32..70_000],
    ) {
        // A client of h2 takes thousands of tiny frames for an attack: not so much through a window that is tiny, or
        // opened by tiny steps.
        let total: usize = plans.iter().flat_map(|plan| &plan.pieces).sum();
        let least = if total > 4000 { 512 } else { 1 };
        let window = window.max(least);
        runtime().block_on(async {
            let service = Arc::<Service>::default();
            let (near, far) = tokio::io::duplex(pipe);
            let served = serve(far, &service, PATIENCE);
            let (client, connection) = h2::client::Builder::new()
                .initial_window_size(window)
                .handshake::<_, Bytes>(near)
                .await
                .unwrap();
            let connection = tokio::spawn(connection);
            let streams = plans.into_iter().enumerate().map(|(index, mut plan)| {
                plan.release = plan.release.max(least as usize);
                run(client.clone(), index, plan)
            });
            let all = futures::stream::iter(streams).buffer_unordered(8).for_each(|()| async {});
            tokio::time::timeout(Duration::from_secs(30), all).await.expect("a stream hangs");
            drop(client);
            connection.await.unwrap().unwrap();
            let served = served.await.unwrap();
            // The client may go while it is answered.
            assert!(matches!(served.ended, Ended::Closed | Ended::Broken(_)), "{:?}", served.ended);
            assert_eq!(served.streams, 0);
            assert_eq!(served.window.0 + served.window.1, 2 << 20, "all of the window is there again");
            assert_eq!(service.beside.load(Ordering::Relaxed), 0, "nothing runs on");
        });
    }

    #[test]
    fn whatever_a_client_sends_the_connection_goes_on_or_ends_and_leaves_nothing_behind(
        frames in proptest::collection::vec((0u8..11, any::<u8>(), 0u32..8, proptest::collection::vec(any::<u8>(), 0..20)), 0..60),
    ) {
        runtime().block_on(async {
            let service = Arc::<Service>::default();
            let (mut near, far) = tokio::io::duplex(1 << 20);
            let served = serve(far, &service, PATIENCE);
            near.write_all(PREFACE).await.unwrap();
            near.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            for (kind, flags, stream, payload) in frames {
                let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
                // Every other HEADERS is a request that is taken.
                let (flags, payload) = if kind == 1 && flags.is_multiple_of(2) {
                    let block = [&[0x83, 0x86, 0x04, 5][..], b"/echo", &[0x01, 1, b'a']].concat();
                    bytes = (block.len() as u32).to_be_bytes()[1..].to_vec();
                    (4 | (flags & 1), block)
                } else {
                    (flags, payload)
                };
                bytes.extend([kind, flags]);
                bytes.extend(stream.to_be_bytes());
                bytes.extend(payload);
                if near.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _ = near.shutdown().await;
            let mut said = Vec::new();
            let _ = near.read_to_end(&mut said).await;
            let served = served.await.unwrap();
            let is_told = matches!(served.ended, Ended::Closed) || said.windows(4).any(|bytes| bytes[3] == 7);
            assert!(is_told, "{:?} without a GOAWAY", served.ended);
            drop(served);
            assert_eq!(service.beside.load(Ordering::Relaxed), 0, "nothing runs on");
        });
    }
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_cut_off_and_one_that_answers_is_not() {
    let service = Arc::<Service>::default();
    let (near, far) = tokio::io::duplex(1 << 16);
    let served = serve(far, &service, IMPATIENCE);
    let (client, connection) = h2::client::handshake(near).await.unwrap();
    let connection = tokio::spawn(connection);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!served.is_finished(), "it answers pings");
    connection.abort();
    drop(client);
    assert!(matches!(served.await.unwrap().ended, Ended::Closed));

    let (mut near, far) = tokio::io::duplex(1 << 16);
    let served = serve(far, &service, IMPATIENCE);
    near.write_all(PREFACE).await.unwrap();
    near.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let before = tokio::time::Instant::now();
    assert!(matches!(served.await.unwrap().ended, Ended::Silent));
    assert!(before.elapsed() >= Duration::from_millis(2050));
}

#[tokio::test]
async fn a_client_that_says_nothing_at_first_is_cut_off() {
    let service = Arc::<Service>::default();
    for begins in [&b""[..], &PREFACE[..10], PREFACE] {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        let served = serve(far, &service, IMPATIENCE);
        near.write_all(begins).await.unwrap();
        assert!(matches!(served.await.unwrap().ended, Ended::NotBegun));
    }
}

#[tokio::test]
async fn a_client_that_goes_may_say_more_until_it_has_gone() {
    let service = Arc::<Service>::default();
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let served = serve(far, &service, PATIENCE);
    near.write_all(PREFACE).await.unwrap();
    near.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    near.write_all(&[&[0, 0, 8, 7, 0, 0, 0, 0, 0][..], &[0; 8]].concat())
        .await
        .unwrap();
    let mut said = Vec::new();
    near.read_to_end(&mut said).await.unwrap();
    assert!(
        said.ends_with(&[0, 0, 0, 4, 1, 0, 0, 0, 0]),
        "its settings are answered"
    );
    // On a socket that were closed already this would be an error here, and what was said before could be lost.
    near.write_all(&[&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[0; 8]].concat())
        .await
        .unwrap();
    drop(near);
    assert!(matches!(served.await.unwrap().ended, Ended::Closed));
}

#[tokio::test]
async fn streams_that_are_open_are_served_to_their_end_when_the_broker_stops() {
    let service = Arc::<Service>::default();
    let (near, far) = tokio::io::duplex(1 << 16);
    let mut server = Connection::new(far, Arc::clone(&service), 100, PATIENCE);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        tokio::select! {
            ended = &mut server => return ended,
            _ = stopped => server.shut_down(),
        }
        server.await
    });
    let (client, connection) = h2::client::handshake(near).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = || Request::post("http://broker/echo").body(()).unwrap();
    let (response, mut sending) = client.send_request(request(), false).unwrap();
    sending.send_data(Bytes::from_static(b"before"), false).unwrap();
    let mut response = response.await.unwrap();
    assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "before");
    stop.send(()).unwrap();
    // What the client opens before it knows that the connection ends is served or refused, until it opens nothing more.
    while let Ok(mut client) = client.clone().ready().await
        && let Ok((response, _)) = client.send_request(request(), true)
    {
        let _ = response.await;
    }
    sending.send_data(Bytes::from_static(b"after"), true).unwrap();
    let mut rest = Vec::new();
    while let Some(data) = response.body_mut().data().await {
        rest.extend_from_slice(&data.unwrap());
    }
    assert_eq!(rest, b"after");
    assert!(matches!(served.await.unwrap(), Ended::Closed));
    let _ = connection.await;
}

#[tokio::test]
async fn more_headers_than_allowed_are_answered_with_431_and_counted() {
    let service = Arc::<Service>::default();
    let (near, far) = tokio::io::duplex(1 << 16);
    let served = serve(far, &service, PATIENCE);
    let (client, connection) = h2::client::handshake(near).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = Request::post("http://broker/echo")
        .header("x-large", "x".repeat(15_000))
        .header("x-more", "x".repeat(1500));
    // The client knows the limit, and sends them all the same.
    let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 431);
    assert_eq!(service.too_large.load(Ordering::Relaxed), 1);
    drop(client);
    connection.await.unwrap().unwrap();
    assert!(matches!(served.await.unwrap().ended, Ended::Closed));
}
