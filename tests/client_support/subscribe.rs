//! The subscribing side of the fake: delivers what it owns as far as credit goes, and checks tokens.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use sluice::pb::{self, subscribe_request::Request, subscribe_response::Response};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{Fake, Out};

struct Member {
    fake: Fake,
    group: String,
    direct: bool,
    credit: (u64, u64),
}

pub async fn subscribe(
    fake: Fake,
    mut requests: Streaming<pb::SubscribeRequest>,
) -> Result<Out<pb::SubscribeResponse>, Status> {
    let Some(pb::SubscribeRequest {
        request: Some(Request::Open(open)),
    }) = requests.message().await?
    else {
        return Err(Status::invalid_argument("the first request must be open"));
    };
    fake.check_topic(&open.topic)?;
    if open.group.is_empty() {
        return Err(Status::invalid_argument("a group is required"));
    }
    let (answers, responses) = mpsc::unbounded_channel();
    let answer = move |response| {
        answers
            .send(Ok(pb::SubscribeResponse {
                response: Some(response),
            }))
            .is_ok()
    };
    answer(Response::Welcome(pb::SubscribeWelcome::default()));
    let mut member = Member {
        fake,
        group: open.group,
        direct: open.direct,
        credit: (0, 0),
    };
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        let mut given = Vec::new();
        loop {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(pb::SubscribeRequest { request: Some(Request::Credit(credit)) })) => {
                        member.credit.0 += credit.messages;
                        member.credit.1 += credit.bytes;
                    }
                    Ok(Some(pb::SubscribeRequest { request: Some(Request::Settle(settle)) })) => {
                        answer(Response::Settled(member.settle(settle)));
                    }
                    _ => break,
                },
                _ = tick.tick() => {
                    let deliveries = member.deliver();
                    given.extend(deliveries.iter().map(|one| (one.partition, one.offset as usize)));
                    if !deliveries.is_empty() && !answer(Response::Deliveries(pb::Deliveries { deliveries })) {
                        break;
                    }
                }
            }
        }
        member.leave(given);
    });
    Ok(Out::new(responses))
}

fn token(partition: u32, offset: usize, count: u32, epoch: u64) -> Bytes {
    let mut token = BytesMut::new();
    token.put_u32(partition);
    token.put_u64(offset as u64);
    token.put_u32(count);
    token.put_u64(epoch);
    token.freeze()
}

impl Member {
    fn deliver(&mut self) -> Vec<pb::Delivery> {
        let mut state = self.fake.state.lock();
        let mut deliveries = Vec::new();
        for partition in 0..state.owners.len() {
            let (owner, epoch) = state.owners[partition];
            if self.direct && owner != self.fake.index {
                continue;
            }
            let stored = state.logs[partition].len();
            while self.credit.0 > 0 && deliveries.len() < 50 {
                let group = state.groups.entry((self.group.clone(), partition)).or_default();
                let (offset, count) = match group.again.pop_front() {
                    Some((offset, count)) => (offset, count + 1),
                    None if group.cursor < stored => {
                        group.cursor += 1;
                        (group.cursor - 1, 1)
                    }
                    None => break,
                };
                group.out.insert(offset, count);
                self.credit.0 -= 1;
                let record = &state.logs[partition][offset];
                deliveries.push(pb::Delivery {
                    partition: partition as u32,
                    offset: offset as u64,
                    delivery_count: count,
                    token: token(partition as u32, offset, count, epoch),
                    key: record.key.clone(),
                    body: record.body.clone(),
                    producer_id: record.producer.clone(),
                    sequence: record.sequence,
                    ..pb::Delivery::default()
                });
            }
        }
        deliveries
    }

    fn settle(&mut self, settle: pb::Settle) -> pb::Settled {
        let mut state = self.fake.state.lock();
        let mut settled = pb::Settled::default();
        let acks = settle
            .ack
            .into_iter()
            .chain(settle.give_up)
            .map(|token| (token, false));
        let nacks = settle.nack.into_iter().map(|nack| (nack.token, true));
        for (token, is_nack) in acks.chain(nacks) {
            let mut fields = token.clone();
            let (partition, offset) = (fields.get_u32() as usize, fields.get_u64() as usize);
            let (count, epoch) = (fields.get_u32(), fields.get_u64());
            let is_current = state.owners[partition].1 == epoch;
            let group = state.groups.entry((self.group.clone(), partition)).or_default();
            if is_current && group.out.get(&offset) == Some(&count) {
                group.out.remove(&offset);
                if is_nack {
                    group.again.push_back((offset, count));
                }
                settled.settled.push(token);
            } else {
                let text = "stale".to_owned();
                settled.refused.push(pb::RefusedToken {
                    token,
                    code: 10,
                    text,
                });
            }
        }
        settled
    }

    /// What it had not settled goes to others.
    fn leave(&self, given: Vec<(u32, usize)>) {
        let mut state = self.fake.state.lock();
        for (partition, offset) in given {
            if self.direct && state.owners[partition as usize].0 != self.fake.index {
                continue;
            }
            let group = state
                .groups
                .entry((self.group.clone(), partition as usize))
                .or_default();
            if let Some(count) = group.out.remove(&offset) {
                group.again.push_back((offset, count));
            }
        }
    }
}
