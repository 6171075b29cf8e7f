//! Keeps one stream to each owner of the topic's partitions, as they move.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::Counters;
use super::builder::Settings;
use super::inbox::Inbox;
use super::session;
use super::stream::Stream;
use crate::client::Client;
use crate::client::error::{SubscribeError, is_permanent};

/// How often a topic that does not exist is asked for.
const PROBE: Duration = Duration::from_secs(1);
/// How long a stream stays to a broker that owns nothing of the topic any more: answers may still go there.
const RETIRE: Duration = Duration::from_secs(10);

pub(super) struct Supervisor {
    pub(super) client: Client,
    pub(super) settings: Arc<Settings>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) counters: Arc<Counters>,
    pub(super) stop: CancellationToken,
    pub(super) opening: Arc<watch::Sender<Opening>>,
}

/// How far opening is.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// Brokers that are to let us in; 0: not known yet.
    pub(super) expected: HashSet<Arc<str>>,
    /// Brokers that did, at least once.
    pub(super) welcomed: HashSet<Arc<str>>,
    pub(super) refused: Option<SubscribeError>,
    /// What went wrong last.
    pub(super) problem: String,
}

struct Running {
    stop: CancellationToken,
    retire_at: Option<Instant>,
}

impl Opening {
    pub(super) fn is_over(&self) -> bool {
        self.refused.is_some() || (!self.expected.is_empty() && self.expected.is_subset(&self.welcomed))
    }
}

impl Supervisor {
    pub(super) async fn run(self) {
        let mut view = self.client.inner.view.clone();
        let mut tasks = JoinSet::new();
        let mut streams: HashMap<Arc<str>, Running> = HashMap::new();
        loop {
            view.borrow_and_update();
            let owners = self.owners();
            let mut wake_at = self.adjust(&owners, &mut streams, &mut tasks);
            if owners.is_empty() {
                tokio::select! {
                    () = self.probe() => {}
                    () = self.stop.cancelled() => break,
                }
                wake_at = Some(Instant::now() + PROBE);
            }
            let sleep = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = view.changed() => if changed.is_err() { break },
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                () = sleep => {}
                () = self.stop.cancelled() => break,
            }
        }
        for running in streams.values() {
            running.stop.cancel();
        }
        while tasks.join_next().await.is_some() {}
    }

    /// The brokers that are to be subscribed to.
    fn owners(&self) -> HashSet<Arc<str>> {
        let view = self.client.topology();
        let owners = view.owners(&self.settings.topic);
        if self.client.inner.forward {
            return self
                .client
                .addresses()
                .into_iter()
                .take(usize::from(!owners.is_empty()))
                .collect();
        }
        owners.iter().filter_map(|owner| owner.address.clone()).collect()
    }

    /// Starts what is missing and ends what nobody needs. Returns when to look again.
    fn adjust(
        &self,
        owners: &HashSet<Arc<str>>,
        streams: &mut HashMap<Arc<str>, Running>,
        tasks: &mut JoinSet<()>,
    ) -> Option<Instant> {
        let now = Instant::now();
        for address in owners {
            let running = streams.entry(address.clone()).or_insert_with(|| {
                let stop = CancellationToken::new();
                tasks.spawn(self.stream(address.clone(), stop.clone()).run());
                Running {
                    stop,
                    retire_at: None,
                }
            });
            running.retire_at = None;
        }
        let mut wake_at: Option<Instant> = None;
        streams.retain(|address, running| {
            if owners.contains(address) {
                return true;
            }
            let retire_at = *running.retire_at.get_or_insert(now + RETIRE);
            if retire_at <= now {
                running.stop.cancel();
                return false;
            }
            wake_at = Some(wake_at.map_or(retire_at, |at| at.min(retire_at)));
            true
        });
        self.opening
            .send_modify(|opening| opening.expected.clone_from(owners));
        wake_at
    }

    fn stream(&self, address: Arc<str>, stop: CancellationToken) -> Stream {
        let mut addresses = vec![address.clone()];
        if self.client.inner.forward {
            addresses = self.client.addresses();
        }
        Stream {
            client: self.client.clone(),
            settings: self.settings.clone(),
            key: address,
            addresses,
            inbox: self.inbox.clone(),
            counters: self.counters.clone(),
            stop,
            opening: self.opening.clone(),
        }
    }

    /// Asks any broker for the topic, so that it is made where topics are made on demand.
    async fn probe(&self) {
        let addresses = self.client.addresses();
        let Some(address) = addresses.choose(&mut rand::rng()) else {
            return;
        };
        let Ok(mut broker) = self.client.inner.pool.broker(address) else {
            return;
        };
        let open = tokio_stream::once(session::open_request(&self.settings, false));
        let asked = async {
            let mut responses = broker.subscribe(open).await?.into_inner();
            responses.message().await.map(drop)
        };
        let Ok(Err(status)) = tokio::time::timeout(PROBE, asked).await else {
            return;
        };
        if is_permanent(&status) {
            let text = status.message().to_owned();
            refuse(
                &self.opening,
                &self.inbox,
                SubscribeError::Refused {
                    code: status.code(),
                    text,
                },
            );
        } else if status.code() == Code::NotFound {
            self.opening
                .send_modify(|opening| opening.problem = status.message().to_owned());
        }
    }
}

/// Ends the subscription for good.
pub(super) fn refuse(opening: &watch::Sender<Opening>, inbox: &Inbox, error: SubscribeError) {
    opening.send_modify(|opening| opening.refused = Some(error.clone()));
    inbox.fail(error);
}
