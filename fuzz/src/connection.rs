//! A connection, with whatever a client may send: it goes on or says why it ends, and leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::body::Body;

use super::http2::{Beside, Connection, Dispatch, Ended, Patience, RequestBody};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// `POST http://a/e`.
const REQUEST: &[u8] = &[0x83, 0x86, 0x04, 2, b'/', b'e', 0x01, 1, b'a'];
/// What is said in answer to an input of 1 KiB: some input is sent back, and there are windows and answers.
const MOST_SAID: usize = 1 << 20;
/// Long frames in an input, each a little longer than is allowed at most.
const MOST_LONG: usize = 2;
/// Bytes of a long frame for each that its length says.
const LONG: usize = 1031;

/// Sends back what comes.
#[derive(Default)]
struct Echo(Arc<AtomicUsize>);

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Dispatch for Echo {
    fn call(&self, request: Request<RequestBody>) -> BoxFuture<'static, Response<Body>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(&self.0));
        async move {
            let mut response = Response::new(Body::new(request.into_body()));
            response.extensions_mut().insert(Beside::new(async move {
                let _running = running;
                std::future::pending::<()>().await;
            }));
            response
        }
        .boxed()
    }

    fn headers_refused(&self) {}
}

/// The first byte says how much is sent at a time; then a frame each: kind, flags, stream, length, payload. A kind that
/// is not one is a request that is taken, or DATA that is long. What is sent, and how many long frames are in it.
fn wire(input: &[u8]) -> (Vec<u8>, usize) {
    let mut bytes = [PREFACE, SETTINGS].concat();
    let mut long = 0;
    let mut rest = input;
    while let [kind, flags, stream, length, more @ ..] = rest {
        let (payload, left) = more.split_at(usize::from(*length).min(more.len()));
        rest = left;
        let (kind, flags, payload, size) = match kind % 16 {
            kind @ 0..11 => (kind, *flags, payload, payload.len()),
            11 if long < MOST_LONG => {
                long += 1;
                (0, *flags, payload, payload.len().max(usize::from(*length) * LONG))
            }
            _ => (1, 4 | (flags & 1), REQUEST, REQUEST.len()),
        };
        bytes.extend_from_slice(&(size as u32).to_be_bytes()[1..]);
        bytes.extend([kind, flags, 0, 0, 0, *stream]);
        let end = bytes.len() + size;
        bytes.extend_from_slice(payload);
        bytes.resize(end, 0);
    }
    (bytes, long)
}

/// One input.
pub fn run(data: &[u8]) {
    let Some((&cut, input)) = data.split_first() else {
        return;
    };
    let (bytes, long) = wire(input);
    let at_a_time = (usize::from(cut) + 1) * if long > 0 { 256 } else { 1 };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let service = Arc::new(Echo::default());
        let (near, far) = tokio::io::duplex(64 << 10);
        let patience = Patience {
            handshake: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
        };
        let connection = Connection::new(far, Arc::clone(&service), 4, patience);
        let served = tokio::spawn(connection);
        let (mut reading, mut writing) = tokio::io::split(near);
        let most_said = MOST_SAID + 2 * long * 255 * LONG;
        // Beside the sending: who does not read is told nothing.
        let heard = tokio::spawn(async move {
            let mut said = Vec::new();
            let _ = (&mut reading)
                .take(2 * most_said as u64)
                .read_to_end(&mut said)
                .await;
            said
        });
        for piece in bytes.chunks(at_a_time) {
            if writing.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = writing.shutdown().await;
        let said = heard.await.unwrap();
        assert!(said.len() < most_said, "{} bytes in answer", said.len());
        let ended = served.await.unwrap();
        let is_told =
            matches!(ended, Ended::Closed | Ended::Broken(_)) || frames(&said).any(|kind| kind == 7);
        assert!(is_told, "{ended:?} without a GOAWAY");
        assert_eq!(service.0.load(Ordering::Relaxed), 0, "nothing runs on");
    });
}

/// The kinds of the frames that were said; each must be whole, but for the last.
fn frames(mut said: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let [a, b, c, kind, _, _, _, _, _, rest @ ..] = said else {
            return None;
        };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        assert!(length <= 16 << 10, "a frame of {length} bytes");
        said = rest.get(length..).unwrap_or_default();
        Some(*kind)
    })
}
