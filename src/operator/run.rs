//! The operator's process: HTTP, the wait for the definitions, the election, and the loops of each term.

use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client, Config};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::config::OperatorArgs;
use super::context::Context;
use super::error::RunError;
use super::events::Events;
use super::kube_io::{Kube, timed};
use super::lease::{Elector, Term, Timing};
use super::metrics::Metrics;
use super::readiness::Readiness;
use super::{controllers, error::ApiError, fault};
use crate::api::{MessageBroker, MessageTopic};
use crate::http::{self, Probes};

/// How soon to look again for the definitions.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the loops may take to end with their term.
const WINDING_UP: Duration = Duration::from_secs(5);

/// Runs the operator until `shutdown`.
///
/// # Errors
/// There is no API server to be found, or the HTTP port cannot be opened.
pub async fn run(args: OperatorArgs, shutdown: CancellationToken) -> Result<(), RunError> {
    let config = Config::infer().await.map_err(RunError::Config)?;
    let client = Client::try_from(config).map_err(RunError::Client)?;
    run_with(client, args, shutdown).await
}

/// As [`run`], with a client of the caller's.
///
/// # Errors
/// The HTTP port cannot be opened.
pub async fn run_with(
    client: Client,
    args: OperatorArgs,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    fault::arm(&args.exit_after);
    let (metrics, registry) = Metrics::new();
    let readiness = Readiness::waiting("starting");
    let address = args.http_listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen { address, source })?;
    let ready = readiness.clone();
    let probes = Arc::new(Probes {
        healthy: Box::new(|| Ok(())),
        ready: Box::new(move || ready.check()),
        metrics: Mutex::new(registry),
    });
    let served = tokio::spawn(http::serve(listener, probes, shutdown.clone()));
    tracing::info!(%address, namespaces = ?args.namespaces(), image = args.broker_image, "the operator starts");
    if wait_for_definitions(&client, &args, &readiness, &shutdown).await {
        readiness.set(None);
        lead(client, &args, &metrics, &shutdown).await;
    }
    // Scrapes that are under way need not be waited for.
    served.abort();
    Ok(())
}

/// `false`: it is time to stop.
async fn wait_for_definitions(
    client: &Client,
    args: &OperatorArgs,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) -> bool {
    loop {
        match definitions(client, args).await {
            Ok(()) => return true,
            Err(error) => {
                let reason = if error.is_not_found() {
                    "the definitions of MessageBroker and MessageTopic are not installed: apply crds/, or the chart \
                     sluice-crds"
                        .to_owned()
                } else {
                    error.to_string()
                };
                tracing::warn!(reason, "waiting");
                readiness.set(Some(reason));
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return false,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

async fn definitions(client: &Client, args: &OperatorArgs) -> Result<(), ApiError> {
    let one = ListParams::default().limit(1);
    let namespace = args.namespaces().and_then(|names| names.into_iter().next());
    let (brokers, topics): (
        Api<kube::core::PartialObjectMeta<MessageBroker>>,
        Api<kube::core::PartialObjectMeta<MessageTopic>>,
    ) = match &namespace {
        None => (Api::all(client.clone()), Api::all(client.clone())),
        Some(name) => (
            Api::namespaced(client.clone(), name),
            Api::namespaced(client.clone(), name),
        ),
    };
    timed("list", "MessageBrokers".to_owned(), brokers.list_metadata(&one)).await?;
    timed("list", "MessageTopics".to_owned(), topics.list_metadata(&one)).await?;
    Ok(())
}

/// Takes part in the election, and runs the loops whenever this operator leads.
async fn lead(client: Client, args: &OperatorArgs, metrics: &Metrics, shutdown: &CancellationToken) {
    // Of this process alone: a container that restarts in the same pod is another one.
    let identity = format!("{}_{:016x}", args.pod_name, rand::random::<u64>());
    let place = (args.pod_namespace.as_str(), args.lease_name.as_str());
    let (elector, mut terms) =
        Elector::new(client.clone(), place, identity, Timing::of(args.lease_duration()));
    let stop_election = CancellationToken::new();
    let election = tokio::spawn(elector.run(stop_election.clone()));
    let events = Events::new(client.clone(), args.pod_name.clone());
    while let Some(term) = next_term(&mut terms, shutdown).await {
        metrics.leading.set(1);
        let kube = Kube::new(client.clone(), term.clone(), metrics.clone());
        let (context, requests) = Context::new(kube, events.clone(), metrics.clone(), args);
        let loops = tokio::spawn(controllers::run(
            Arc::clone(&context),
            requests,
            args.namespaces(),
        ));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = term.ended.cancelled() => {}
        }
        // Nothing is written from here on: the next leader may be at work.
        term.ended.cancel();
        metrics.leading.set(0);
        if tokio::time::timeout(WINDING_UP, loops).await.is_err() {
            tracing::warn!("the loops did not end in time");
        }
    }
    stop_election.cancel();
    if election.await.is_err() {
        tracing::warn!("the election did not end well");
    }
}

/// The next time that this operator leads; `None`: it is time to stop.
async fn next_term(terms: &mut watch::Receiver<Option<Term>>, shutdown: &CancellationToken) -> Option<Term> {
    loop {
        let term = terms.borrow_and_update().clone();
        if shutdown.is_cancelled() {
            return None;
        }
        if let Some(term) = term.filter(|term| term.remaining().is_some()) {
            return Some(term);
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            changed = terms.changed() => if changed.is_err() { return None },
        }
    }
}
