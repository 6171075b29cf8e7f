//! The publisher's task: owns all of its state, and waits for what happens next.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::builder::Settings;
use super::link::Link;
use super::partition::{Entry, Partition};
use super::session::Event;
use super::{Buffer, Command, Counters, Done, OnSettled, Settled, Stored, add};
use crate::client::error::PublishError;
use crate::client::message::{Message, payload_bytes};
use crate::client::{Client, ClusterView};
use crate::pb;

/// Events of all streams that may wait for the driver.
const EVENTS: usize = 256;
/// How often timeouts are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long a publisher that has nothing to do sleeps.
const IDLE: Duration = Duration::from_secs(3600);
/// How long streams may take to end when the publisher closes.
const CLOSE: Duration = Duration::from_secs(2);

pub(super) struct Driver {
    pub(super) client: Client,
    pub(super) settings: Settings,
    on_settled: Option<OnSettled>,
    buffer: Arc<Buffer>,
    pub(super) stats: Arc<Counters>,
    topology: watch::Receiver<Arc<ClusterView>>,
    pub(super) view: Arc<ClusterView>,
    pub(super) partitions: Vec<Partition>,
    pub(super) links: Vec<Link>,
    /// Messages of a topic that does not exist yet.
    pub(super) unrouted: VecDeque<Entry>,
    pub(super) tasks: JoinSet<()>,
    pub(super) events: mpsc::Sender<Event>,
    happened: mpsc::Receiver<Event>,
    next_sequence: u64,
    pub(super) next_session: u64,
    /// Where messages without a key go, and how many more of them.
    pub(super) sticky: (usize, usize),
    settled: Vec<Settled>,
    freed: (usize, u64),
    outstanding: u64,
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    pub(super) is_closing: bool,
    /// Partitions may have to be given to other links.
    pub(super) is_moving: bool,
    pub(super) place_at: Option<Instant>,
    pub(super) pump_at: Option<Instant>,
    pub(super) tick_at: Instant,
    /// Nothing can be published any more.
    pub(super) refused: Option<PublishError>,
    pub(super) acks: u64,
    pub(super) scratch: Vec<Entry>,
    pub(super) forward_index: usize,
    pub(super) probe_at: Instant,
    pub(super) probe_problem: Option<PublishError>,
    /// Streams that were half-closed, and when they are cut.
    pub(super) ending: Vec<(Instant, AbortHandle)>,
}

