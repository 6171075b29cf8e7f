//! A broker from start to stop. Listeners and the shutdown are given, so that tests run it in their own process.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

use super::config::BrokerArgs;
use super::counters::Counters;
use super::cpu;
use super::metrics::BrokerMetrics;
use super::server::{Audience, Dispatch, Patience, Server, Stop, Threads};
use super::service::{
    BrokerService, ControlService, DeadLetterSender, Limits, Parts, PeerService, Peers, Shared,
};
use super::standalone;
use super::store::{Store, StoreOptions};
use crate::http::{Probes, serve as serve_http};
use crate::pb;
use crate::pb::control_server::ControlServer;
use crate::pb::peer_server::PeerServer;

/// At the end, when all that was accepted is done, clients have so long to read their last answers.
const READ_TIME: Duration = Duration::from_secs(2);
/// The largest request on the control port: a configuration of many topics.
const MAX_CONTROL_REQUEST_BYTES: usize = 64 << 20;

/// Why a broker did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The data directory cannot be used.
    #[error("cannot open the store: {0}")]
    Store(String),
    /// The configuration that a standalone broker made for itself was refused.
    #[error("cannot configure the standalone broker: {0}")]
    Standalone(String),
    /// The system gave no thread to serve connections.
    #[error("cannot start the threads that serve connections: {0}")]
    Threads(io::Error),
    /// The reflection service could not be built.
    #[error("cannot serve reflection: {0}")]
    Reflection(String),
}

/// The broker's listeners, bound.
#[derive(Debug)]
pub struct Listeners {
    /// For publishers and subscribers.
    pub data: TcpListener,
    /// For the operator and other brokers.
    pub control: TcpListener,
    /// For probes and metrics.
    pub http: TcpListener,
}

impl Listeners {
    /// Binds what the flags say; port 0 takes any that is free.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub async fn bind(args: &BrokerArgs) -> Result<Self, RunError> {
        Ok(Self {
            data: bind(args.listen).await?,
            control: bind(args.control_listen).await?,
            http: bind(args.http_listen).await?,
        })
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| RunError::Listen { address, error })
}

/// Runs a broker until `shutdown`; then it finishes what was accepted, closes the log and returns, within
/// `--shutdown-grace`.
///
/// # Errors
/// The broker did not start.
pub async fn run(
    args: BrokerArgs,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let broker: Arc<OnceLock<Arc<Shared>>> = Arc::default();
    let probes = Arc::new(probes(&broker, shutdown.clone()));
    let stopped = CancellationToken::new();
    let _http = AbortOnDropHandle::new(tokio::spawn(serve_http(
        listeners.http,
        Arc::clone(&probes),
        stopped.clone(),
    )));

    let shared = open(&args).await?;
    let metrics = BrokerMetrics {
        shared: Arc::clone(&shared),
    };
    probes.metrics.lock().register_collector(Box::new(metrics));
    let _ = broker.set(Arc::clone(&shared));

    if args.standalone {
        let data = listeners.data.local_addr().ok();
        let control = listeners.control.local_addr().ok();
        let configuration = standalone::configuration(&args, data, control);
        configure(&shared.store, configuration)
            .await
            .map_err(RunError::Standalone)?;
    }

    let stop = Stop {
        drain: CancellationToken::new(),
        kill: CancellationToken::new(),
    };
    let health = HealthReporter::new();
    health
        .set_service_status("sluice.v1.Broker", ServingStatus::Serving)
        .await;
    let patience = Patience {
        handshake: args.handshake_timeout,
        keepalive_interval: args.keepalive_interval,
        keepalive_timeout: args.keepalive_timeout,
    };
    let threads = Threads::start(match args.threads {
        0 => cpu::worker_threads(),
        threads => threads,
    })
    .map_err(RunError::Threads)?;
    let threads = Arc::new(threads);
    let data = Server {
        listener: listeners.data,
        audience: Audience::Clients,
        dispatch: Arc::new(data_dispatch(&shared, &health)?),
        shared: Arc::clone(&shared),
        patience,
        threads,
    };
    let control = Server {
        listener: listeners.control,
        audience: Audience::Control,
        dispatch: Arc::new(control_dispatch(&shared, &health)),
        shared: Arc::clone(&shared),
        patience,
        threads: Arc::new(Threads::start(1).map_err(RunError::Threads)?),
    };
    let data = AbortOnDropHandle::new(tokio::spawn(data.run(stop.clone())));
    // The operator is answered until all is done: it may seal and configure while clients are drained.
    let control_stop = Stop {
        drain: CancellationToken::new(),
        kill: CancellationToken::new(),
    };
    let mut control = AbortOnDropHandle::new(tokio::spawn(control.run(control_stop.clone())));
    tracing::info!(broker = %args.name, standalone = args.standalone, "serving");

    shutdown.cancelled().await;
    let deadline = tokio::time::Instant::now() + args.shutdown_grace;
    // The log's last commit and close need a little of the grace.
    let cut = deadline - (args.shutdown_grace / 5).min(Duration::from_secs(3));
    health.set_service_status("", ServingStatus::NotServing).await;
    health
        .set_service_status("sluice.v1.Broker", ServingStatus::NotServing)
        .await;
    shared.drain();
    stop.drain.cancel();
    drained(&shared, data, cut, &stop.kill).await;
    control_stop.drain.cancel();
    let soon = cut.min(tokio::time::Instant::now() + Duration::from_secs(1));
    let _ = tokio::time::timeout_at(soon, &mut control).await;
    control_stop.kill.cancel();
    if tokio::time::timeout_at(deadline, shared.store.close())
        .await
        .is_err()
    {
        tracing::error!("the log was not closed in time");
    }
    stopped.cancel();
    tracing::info!(broker = %args.name, "stopped");
    Ok(())
}

