//! gRPC by hand over h2, for what a well-behaved client would never do: half messages, resets, streams that are not
//! read, connections that go away.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use prost::Message;
use sluice::pb;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// One HTTP/2 connection. Dropping it closes the socket at once, whatever is open on it.
pub struct RawConnection {
    requests: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl Drop for RawConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl RawConnection {
    pub async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_concurrent_reset_streams(1000)
            .enable_push(false)
            .handshake(socket)
            .await
            .map_err(std::io::Error::other)?;
        Ok(Self {
            requests,
            driver: tokio::spawn(connection),
        })
    }

    /// Starts a call of `sluice.v1.Broker`; nothing but headers is sent.
    pub async fn call(&self, method: &str) -> Result<RawStream, h2::Error> {
        self.call_with(method, &[]).await
    }

    /// The same with more headers.
    pub async fn call_with(&self, method: &str, headers: &[(&str, &str)]) -> Result<RawStream, h2::Error> {
        let mut request = http::Request::post(format!("http://test/sluice.v1.Broker/{method}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = self.requests.clone().ready().await?;
        let (response, body) = requests.send_request(request.body(()).expect("a request"), false)?;
        Ok(RawStream {
            body,
            answer: Answer::Waiting(response),
        })
    }

    /// How the connection ends.
    pub async fn ended(mut self) -> Result<(), h2::Error> {
        (&mut self.driver).await.expect("the driver goes on")
    }
}

enum Answer {
    Waiting(ResponseFuture),
    Open(RecvStream),
    Over,
}

/// One call. Dropping it resets it.
pub struct RawStream {
    body: SendStream<Bytes>,
    answer: Answer,
}

/// What a call said.
#[derive(Debug)]
pub enum Said {
    /// Bytes of messages, as they came.
    Bytes(Bytes),
    /// It is over: gRPC's status and its text. No code where the trailers had none.
    Status(Option<i32>, String),
    /// It was reset, or its connection is gone.
    Broken(h2::Error),
}

/// A message with gRPC's five bytes before it.
pub fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).expect("a small message"));
    message.encode(&mut bytes).expect("there is room");
    bytes.freeze()
}

impl RawStream {
    pub fn send(&mut self, bytes: Bytes, is_last: bool) -> Result<(), h2::Error> {
        self.body.send_data(bytes, is_last)
    }

    pub fn reset(&mut self, reason: Reason) {
        self.body.send_reset(reason);
    }

    /// Waits for what it says next.
    pub async fn read(&mut self) -> Said {
        loop {
            match &mut self.answer {
                Answer::Waiting(response) => match response.await {
                    Ok(response) => {
                        let (head, body) = response.into_parts();
                        if body.is_end_stream() {
                            self.answer = Answer::Over;
                            return status(&head.headers);
                        }
                        self.answer = Answer::Open(body);
                    }
                    Err(error) => return self.broken(error),
                },
                Answer::Open(body) => match body.data().await {
                    Some(Ok(bytes)) => {
                        body.flow_control()
                            .release_capacity(bytes.len())
                            .expect("it was received");
                        return Said::Bytes(bytes);
                    }
                    Some(Err(error)) => return self.broken(error),
                    None => {
                        let trailers = body.trailers().await;
                        self.answer = Answer::Over;
                        return match trailers {
                            Ok(trailers) => status(&trailers.unwrap_or_default()),
                            Err(error) => Said::Broken(error),
                        };
                    }
                },
                Answer::Over => return Said::Status(None, "it is over already".to_owned()),
            }
        }
    }

    /// Reads on until it is over.
    pub async fn end(&mut self) -> Said {
        loop {
            match self.read().await {
                Said::Bytes(_) => {}
                end => return end,
            }
        }
    }

    fn broken(&mut self, error: h2::Error) -> Said {
        self.answer = Answer::Over;
        Said::Broken(error)
    }
}

fn status(headers: &http::HeaderMap) -> Said {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Said::Status(
        text("grpc-status").and_then(|code| code.parse().ok()),
        text("grpc-message").unwrap_or_default().to_owned(),
    )
}

/// Takes whole messages out of the bytes of a call.
#[derive(Default)]
pub struct Unframer(BytesMut);

impl Unframer {
    pub fn push<M: Message + Default>(&mut self, bytes: &[u8]) -> Vec<M> {
        self.0.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while self.0.len() >= 5 {
            let length = u32::from_be_bytes([self.0[1], self.0[2], self.0[3], self.0[4]]) as usize;
            if self.0.len() < 5 + length {
                break;
            }
            let frame = self.0.split_to(5 + length).freeze();
            messages.push(M::decode(frame.slice(5..)).expect("a message"));
        }
        messages
    }
}

/// A member that grants everything and reads nothing.
pub async fn stalled_member(connection: &RawConnection) -> RawStream {
    let mut stream = connection.call("Subscribe").await.unwrap();
    let requests = [
        pb::subscribe_request::Request::Open(pb::SubscribeOpen {
            topic: "orders".to_owned(),
            group: "stalled".to_owned(),
            ..pb::SubscribeOpen::default()
        }),
        pb::subscribe_request::Request::Credit(pb::ConsumerCredit {
            messages: 1 << 30,
            bytes: 1 << 40,
        }),
    ];
    for request in requests {
        let request = pb::SubscribeRequest {
            request: Some(request),
        };
        stream.send(framed(&request), false).unwrap();
    }
    stream
}
