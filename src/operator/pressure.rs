//! One broker's control service: configures it, and keeps its newest pressure report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::metrics::Metrics;
use crate::api::names::CONTROL_PORT;
use crate::pb::control_client::ControlClient;
use crate::pb::{Configuration, PartitionProblem, PressureReport, WatchPressureRequest};

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a Configure may take.
const CONFIGURE: Duration = Duration::from_secs(5);
/// How soon a broker that has problems with its configuration is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Messages of the control service may be large: a configuration names every partition.
const MESSAGE_BYTES: usize = 64 << 20;

/// What is known of one broker.
#[derive(Clone, Debug, Default)]
pub struct LinkState {
    /// Calls go here; `None`: not connected, or not configured yet.
    pub client: Option<ControlClient<Channel>>,
    /// Another one for each connection.
    pub connection: u64,
    /// The generation that the broker last took, in this connection.
    pub confirmed: Option<u64>,
    /// Partitions that should be open there and cannot take appends yet.
    pub problems: Vec<PartitionProblem>,
    /// The newest report, and when it came.
    pub report: Option<(Arc<PressureReport>, Instant)>,
    /// Why the last try failed; empty: it did not.
    pub error: String,
}

impl LinkState {
    /// Whether the broker may be asked anything.
    pub fn connected(&self) -> bool {
        self.client.is_some() && self.confirmed.is_some()
    }
}

/// Which process a link leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The broker's name.
    pub name: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// The pod's address.
    pub ip: String,
}

/// The link to one broker. It ends when this is dropped.
#[derive(Debug)]
pub struct Link {
    /// Where it leads.
    pub target: Target,
    state: Arc<Mutex<LinkState>>,
    stop: CancellationToken,
}

/// What links share.
#[derive(Clone)]
pub struct LinkContext {
    /// The newest configuration; each broker gets it with its own name.
    pub configuration: watch::Receiver<Option<Arc<Configuration>>>,
    /// How often a broker reports.
    pub interval: Duration,
    /// Called when anything but a report's numbers changed.
    pub changed: Arc<dyn Fn() + Send + Sync>,
    /// The operator's figures.
    pub metrics: Metrics,
}

impl Link {
    /// Starts a link.
    pub fn start(target: Target, context: LinkContext, parent: &CancellationToken) -> Self {
        let state = Arc::new(Mutex::new(LinkState::default()));
        let stop = parent.child_token();
        let task = Task {
            target: target.clone(),
            state: Arc::clone(&state),
            context,
        };
        tokio::spawn(task.run(stop.clone()));
        Self { target, state, stop }
    }

