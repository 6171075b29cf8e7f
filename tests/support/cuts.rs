//! A model of a call's life, and what cuts it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use sluice::pb;

use super::raw::{RawConnection, RawStream, Said, Unframer, framed};

/// Calls at once on one connection: fewer than the broker takes for a flood of resets.
pub const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Publish,
    Subscribe,
    Send,
    WatchTopology,
}

/// What a client may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The opening of a stream, or the request of a call that has only one.
    Open,
    /// Messages to publish, or credit.
    Ask,
    /// Acknowledges what was delivered, or something that was not.
    Settle,
    /// A part of a message.
    Half,
    /// A message that cannot be decoded: the broker ends the stream.
    Garbage,
    /// More than the credit: the broker ends the stream.
    Overrun,
    /// Waits for an answer, where one is due.
    Read,
    /// The client sends no more.
    HalfClose,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// RST_STREAM.
    Reset,
    /// The socket is closed.
    Disconnect,
    /// The client sends no more and reads to the end.
    Finish,
}

#[derive(Debug, Clone)]
pub struct Life {
    pub method: Method,
    pub steps: Vec<Step>,
    pub cut: Cut,
}

const METHODS: [Method; 4] = [
    Method::Publish,
    Method::Subscribe,
    Method::Send,
    Method::WatchTopology,
];
const CUTS: [Cut; 3] = [Cut::Reset, Cut::Disconnect, Cut::Finish];

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Publish => "Publish",
            Self::Subscribe => "Subscribe",
            Self::Send => "Send",
            Self::WatchTopology => "WatchTopology",
        }
    }

    fn steps(self) -> &'static [Step] {
        use Step::{Ask, Garbage, Half, HalfClose, Open, Overrun, Read, Settle};
        match self {
            Self::Publish => &[Open, Ask, Half, Garbage, Overrun, Read, HalfClose],
            Self::Subscribe => &[Open, Ask, Settle, Half, Garbage, Read, HalfClose],
            Self::Send | Self::WatchTopology => &[Open, Half, Garbage, Read, HalfClose],
        }
    }
}

/// Every life of at most `longest` steps, with every end.
pub fn all_lives(longest: usize) -> Vec<Life> {
    let mut lives = Vec::new();
    for method in METHODS {
        let mut sequences = vec![Vec::new()];
        let mut from = 0;
        for _ in 0..longest {
            let to = sequences.len();
            for at in from..to {
                for &step in method.steps() {
                    let mut longer: Vec<Step> = sequences[at].clone();
                    longer.push(step);
                    sequences.push(longer);
                }
            }
            from = to;
        }
        for steps in sequences {
            lives.extend(CUTS.map(|cut| Life {
                method,
                steps: steps.clone(),
                cut,
            }));
        }
    }
    lives
}

/// A longer life, mostly one that goes well until it is cut.
pub fn random_life(random: &mut StdRng) -> Life {
    let method = *METHODS[..if random.random_bool(0.9) { 2 } else { 4 }]
        .choose(random)
        .unwrap();
    let mut steps = vec![Step::Open];
    for _ in 0..random.random_range(0..12) {
        steps.push(loop {
            let step = *method.steps().choose(random).unwrap();
            let is_fatal = matches!(
                step,
                Step::Half | Step::Garbage | Step::Overrun | Step::HalfClose | Step::Open
            );
            if !is_fatal || random.random_bool(0.1) {
                break step;
            }
        });
    }
    Life {
        method,
        steps,
        cut: *CUTS.choose(random).unwrap(),
    }
}

/// Lives so many lives on one connection, at once, and closes it.
///
/// # Errors
/// What was not as it should be.
pub async fn live_on_one_connection(
    address: std::net::SocketAddr,
    lives: &[Life],
    seed: u64,
) -> Result<(), String> {
    let connection = RawConnection::open(address)
        .await
        .map_err(|error| error.to_string())?;
    let running = lives.iter().enumerate().map(|(at, life)| {
        let connection = &connection;
        async move {
            let random = StdRng::seed_from_u64(seed ^ ((at as u64) << 48));
            tokio::time::timeout(PATIENCE, live(connection, life, random))
                .await
                .unwrap_or_else(|_| Err("an answer is due and does not come".to_owned()))
                .map_err(|problem| format!("{life:?}: {problem}"))
        }
    });
    // What is to be disconnected is open until all have come so far.
    let _open = futures::future::try_join_all(running).await?;
    Ok(())
}

struct Living {
    stream: RawStream,
    /// At least one more answer comes.
    due: bool,
    /// It is broken by half a message, or by something that makes the broker end it.
    spoilt: bool,
    closed: bool,
    tokens: Vec<Bytes>,
    unframer: Unframer,
    sequence: u64,
}

async fn live(connection: &RawConnection, life: &Life, mut random: StdRng) -> Result<RawStream, String> {
    let stream = connection
        .call(life.method.name())
        .await
        .map_err(|error| error.to_string())?;
    let mut living = Living {
        stream,
        due: false,
        spoilt: false,
        closed: false,
        tokens: Vec::new(),
        unframer: Unframer::default(),
        // So that repeated sequences of the few producers occur.
        sequence: random.random_range(0..1 << 20),
    };
    for &step in &life.steps {
        living.step(life.method, step, &mut random).await?;
        // What the broker has done meanwhile differs.
        for _ in 0..random.random_range(0..3) {
            tokio::task::yield_now().await;
        }
    }
    match life.cut {
        Cut::Reset => living.stream.reset(Reason::CANCEL),
        Cut::Disconnect => {}
        // The topology is told for as long as anybody listens.
        Cut::Finish if life.method == Method::WatchTopology => living.stream.reset(Reason::CANCEL),
        Cut::Finish => {
            if !living.closed {
                let _ = living.stream.send(Bytes::new(), true);
            }
            if let Said::Broken(error) = living.stream.end().await
                && !living.spoilt
            {
                return Err(format!("it did not end well: {error}"));
            }
        }
    }
    Ok(living.stream)
}