impl Driver {
    pub(super) fn new(
        client: Client,
        settings: Settings,
        on_settled: Option<OnSettled>,
        buffer: Arc<Buffer>,
        stats: Arc<Counters>,
    ) -> Self {
        let (events, happened) = mpsc::channel(EVENTS);
        let topology = client.inner.view.clone();
        let now = Instant::now();
        Self {
            view: Arc::new(ClusterView::default()),
            next_sequence: settings.first_sequence,
            client,
            settings,
            on_settled,
            buffer,
            stats,
            topology,
            partitions: Vec::new(),
            links: Vec::new(),
            unrouted: VecDeque::new(),
            tasks: JoinSet::new(),
            events,
            happened,
            next_session: 1,
            sticky: (0, 0),
            settled: Vec::new(),
            freed: (0, 0),
            outstanding: 0,
            flushes: Vec::new(),
            is_closing: false,
            is_moving: true,
            place_at: None,
            pump_at: None,
            tick_at: now,
            refused: None,
            acks: 0,
            scratch: Vec::new(),
            forward_index: 0,
            probe_at: now,
            probe_problem: None,
            ending: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut commands = Vec::new();
        let mut events = Vec::new();
        self.view = self.topology.borrow_and_update().clone();
        while !self.is_closing || self.outstanding > 0 {
            let wake_at = self.wake_at();
            tokio::select! {
                received = inbox.recv_many(&mut commands, 64), if !self.is_closing => {
                    self.is_closing = received == 0;
                }
                _ = self.happened.recv_many(&mut events, EVENTS) => {}
                changed = self.topology.changed() => if changed.is_ok() {
                    self.view = self.topology.borrow_and_update().clone();
                    self.is_moving = true;
                },
                () = any_room(&self.links) => {}
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
            let now = Instant::now();
            for event in events.drain(..) {
                self.handle(event, now);
            }
            for command in commands.drain(..) {
                self.accept(command, now);
            }
            if now >= self.tick_at {
                self.tick(now);
                self.tick_at = now + TICK;
            }
            if self.is_moving || self.place_at.is_some_and(|at| at <= now) {
                self.place(now);
            }
            self.pump(now);
            self.report();
            self.finish_flushes();
            while self.tasks.try_join_next().is_some() {}
        }
        for link in &mut self.links {
            link.session = None;
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // What is left is cut when the set is dropped; everything was answered before.
        let _ = tokio::time::timeout(CLOSE, ended).await;
    }

    fn wake_at(&self) -> Instant {
        let tick_at = if self.outstanding > 0 {
            self.tick_at
        } else {
            Instant::now() + IDLE
        };
        [self.place_at, self.pump_at]
            .into_iter()
            .flatten()
            .fold(tick_at, Instant::min)
    }

    fn accept(&mut self, command: Command, now: Instant) {
        match command {
            Command::Messages(messages) => {
                for (message, done) in messages {
                    let entry = self.number(message, done, now);
                    self.outstanding += 1;
                    if let Some(error) = self.refused.clone() {
                        self.settle(entry, Err(error));
                    } else if self.partitions.is_empty() {
                        self.unrouted.push_back(entry);
                        self.is_moving = true;
                    } else {
                        self.route(entry, now);
                    }
                }
                // The next batch without keys goes to the next partition.
                self.sticky.1 = 0;
            }
            Command::Flush(done) => self.flushes.push((self.next_sequence, done)),
        }
    }

    /// Gives a message its sequence, which it keeps however often it is sent.
    fn number(&mut self, message: Message, done: Done, now: Instant) -> Entry {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let bytes = payload_bytes(&message);
        let headers = message
            .headers
            .into_iter()
            .map(|(name, value)| pb::Header { name, value })
            .collect();
        let payload = pb::Payload {
            key: message.key,
            headers,
            body: message.body,
            sequence,
            partition: message.partition,
        };
        Entry {
            sequence,
            partition: u32::MAX,
            bytes,
            accepted: now,
            payload,
            done,
        }
    }

    /// Tells the caller, and gives the message's place in the buffer back.
    pub(super) fn settle(&mut self, entry: Entry, result: Result<Stored, PublishError>) {
        self.outstanding -= 1;
        self.freed.0 += 1;
        self.freed.1 += entry.bytes;
        if result.is_err() {
            add(&self.stats.failed, 1);
        }
        match entry.done {
            // Whoever dropped the receipt does not want to know.
            Done::Receipt(sender) => drop(sender.send(result)),
            Done::Tag(tag) => self.settled.push(Settled { tag, result }),
        }
    }

    fn report(&mut self) {
        if self.freed.0 == 0 {
            return;
        }
        if let (false, Some(on_settled)) = (self.settled.is_empty(), &mut self.on_settled) {
            on_settled(&self.settled);
        }
        self.settled.clear();
        self.stats
            .unacknowledged
            .fetch_sub(self.freed.0 as u64, Ordering::Relaxed);
        self.buffer.messages.add_permits(self.freed.0);
        self.buffer.bytes.add_permits(self.freed.1 as usize);
        self.freed = (0, 0);
    }

    /// Whether batches go out as they are, however small.
    pub(super) fn is_flushing(&self) -> bool {
        self.is_closing || !self.flushes.is_empty()
    }

    fn finish_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let lowest = self.lowest_outstanding();
        let (done, waiting) = std::mem::take(&mut self.flushes)
            .into_iter()
            .partition(|(before, _)| *before <= lowest);
        self.flushes = waiting;
        for (_, sender) in done {
            // Whoever stopped waiting does not want to know.
            let _ = sender.send(());
        }
    }

    fn lowest_outstanding(&self) -> u64 {
        let parked = self
            .partitions
            .iter()
            .filter_map(|partition| partition.parked.front());
        let returned = self.partitions.iter().flat_map(|partition| &partition.returned);
        let queued = self.links.iter().filter_map(|link| link.queue.front());
        let sent = self
            .links
            .iter()
            .filter_map(|link| link.session.as_ref()?.sent.front());
        let waiting = parked.chain(returned).chain(queued).chain(self.unrouted.front());
        waiting
            .map(|entry| entry.sequence)
            .chain(sent.map(|sent| sent.sequence))
            .min()
            .unwrap_or(u64::MAX)
    }
}

impl Drop for Driver {
    /// Whoever waits for room is told that there will be none.
    fn drop(&mut self) {
        self.buffer.messages.close();
        self.buffer.bytes.close();
    }
}

/// Waits until a link whose request queue was full can take a batch.
async fn any_room(links: &[Link]) {
    let full = links
        .iter()
        .filter(|link| link.is_full)
        .filter_map(|link| link.session.as_ref());
    let mut waits: Vec<_> = full.map(|session| Box::pin(session.outgoing.reserve())).collect();
    if waits.is_empty() {
        pending::<()>().await;
    }
    let _ = futures::future::select_all(waits.iter_mut()).await;
}