    /// What is known now.
    pub fn state(&self) -> LinkState {
        self.state.lock().clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Task {
    target: Target,
    state: Arc<Mutex<LinkState>>,
    context: LinkContext,
}

impl Task {
    async fn run(mut self, stop: CancellationToken) {
        let mut pause = Duration::from_millis(100);
        loop {
            let connected_at = Instant::now();
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.connection() => ended,
            };
            let was_connected = self.disconnected(ended.err().unwrap_or_default());
            if was_connected {
                (self.context.changed)();
            }
            if connected_at.elapsed() > LONGEST_PAUSE {
                pause = Duration::from_millis(100);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * rand::random::<f64>())) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn disconnected(&self, error: String) -> bool {
        let mut state = self.state.lock();
        let was_connected = state.client.take().is_some();
        if was_connected || state.error != error {
            tracing::info!(broker = self.target.name, error, "no connection to the broker");
        }
        state.confirmed = None;
        state.problems.clear();
        state.error = error;
        was_connected
    }

    /// One connection: from opening to its end, which is always an error.
    async fn connection(&mut self) -> Result<(), String> {
        let mut client = self.connect().await?;
        // The first configuration lets the broker append; there is nothing to ask before.
        let mut configuration = self.context.configuration.clone();
        if configuration.wait_for(Option::is_some).await.is_err() {
            return Err("the cluster is not managed any more".to_owned());
        }
        let first = configuration.borrow_and_update().clone();
        self.configure(&mut client, first).await?;
        {
            let mut state = self.state.lock();
            state.client = Some(client.clone());
            state.connection += 1;
            state.error.clear();
        }
        (self.context.changed)();
        let request = WatchPressureRequest {
            interval: prost_types::Duration::try_from(self.context.interval).ok(),
        };
        let opened = tokio::time::timeout(CONFIGURE, client.watch_pressure(request)).await;
        let mut reports = opened
            .map_err(|_| "WatchPressure: no answer".to_owned())?
            .map_err(|status| format!("WatchPressure: {}", status.message()))?
            .into_inner();
        let silence = (self.context.interval * 10).max(Duration::from_secs(10));
        loop {
            tokio::select! {
                changed = configuration.changed() => {
                    changed.map_err(|_| "the cluster is not managed any more".to_owned())?;
                    let newest = configuration.borrow_and_update().clone();
                    self.configure(&mut client, newest).await?;
                    (self.context.changed)();
                }
                () = tokio::time::sleep(AGAIN), if !self.state.lock().problems.is_empty() => {
                    let same = configuration.borrow().clone();
                    self.configure(&mut client, same).await?;
                    (self.context.changed)();
                }
                report = tokio::time::timeout(silence, reports.message()) => {
                    let report = report
                        .map_err(|_| "no pressure report came for too long".to_owned())?
                        .map_err(|status| format!("WatchPressure: {}", status.message()))?
                        .ok_or("the broker ended the stream of pressure reports")?;
                    self.reported(report);
                }
            }
        }
    }

    async fn connect(&self) -> Result<ControlClient<Channel>, String> {
        let host = if self.target.ip.contains(':') {
            format!("[{}]", self.target.ip)
        } else {
            self.target.ip.clone()
        };
        let endpoint = Endpoint::from_shared(format!("http://{host}:{CONTROL_PORT}"))
            .map_err(|error| error.to_string())?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        let connected = tokio::time::timeout(CONNECT, endpoint.connect()).await;
        let channel = connected
            .map_err(|_| format!("{host}:{CONTROL_PORT} does not answer"))?
            .map_err(|error| format!("cannot connect to {host}:{CONTROL_PORT}: {error}"))?;
        Ok(ControlClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES))
    }

    async fn configure(
        &self,
        client: &mut ControlClient<Channel>,
        configuration: Option<Arc<Configuration>>,
    ) -> Result<(), String> {
        let Some(configuration) = configuration else {
            return Ok(());
        };
        let generation = configuration.generation;
        let own = Configuration {
            broker: self.target.name.clone(),
            ..configuration.as_ref().clone()
        };
        let answer = tokio::time::timeout(CONFIGURE, client.configure(own)).await;
        self.context
            .metrics
            .called("Configure", matches!(answer, Ok(Ok(_))));
        let answer = answer
            .map_err(|_| "Configure: no answer".to_owned())?
            .map_err(|status| format!("Configure: {}", status.message()))?
            .into_inner();
        let mut state = self.state.lock();
        state.confirmed = Some(generation);
        state.problems = answer.problems;
        Ok(())
    }

    fn reported(&self, report: PressureReport) {
        let notable = {
            let mut state = self.state.lock();
            let before = state.report.as_ref().map(|(report, _)| Arc::clone(report));
            let notable = before.as_ref().is_none_or(|before| {
                let is_wish_known = before.wanted_topics == report.wanted_topics
                    && (report.wanted_topics.is_empty()
                        || before.configuration_generation == report.configuration_generation);
                !is_wish_known || before.appends_confirmed != report.appends_confirmed
            });
            state.report = Some((Arc::new(report), Instant::now()));
            notable
        };
        if notable {
            (self.context.changed)();
        }
    }
}
