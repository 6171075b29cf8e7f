//! What is said to a server, and how its answers are read.

use std::ops::RangeInclusive;

use anyhow::{Context as _, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use clap::ValueEnum;
use prost::Message;
use serde::{Deserialize, Serialize};
use sluice::pb;
use sluice::pb::publish_request::Request;
use sluice::pb::publish_response::Response;

use crate::article;

/// A message of gRPC has a byte that says whether it is compressed, and its length in four, before it.
const PREFIX: usize = 5;
/// Messages of one batch, at most.
const BATCH: u64 = 512;

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// A payload in, an ack out.
    Article,
    /// Sluice's Publish: what is due together goes in one batch, acks are cumulative.
    Sluice,
}

/// What an answer says.
pub(super) enum Answer {
    /// So many messages may be unsettled.
    Credit(u64),
    /// All up to this one are settled.
    Settled(u64),
}

impl Protocol {
    /// The method that is called.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Article => "/article.v1.Handler/Handle",
            Self::Sluice => "/sluice.v1.Broker/Publish",
        }
    }

    /// How many messages go together, at most.
    pub(super) fn together(self) -> u64 {
        match self {
            Self::Article => 1,
            Self::Sluice => BATCH,
        }
    }

    /// What a stream begins with, if it is to wait for credit then.
    pub(super) fn opening(self, topic: &str) -> Option<Bytes> {
        let open = pb::PublishOpen {
            topic: topic.to_owned(),
            ..pb::PublishOpen::default()
        };
        match self {
            Self::Article => None,
            Self::Sluice => Some(framed(&pb::PublishRequest {
                request: Some(Request::Open(open)),
            })),
        }
    }

    /// Messages of these numbers; at most as many as go together.
    pub(super) fn messages(self, numbers: RangeInclusive<u64>, body: &Bytes) -> Bytes {
        match self {
            Self::Article => framed(&article::Payload {
                sequence: *numbers.end(),
                body: body.clone(),
            }),
            Self::Sluice => {
                let payloads = numbers.map(|sequence| pb::Payload {
                    sequence,
                    body: body.clone(),
                    ..pb::Payload::default()
                });
                let batch = pb::PublishBatch {
                    payloads: payloads.collect(),
                    ..pb::PublishBatch::default()
                };
                framed(&pb::PublishRequest {
                    request: Some(Request::Batch(batch)),
                })
            }
        }
    }

    /// Reads an answer; `None` if it says nothing of interest.
    pub(super) fn answer(self, answer: Bytes) -> anyhow::Result<Option<Answer>> {
        match self {
            Self::Article => Ok(Some(Answer::Settled(article::Ack::decode(answer)?.sequence))),
            Self::Sluice => match pb::PublishResponse::decode(answer)?.response {
                Some(Response::Ack(ack)) => Ok(Some(Answer::Settled(ack.sequence))),
                Some(Response::Credit(credit)) => Ok(Some(Answer::Credit(credit.messages))),
                Some(Response::Welcome(welcome)) => {
                    let credit = welcome.credit.context("a welcome without credit")?;
                    Ok(Some(Answer::Credit(credit.messages)))
                }
                Some(other) => bail!("the broker refused a message: {other:?}"),
                None => Ok(None),
            },
        }
    }
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX + length);
    out.put_u8(0);
    out.put_u32(length as u32);
    message.encode_raw(&mut out);
    out.freeze()
}

/// Takes the next message from what has come.
pub(super) fn unframed(input: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(input.get(1..PREFIX)?.try_into().ok()?) as usize;
    if input.len() < PREFIX + length {
        return None;
    }
    let mut message = input.split_to(PREFIX + length).freeze();
    Some(message.split_off(PREFIX))
}
