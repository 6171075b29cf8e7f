//! One stream: what is due goes out as soon as its credit allows, answers are read and timed.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use parking_lot::Mutex;

use super::Load;
use super::latency::Latencies;
use super::pace::Pace;
use super::speech::{Answer, unframed};

/// What all streams of a load have in common.
pub(super) struct Common {
    pub(super) load: Load,
    pub(super) pace: Pace,
    pub(super) latencies: Latencies,
    pub(super) body: Bytes,
}

/// The half of a stream that sends.
pub(super) struct Stream {
    common: Arc<Common>,
    out: SendStream<Bytes>,
    /// The highest number that is due, sent and settled. Numbers begin with one.
    due: u64,
    sent: u64,
    settled: u64,
    credit: u64,
}

/// A stream that is open, and what reads its answers until it ends.
pub(super) type Opened = (Arc<Mutex<Stream>>, BoxFuture<'static, anyhow::Result<()>>);

impl Stream {
    /// All messages up to this one are due.
    pub(super) fn due(&mut self, number: u64) {
        self.due = number;
        self.go();
    }

    fn go(&mut self) {
        let protocol = self.common.load.protocol;
        let last = self.due.min(self.settled.saturating_add(self.credit));
        while self.sent < last {
            let first = self.sent + 1;
            self.sent = last.min(self.sent + protocol.together());
            let messages = protocol.messages(first..=self.sent, &self.common.body);
            // Why a stream has failed is told by what reads it.
            if self.out.send_data(messages, false).is_err() {
                return;
            }
        }
    }
}

/// Opens the stream number `index` of a load.
pub(super) async fn open(
    common: Arc<Common>,
    connection: SendRequest<Bytes>,
    index: usize,
) -> anyhow::Result<Opened> {
    let protocol = common.load.protocol;
    let request = Request::post(format!("http://{}{}", common.load.address, protocol.path()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut out) = connection.ready().await?.send_request(request, false)?;
    let mut answers = Answers {
        response: Some(response),
        body: None,
        input: BytesMut::new(),
    };
    let mut credit = u64::MAX;
    // grpc-go answers nothing before its first ack, so that cannot be waited for.
    if let Some(opening) = protocol.opening(&common.load.topic) {
        out.send_data(opening, false)?;
        let first = answers.next().await?.context("the stream ended at once")?;
        match protocol.answer(first)? {
            Some(Answer::Credit(granted)) => credit = granted,
            _ => bail!("the stream was not welcomed"),
        }
    }
    let stream = Arc::new(Mutex::new(Stream {
        common: Arc::clone(&common),
        out,
        due: 0,
        sent: 0,
        settled: 0,
        credit,
    }));
    let reading = read(common, Arc::clone(&stream), answers, index);
    Ok((stream, Box::pin(reading)))
}

async fn read(
    common: Arc<Common>,
    stream: Arc<Mutex<Stream>>,
    mut answers: Answers,
    index: usize,
) -> anyhow::Result<()> {
    while let Some(answer) = answers.next().await? {
        let Some(answer) = common.load.protocol.answer(answer)? else {
            continue;
        };
        let mut stream = stream.lock();
        match answer {
            Answer::Credit(credit) => stream.credit = credit,
            Answer::Settled(number) => {
                for number in stream.settled + 1..=number {
                    if let Some(latency) = common.pace.latency(index, number) {
                        common.latencies.record(latency);
                    }
                }
                stream.settled = number;
            }
        }
        stream.go();
    }
    bail!("the server ended a stream")
}

/// The half of a stream that receives.
struct Answers {
    /// Until its headers have come.
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    input: BytesMut,
}

impl Answers {
    /// The next message; `None` at the end of a call that went well.
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        if let Some(response) = self.response.take() {
            let (head, body) = response.await?.into_parts();
            went_well(&head.headers)?;
            self.body = Some(body);
        }
        let body = self.body.as_mut().context("it has ended")?;
        loop {
            if let Some(message) = unframed(&mut self.input) {
                return Ok(Some(message));
            }
            match body.data().await {
                Some(data) => {
                    let data = data.context("reading an answer")?;
                    body.flow_control().release_capacity(data.len())?;
                    self.input.extend_from_slice(&data);
                }
                None => {
                    went_well(&body.trailers().await?.unwrap_or_default())?;
                    return Ok(None);
                }
            }
        }
    }
}

/// An error if headers or trailers say so.
fn went_well(headers: &HeaderMap) -> anyhow::Result<()> {
    match headers.get("grpc-status") {
        Some(status) if status != "0" => {
            bail!("status {status:?}: {:?}", headers.get("grpc-message"))
        }
        _ => Ok(()),
    }
}