impl Living {
    async fn step(&mut self, method: Method, step: Step, random: &mut StdRng) -> Result<(), String> {
        if step == Step::Read {
            return self.read(method).await;
        }
        if self.closed {
            return Ok(());
        }
        let is_unary = matches!(method, Method::Send | Method::WatchTopology);
        let bytes = match step {
            Step::Open => self.opening(method, random),
            Step::Ask => match method {
                Method::Subscribe => framed(&subscribe(pb::subscribe_request::Request::Credit(
                    pb::ConsumerCredit {
                        messages: random.random_range(0..4),
                        bytes: 1 << 20,
                    },
                ))),
                _ => self.batch(2),
            },
            Step::Overrun => {
                self.spoilt = true;
                self.batch(200)
            }
            Step::Settle => self.settle(random),
            Step::Half => Bytes::from_static(&[0, 0, 0, 1, 0, 10, 3]),
            Step::Garbage => {
                self.spoilt = true;
                Bytes::from_static(&[0, 0, 0, 0, 4, 255, 255, 255, 255])
            }
            Step::HalfClose | Step::Read => Bytes::new(),
        };
        self.closed = step == Step::HalfClose;
        // It may have ended already.
        let _ = self.stream.send(bytes, self.closed);
        if step == Step::Half {
            self.spoilt = true;
            // Whatever follows is swallowed by it, until the client sends no more.
            self.due = false;
        } else if is_unary {
            self.due |= self.closed;
        } else if !self.spoilt || self.closed {
            self.due = true;
        }
        Ok(())
    }

    async fn read(&mut self, method: Method) -> Result<(), String> {
        if !std::mem::take(&mut self.due) {
            return Ok(());
        }
        match self.stream.read().await {
            Said::Bytes(bytes) if method == Method::Subscribe => {
                for response in self.unframer.push::<pb::SubscribeResponse>(&bytes) {
                    if let Some(pb::subscribe_response::Response::Deliveries(batch)) = response.response {
                        self.tokens
                            .extend(batch.deliveries.into_iter().map(|one| one.token));
                    }
                }
                Ok(())
            }
            Said::Broken(error) if !self.spoilt => Err(format!("it broke: {error}")),
            _ => Ok(()),
        }
    }

    fn opening(&mut self, method: Method, random: &mut StdRng) -> Bytes {
        let producer_id = match random.random_range(0..4) {
            0 => format!("producer-{}", random.random_range(0..8)),
            _ => String::new(),
        };
        match method {
            Method::Publish => framed(&publish(pb::publish_request::Request::Open(pb::PublishOpen {
                topic: "orders".to_owned(),
                producer_id,
                direct: random.random_bool(0.5),
            }))),
            Method::Subscribe => framed(&subscribe(pb::subscribe_request::Request::Open(
                pb::SubscribeOpen {
                    topic: "orders".to_owned(),
                    group: format!("group-{}", random.random_range(0..3)),
                    direct: random.random_bool(0.5),
                    ..pb::SubscribeOpen::default()
                },
            ))),
            Method::Send => framed(&pb::SendRequest {
                topic: "orders".to_owned(),
                producer_id,
                payloads: self.payloads(2),
                direct: false,
            }),
            Method::WatchTopology => framed(&pb::WatchTopologyRequest::default()),
        }
    }

    fn payloads(&mut self, count: u64) -> Vec<pb::Payload> {
        let first = self.sequence + 1;
        self.sequence += count;
        let payload = |sequence| pb::Payload {
            sequence,
            body: Bytes::from_static(&[7; 64]),
            ..pb::Payload::default()
        };
        (first..first + count).map(payload).collect()
    }

    fn batch(&mut self, count: u64) -> Bytes {
        let batch = pb::PublishBatch {
            payloads: self.payloads(count),
            waited_nanos: 0,
            offered_messages: None,
        };
        framed(&publish(pb::publish_request::Request::Batch(batch)))
    }

    fn settle(&mut self, random: &mut StdRng) -> Bytes {
        let mut settle = pb::Settle::default();
        let mut tokens = std::mem::take(&mut self.tokens).into_iter();
        settle.ack.extend(tokens.next());
        settle.nack.extend(tokens.next().map(|token| pb::Nack {
            token,
            ..pb::Nack::default()
        }));
        self.tokens.extend(tokens);
        if settle.ack.is_empty() || random.random_bool(0.2) {
            settle.give_up.push(Bytes::from_static(b"no token"));
        }
        framed(&subscribe(pb::subscribe_request::Request::Settle(settle)))
    }
}

fn publish(request: pb::publish_request::Request) -> pb::PublishRequest {
    pb::PublishRequest {
        request: Some(request),
    }
}

fn subscribe(request: pb::subscribe_request::Request) -> pb::SubscribeRequest {
    pb::SubscribeRequest {
        request: Some(request),
    }
}