/// Waits until clients have their last answers, then closes what is still open: a client may keep a connection, or
/// a watch of the health, for as long as it likes.
async fn drained(
    shared: &Shared,
    mut data: AbortOnDropHandle<()>,
    cut: tokio::time::Instant,
    kill: &CancellationToken,
) {
    let answered = async {
        while shared.counters.sessions.get() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // All that was accepted is done. A client that does not read its answers does not hold up the rest.
        let unread = tokio::time::Instant::now() + READ_TIME;
        while shared.counters.streams.get() > 0 && tokio::time::Instant::now() < unread {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The last frames are on their way.
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    tokio::select! {
        _ = &mut data => return,
        () = answered => {}
        () = tokio::time::sleep_until(cut) => {
            tracing::warn!("clients were still served at the end of the grace period");
        }
    }
    kill.cancel();
    let _ = tokio::time::timeout(Duration::from_millis(200), &mut data).await;
}

/// Opens the store, which may take a while after a crash, and puts the services' state together.
async fn open(args: &BrokerArgs) -> Result<Arc<Shared>, RunError> {
    let counters = Arc::new(Counters::default());
    let peers = Arc::new(Peers::new());
    let options = StoreOptions {
        directory: args.data_dir.clone(),
        broker: args.name.clone(),
        segment_bytes: args.segment_bytes,
    };
    let opening = {
        let counters = Arc::clone(&counters);
        tokio::task::spawn_blocking(move || Store::open(options, counters))
    };
    let store = opening
        .await
        .map_err(|error| RunError::Store(error.to_string()))?
        .map_err(RunError::Store)?;
    store.set_peers(Arc::<Peers>::clone(&peers));
    let shared = Shared::new(Parts {
        name: args.name.clone(),
        cluster: args.cluster.clone(),
        store,
        counters,
        peers,
        limits: Limits {
            max_connections: args.max_connections,
            max_streams_per_connection: args.max_streams_per_connection,
            max_message_bytes: args.max_message_bytes,
            max_inflight_bytes: args.max_inflight_bytes,
        },
        channel_capacity: args.channel_capacity,
        topic_wait: args.topic_wait,
    });
    shared.store.set_dead_letters(DeadLetterSender::new(&shared));
    Ok(shared)
}

async fn configure(store: &Arc<Store>, configuration: pb::Configuration) -> Result<(), String> {
    let store = Arc::clone(store);
    let problems = tokio::task::spawn_blocking(move || store.configure(&configuration))
        .await
        .map_err(|error| error.to_string())??;
    match problems.first() {
        Some(problem) => Err(format!(
            "{}/{}: {}",
            problem.topic, problem.partition, problem.reason
        )),
        None => Ok(()),
    }
}

fn data_dispatch(shared: &Arc<Shared>, health: &HealthReporter) -> Result<Dispatch, RunError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("sluice.v1.Broker")
        .with_service_name("grpc.health.v1.Health")
        .build_v1()
        .map_err(|error| RunError::Reflection(error.to_string()))?;
    let rest = Routes::new(health_server(health)).add_service(reflection);
    Ok(Dispatch {
        broker: Some(Arc::new(BrokerService::new(Arc::clone(shared)))),
        shared: Arc::clone(shared),
        rest: rest.prepare(),
    })
}

fn control_dispatch(shared: &Arc<Shared>, health: &HealthReporter) -> Dispatch {
    let control = ControlServer::new(ControlService::new(Arc::clone(shared)))
        .max_decoding_message_size(MAX_CONTROL_REQUEST_BYTES);
    let peer = PeerServer::new(PeerService::new(Arc::clone(shared)));
    Dispatch {
        broker: None,
        shared: Arc::clone(shared),
        rest: Routes::new(health_server(health))
            .add_service(control)
            .add_service(peer)
            .prepare(),
    }
}

fn health_server(health: &HealthReporter) -> tonic_health::pb::health_server::HealthServer<HealthService> {
    tonic_health::pb::health_server::HealthServer::new(HealthService::from_health_reporter(health.clone()))
}

fn probes(broker: &Arc<OnceLock<Arc<Shared>>>, shutdown: CancellationToken) -> Probes {
    let ready = Arc::clone(broker);
    Probes {
        healthy: Box::new(|| Ok(())),
        ready: Box::new(move || match ready.get() {
            _ if shutdown.is_cancelled() => Err("stopping".to_owned()),
            None => Err("recovering the log".to_owned()),
            Some(shared) if shared.is_confirmed() => Ok(()),
            Some(_) => Err("waiting for the operator's first configuration".to_owned()),
        }),
        metrics: Mutex::new(Registry::default()),
    }
}
