//! A load of publishers and groups on one broker, and its end: everything acknowledged is consumed, the broker is
//! killed once more, and the whole log is read back.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::consumer::{Consumer, Member};
use crate::history::check::check;
use crate::history::{Events, History, Outcome, SENTINELS, Stored, WITHOUT_ID};
use crate::process::{PATIENCE, Process};
use crate::producer::{Producer, connect, id};

/// Partitions of the topic.
pub const PARTITIONS: u32 = 3;
/// The groups. All members but one are of the first.
const GROUPS: [&str; 2] = ["shared", "single"];

/// How many do what.
pub struct Shape {
    /// Publishers through the client library.
    streams: u32,
    /// Publishers that send batch by batch, with a producer id.
    unary: u32,
    /// The same without one.
    without_id: u32,
    /// Members of the first group.
    members: usize,
}

/// A light load.
pub const FEW: Shape = Shape {
    streams: 2,
    unary: 2,
    without_id: 1,
    members: 2,
};

/// Many that get into each other's way.
pub const MANY: Shape = Shape {
    streams: 4,
    unary: 12,
    without_id: 2,
    members: 4,
};

/// Publishers and consumers at work.
pub struct Load {
    pub history: Arc<History>,
    producers: JoinSet<()>,
    consumers: JoinSet<()>,
    stop_producing: CancellationToken,
    draining: CancellationToken,
    stop: CancellationToken,
}

impl Load {
    /// Begins, through this address.
    pub fn start(address: SocketAddr, seed: u64, shape: &Shape) -> Self {
        let mut load = Self {
            history: Arc::default(),
            producers: JoinSet::new(),
            consumers: JoinSet::new(),
            stop_producing: CancellationToken::new(),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
        };
        let numbers = (0..shape.streams + shape.unary).chain(WITHOUT_ID..WITHOUT_ID + shape.without_id);
        for number in numbers {
            let producer = load.producer(address, number, seed.wrapping_add(u64::from(number)));
            let stop = load.stop_producing.clone();
            if number < shape.streams {
                load.producers.spawn(producer.stream(stop));
            } else {
                load.producers.spawn(producer.unary(stop));
            }
        }
        for (group, members) in GROUPS.into_iter().zip([shape.members, 1]) {
            let late = Arc::default();
            for member in 0..members {
                let consumer = Consumer {
                    group: group.to_owned(),
                    address,
                    history: Arc::clone(&load.history),
                    random: StdRng::seed_from_u64(seed.wrapping_add(100 + member as u64)),
                    late: Arc::clone(&late),
                    draining: load.draining.clone(),
                };
                load.consumers.spawn(consumer.run(load.stop.clone()));
            }
        }
        load
    }

    fn producer(&self, address: SocketAddr, number: u32, seed: u64) -> Producer {
        Producer {
            number,
            address,
            partitions: PARTITIONS,
            history: Arc::clone(&self.history),
            seed,
            pause: Duration::from_millis(50),
        }
    }

    /// Ends the load, with a kill after everything is consumed and another one before the log is read; panics where
    /// the broker broke its word. The broker must run.
    pub async fn finish(mut self, process: &mut Process) -> Events {
        process.ready().await;
        self.stop_producing.cancel();
        all_end(&mut self.producers, "publishers are acknowledged", process).await;
        self.draining.cancel();
        self.mark(process, 0).await;
        self.consumed(process).await;
        process.kill();
        process.start_ready().await;
        // What comes before this mark now came again.
        self.mark(process, 1).await;
        self.consumed(process).await;
        self.stop.cancel();
        all_end(&mut self.consumers, "consumers end", process).await;
        process.kill();
        process.start_ready().await;
        let last = (0..PARTITIONS)
            .map(|partition| (SENTINELS, mark(partition, 1)))
            .collect();
        let log = read_log(process.data, last).await;
        self.history.set_log(log);
        let events = self.history.events();
        let violations = check(&events, &GROUPS);
        assert!(
            violations.is_empty(),
            "{} violations, the first: {:?}",
            violations.len(),
            &violations[..violations.len().min(10)]
        );
        println!("{}", summary(&events));
        events
    }

    /// Appends a message to each partition behind which nothing else is.
    async fn mark(&self, process: &Process, which: u64) {
        let producer = self.producer(process.data, SENTINELS, 0);
        let mut client = connect(process.data);
        for partition in 0..PARTITIONS {
            let id = (SENTINELS, mark(partition, which));
            producer.send(&mut client, partition, &[id]).await;
        }
    }

    /// Waits until every group has finished all that was acknowledged.
    async fn consumed(&self, process: &mut Process) {
        let began = Instant::now();
        for group in GROUPS {
            while let unfinished = self.history.unfinished(group)
                && !unfinished.is_empty()
            {
                process.check_runs();
                assert!(
                    began.elapsed() < PATIENCE,
                    "group {group} never finished {} of {} messages, as {:?}; the broker: {}",
                    unfinished.len(),
                    self.history.acked(),
                    &unfinished[..unfinished.len().min(5)],
                    process.said()
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn mark(partition: u32, which: u64) -> u64 {
    u64::from(partition) * 10 + which
}

async fn all_end(tasks: &mut JoinSet<()>, what: &str, process: &Process) {
    let all = async {
        while let Some(result) = tasks.join_next().await {
            result.unwrap();
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, all).await;
    assert!(in_time.is_ok(), "never: {what}; the broker: {}", process.said());
}

/// Reads everything from the beginning until the last message of each partition.
async fn read_log(address: SocketAddr, mut last: HashSet<(u32, u64)>) -> Vec<Stored> {
    // What is read here is no delivery of the load.
    let history = Arc::new(History::default());
    let mut member = Member::join(address, "audit", &history).await.unwrap();
    let mut log = Vec::new();
    let mut seen = HashSet::new();
    let began = Instant::now();
    while !last.is_empty() {
        assert!(
            began.elapsed() < PATIENCE,
            "the end of the log never came: {last:?}"
        );
        member.grant(1000).unwrap();
        let held = member.take(Duration::from_millis(200)).await.unwrap();
        let tokens: Vec<_> = held.iter().map(|(held, _)| held.clone()).collect();
        member.settle(&tokens, &[]).await.unwrap();
        for (_, delivery) in held {
            let id = id(&delivery.body);
            last.remove(&id);
            let stored = Stored {
                id,
                partition: delivery.partition,
                offset: delivery.offset,
            };
            if seen.insert((stored.id, stored.partition, stored.offset)) {
                log.push(stored);
            }
        }
    }
    log
}

fn summary(events: &Events) -> String {
    let acked = events
        .appends
        .iter()
        .filter(|append| append.acked.is_some())
        .count();
    let count = |outcome| {
        events
            .settles
            .iter()
            .filter(|settle| settle.outcome == outcome)
            .count()
    };
    format!(
        "{acked} of {} messages acknowledged, {} in the log; {} deliveries; {} answers confirmed, {} stale, {} unknown",
        events.appends.len(),
        events.log.len(),
        events.deliveries.len(),
        count(Outcome::Confirmed),
        count(Outcome::Stale),
        count(Outcome::Unknown),
    )
}
