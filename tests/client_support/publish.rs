//! The publishing side of the fake: stores, refuses, and checks what a publisher must keep to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use sluice::pb::{self, publish_request::Request, publish_response::Response};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{Fake, Out, Record};

type Answers = mpsc::UnboundedSender<Result<pb::PublishResponse, Status>>;

struct Stream {
    fake: Fake,
    answers: Answers,
    unacked: Arc<AtomicU64>,
    producer: String,
    last: u64,
    /// Partitions of which something was refused: what comes after it is refused as well.
    fenced: HashSet<u32>,
    acks: mpsc::UnboundedSender<(pb::Ack, u64)>,
}

pub async fn publish(
    fake: Fake,
    mut requests: Streaming<pb::PublishRequest>,
) -> Result<Out<pb::PublishResponse>, Status> {
    let Some(pb::PublishRequest {
        request: Some(Request::Open(open)),
    }) = requests.message().await?
    else {
        return Err(Status::invalid_argument("the first request must be open"));
    };
    fake.check_topic(&open.topic)?;
    if open.producer_id == "bad" {
        return Err(Status::invalid_argument("this producer id is bad"));
    }
    fake.state.lock().streams_opened += 1;
    let (answers, responses) = mpsc::unbounded_channel();
    let (messages, bytes) = fake.state.lock().faults.credit;
    let credit = pb::Credit { messages, bytes };
    answer(
        &answers,
        Response::Welcome(pb::PublishWelcome {
            credit: Some(credit),
            partitions: fake.state.lock().owners.len() as u32,
            max_message_bytes: 100_000,
            durability: pb::Durability::Memory.into(),
            broker: fake.index.to_string(),
        }),
    );
    let unacked = Arc::new(AtomicU64::new(0));
    let (acks, delayed) = mpsc::unbounded_channel();
    tokio::spawn(acknowledge(
        fake.clone(),
        delayed,
        answers.clone(),
        unacked.clone(),
    ));
    let cut = fake.cuts.lock().clone();
    let mut stream = Stream {
        fake,
        answers,
        unacked,
        producer: open.producer_id,
        last: 0,
        fenced: HashSet::new(),
        acks,
    };
    tokio::spawn(async move {
        loop {
            let request = tokio::select! {
                request = requests.message() => request,
                () = cut.cancelled() => {
                    let _ = stream.answers.send(Err(Status::unavailable("cut")));
                    return;
                }
            };
            match request {
                Ok(Some(pb::PublishRequest {
                    request: Some(Request::Batch(batch)),
                })) => stream.take(batch),
                _ => return,
            }
        }
    });
    Ok(Out::new(responses))
}

fn answer(answers: &Answers, response: Response) {
    let _ = answers.send(Ok(pb::PublishResponse {
        response: Some(response),
    }));
}

async fn acknowledge(
    fake: Fake,
    mut delayed: mpsc::UnboundedReceiver<(pb::Ack, u64)>,
    answers: Answers,
    unacked: Arc<AtomicU64>,
) {
    while let Some((ack, count)) = delayed.recv().await {
        let delay = fake.state.lock().faults.ack_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        unacked.fetch_sub(count, SeqCst);
        answer(&answers, Response::Ack(ack));
    }
}

impl Stream {
    fn take(&mut self, batch: pb::PublishBatch) {
        let count = batch.payloads.len() as u64;
        let bytes: usize = batch.payloads.iter().map(prost::Message::encoded_len).sum();
        let mut state = self.fake.state.lock();
        state.told.push((batch.offered_messages.unwrap_or(0), count));
        let unacked = self.unacked.fetch_add(count, SeqCst) + count;
        let credit = state.faults.credit;
        if unacked > credit.0 || bytes as u64 > credit.1 {
            state.violations.push(format!(
                "{unacked} unacknowledged, {bytes} bytes; credit is {credit:?}"
            ));
        }
        let mut refused: HashMap<(u32, bool), Vec<u64>> = HashMap::new();
        let mut ack = pb::Ack {
            durability: pb::Durability::Memory.into(),
            ..pb::Ack::default()
        };
        let mut acked = 0;
        for payload in batch.payloads {
            let sequence = payload.sequence;
            if sequence <= self.last {
                state
                    .violations
                    .push(format!("sequence {sequence} after {}", self.last));
            }
            self.last = sequence;
            let Some(partition) = payload.partition else {
                state.violations.push(format!("{payload:?} has no partition"));
                continue;
            };
            let is_moved = state.owners[partition as usize].0 != self.fake.index;
            let is_throttled = state.faults.throttle > 0;
            if is_throttled {
                state.faults.throttle -= 1;
            }
            if is_moved || is_throttled || self.fenced.contains(&partition) {
                self.fenced.insert(partition);
                refused.entry((partition, is_moved)).or_default().push(sequence);
                continue;
            }
            if state.faults.reject.as_ref() == Some(&payload.body) {
                let text = "this body is bad".to_owned();
                answer(
                    &self.answers,
                    Response::Rejected(pb::Rejected {
                        sequence,
                        code: 3,
                        text,
                    }),
                );
                self.unacked.fetch_sub(1, SeqCst);
                continue;
            }
            acked += 1;
            ack.sequence = sequence;
            let key = (self.producer.clone(), partition as usize);
            if !self.producer.is_empty() && !state.seen.entry(key).or_default().insert(sequence) {
                ack.duplicates += 1;
                continue;
            }
            let hits = |every: u64| every > 0 && sequence.is_multiple_of(every);
            let times = match () {
                () if hits(state.faults.lose_every) => 0,
                () if hits(state.faults.duplicate_every) => 2,
                () => 1,
            };
            let record = Record {
                producer: self.producer.clone(),
                sequence,
                key: payload.key,
                body: payload.body,
            };
            let swaps = hits(state.faults.swap_every);
            let log = &mut state.logs[partition as usize];
            log.extend(std::iter::repeat_n(record, times));
            if swaps && log.len() > 1 {
                let last = log.len() - 1;
                log.swap(last - 1, last);
            }
            let offset = log.len() as u64;
            ack.offsets.retain(|known| known.partition != partition);
            ack.offsets.push(pb::PartitionOffset { partition, offset });
        }
        for ((partition, is_moved), sequences) in refused {
            self.unacked.fetch_sub(sequences.len() as u64, SeqCst);
            let (owner, epoch) = state.owners[partition as usize];
            let response = if is_moved {
                let address = state.addresses[owner].clone();
                Response::Moved(pb::Moved {
                    partition,
                    address,
                    epoch,
                    sequences,
                })
            } else {
                let retry_after = Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 20_000_000,
                });
                Response::Throttled(pb::Throttled {
                    sequences,
                    retry_after,
                    reason: "a test".to_owned(),
                })
            };
            answer(&self.answers, response);
        }
        if acked > 0 {
            let _ = self.acks.send((ack, acked));
        }
    }
}
