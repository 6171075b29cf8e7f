//! The watches, and the loops that they drive.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{
    ConfigMap, ObjectReference, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tracing::Instrument;

use super::broker::build::{INSTANCE_LABEL, NAME_LABEL};
use super::broker::rivals;
use super::context::{Context, Guarded, Requests};
use super::error::ReconcileError;
use super::{broker, topic};
use crate::api::{MessageBroker, MessageTopic, names};

type Broker = Guarded<MessageBroker>;
type Topic = Guarded<MessageTopic>;
type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Reconciles at a time, of each kind.
const CONCURRENCY: u16 = 16;

/// Runs the loops of a term until it ends.
pub async fn run(context: Arc<Context>, requests: Requests, namespaces: Option<Vec<String>>) {
    let places: Vec<Option<String>> = match namespaces {
        None => vec![None],
        Some(names) => names.into_iter().map(Some).collect(),
    };
    // Requests go to the loop of their namespace.
    let mut senders = Vec::new();
    let mut running: Vec<Running> = Vec::new();
    for place in places {
        let (sender, receiver) = futures::channel::mpsc::unbounded();
        senders.push((place.clone(), sender));
        running.push(Box::pin(brokers(Arc::clone(&context), receiver, place.clone())));
        running.push(Box::pin(topics(Arc::clone(&context), place)));
    }
    let forward = requests.for_each(move |request: ObjectRef<Broker>| {
        for (place, sender) in &senders {
            if place.is_none() || *place == request.namespace {
                // A loop that ended needs no requests.
                let _ = sender.unbounded_send(request.clone());
            }
        }
        std::future::ready(())
    });
    let all = futures::future::join_all(running);
    tokio::select! {
        () = context.kube.term.ended.cancelled() => {}
        _ = all => {}
        () = forward => {}
    }
}

fn api<K>(context: &Context, place: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match place {
        None => Api::all(context.kube.client.clone()),
        Some(namespace) => Api::namespaced(context.kube.client.clone(), namespace),
    }
}

async fn brokers(context: Arc<Context>, requests: Requests, place: Option<String>) {
    let place = place.as_deref();
    let (store, writer) = reflector::store::<Broker>();
    let (known, forgetting) = (store.clone(), Arc::clone(&context));
    let at = place.map(str::to_owned);
    let (seen, ending) = Generations::pair();
    let changes = watcher(api::<Broker>(&context, place), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .inspect_ok(move |event| {
            ending.forget(event);
            forget(&forgetting, &known, event, at.as_deref());
        })
        .applied_objects()
        .try_filter_map(move |object| std::future::ready(Ok(seen.is_new(&object).then_some(object))));
    let labelled = watcher::Config::default().labels(&format!("{NAME_LABEL}={}", names::APP_NAME));
    let controller = Controller::for_stream(changes, store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .owns_stream(children::<StatefulSet>(&context, place, &labelled))
        .owns_stream(children::<Service>(&context, place, &labelled))
        .owns_stream(children::<ConfigMap>(&context, place, &labelled))
        .owns_stream(children::<ServiceAccount>(&context, place, &labelled))
        .owns_stream(children::<PodDisruptionBudget>(&context, place, &labelled))
        .owns_stream(children::<NetworkPolicy>(&context, place, &labelled))
        .watches_stream(children::<Pod>(&context, place, &labelled), |pod| {
            of_cluster(&pod)
        })
        .watches_stream(
            children::<PersistentVolumeClaim>(&context, place, &labelled),
            |claim| of_cluster(&claim),
        )
        .watches_stream(
            watcher(
                api::<HorizontalPodAutoscaler>(&context, place),
                watcher::Config::default(),
            )
            .default_backoff()
            .touched_objects(),
            |autoscaler| scaled_by(&autoscaler),
        )
        .reconcile_on(requests);
    let ended = context.kube.term.ended.clone();
    controller
        .graceful_shutdown_on(async move { ended.cancelled().await })
        .run(one_broker, broker_failed, context)
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn topics(context: Arc<Context>, place: Option<String>) {
    let place = place.as_deref();
    let (store, writer) = reflector::store::<Topic>();
    let waking = Arc::clone(&context);
    let at = place.map(str::to_owned);
    let (seen, ending) = Generations::pair();
    let changes = watcher(api::<Topic>(&context, place), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .inspect_ok(move |event| {
            ending.forget(event);
            wake(&waking, event, at.as_deref());
        })
        .applied_objects()
        .try_filter_map(move |object| std::future::ready(Ok(seen.is_new(&object).then_some(object))));
    let ended = context.kube.term.ended.clone();
    Controller::for_stream(changes, store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(async move { ended.cancelled().await })
        .run(one_topic, topic_failed, context)
        .for_each(|_| std::future::ready(()))
        .await;
}

/// Which generation of each object was seen: our own writes of a status are no news.
#[derive(Clone, Default)]
struct Generations(Arc<Mutex<HashMap<String, Option<i64>>>>);

impl Generations {
    /// Two hands on the same.
    fn pair() -> (Self, Self) {
        let one = Self::default();
        (one.clone(), one)
    }

    fn forget<K: Resource>(&self, event: &Event<K>) {
        if let Event::Delete(object) = event {
            self.0
                .lock()
                .remove(object.meta().uid.as_deref().unwrap_or_default());
        }
    }

    fn is_new<K: Resource>(&self, object: &K) -> bool {
        let meta = object.meta();
        let uid = meta.uid.clone().unwrap_or_default();
        self.0.lock().insert(uid, meta.generation) != Some(meta.generation)
            || meta.deletion_timestamp.is_some()
    }
}

/// Wakes placement, which looks at all topics of the cluster, also when one is gone.
fn wake(context: &Context, event: &Event<Topic>, place: Option<&str>) {
    match event {
        Event::Apply(topic) | Event::Delete(topic) => {
            let namespace = topic.meta().namespace.as_deref().unwrap_or_default();
            let broker = topic
                .0
                .as_ref()
                .ok()
                .map(|topic| topic.spec.broker_ref.name.as_str());
            context.clusters.poke(Some(namespace), broker);
        }
        Event::InitDone => context.clusters.poke(place, None),
        _ => {}
    }
}

/// Ends the tasks of MessageBrokers that are gone.
fn forget(context: &Context, store: &reflector::Store<Broker>, event: &Event<Broker>, place: Option<&str>) {
    match event {
        Event::Delete(object) => {
            let meta = object.meta();
            let (namespace, name) = (
                meta.namespace.as_deref().unwrap_or_default(),
                meta.name.as_deref().unwrap_or_default(),
            );
            context.clusters.forget(context, namespace, name);
        }
        Event::InitDone => {
            let present: BTreeSet<(String, String)> = store
                .state()
                .iter()
                .map(|object| {
                    let meta = object.meta();
                    (
                        meta.namespace.clone().unwrap_or_default(),
                        meta.name.clone().unwrap_or_default(),
                    )
                })
                .collect();
            context.clusters.keep(context, |namespace, name| {
                place.is_some_and(|place| place != namespace)
                    || present.contains(&(namespace.to_owned(), name.to_owned()))
            });
        }
        _ => {}
    }
}

/// The metadata of children: the reconcile reads the rest itself.
fn children<K>(
    context: &Context,
    place: Option<&str>,
    config: &watcher::Config,
) -> impl futures::Stream<Item = Result<PartialObjectMeta<K>, watcher::Error>> + Send + 'static
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    watcher(api::<PartialObjectMeta<K>>(context, place), config.clone())
        .default_backoff()
        .touched_objects()
}

fn of_cluster<K: Resource>(child: &K) -> Option<ObjectRef<Broker>> {
    let meta = child.meta();
    let cluster = meta.labels.as_ref()?.get(INSTANCE_LABEL)?;
    Some(ObjectRef::new(cluster).within(meta.namespace.as_deref()?))
}

/// The MessageBroker whose number the autoscaler sets.
fn scaled_by(autoscaler: &HorizontalPodAutoscaler) -> Option<ObjectRef<Broker>> {
    let (_, cluster) = rivals::target(autoscaler)?;
    Some(ObjectRef::new(&cluster).within(autoscaler.metadata.namespace.as_deref()?))
}

async fn one_broker(object: Arc<Broker>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let meta = object.meta();
    let namespace = meta.namespace.clone().unwrap_or_default();
    let name = meta.name.clone().unwrap_or_default();
    if let Err(invalid) = &object.0 {
        unreadable(&context, "MessageBroker", meta, &invalid.error).await;
        return Ok(Action::await_change());
    }
    let span = tracing::info_span!("reconcile", kind = "MessageBroker", namespace, name);
    let started = Instant::now();
    let outcome = broker::reconcile::reconcile(&context, &namespace, &name)
        .instrument(span)
        .await;
    concluded(&context, &("MessageBroker", namespace, name), outcome, started)
}

async fn one_topic(object: Arc<Topic>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let meta = object.meta();
    let topic = match &object.0 {
        Ok(topic) => topic,
        Err(invalid) => {
            unreadable(&context, "MessageTopic", meta, &invalid.error).await;
            return Ok(Action::await_change());
        }
    };
    let namespace = meta.namespace.clone().unwrap_or_default();
    let name = meta.name.clone().unwrap_or_default();
    let span = tracing::info_span!("reconcile", kind = "MessageTopic", namespace, name);
    let started = Instant::now();
    let outcome = topic::reconcile::reconcile(&context, topic)
        .instrument(span)
        .await;
    concluded(&context, &("MessageTopic", namespace, name), outcome, started)
}

fn concluded(
    context: &Context,
    key: &(&'static str, String, String),
    outcome: Result<Duration, ReconcileError>,
    started: Instant,
) -> Result<Action, ReconcileError> {
    let label = outcome.as_ref().map_or_else(ReconcileError::step, |_| "ok");
    context.metrics.reconciled(key.0, label, started.elapsed());
    let again = outcome.inspect_err(|error| {
        if error.is_conflict() {
            tracing::debug!(kind = key.0, namespace = key.1, name = key.2, %error, "somebody was faster");
        } else {
            tracing::warn!(kind = key.0, namespace = key.1, name = key.2, %error, "a reconcile failed");
        }
    })?;
    context.backoff.succeeded(key);
    // Spread, so that many objects do not come at the same moment.
    Ok(Action::requeue(again.mul_f64(0.9 + 0.2 * rand::random::<f64>())))
}

async fn unreadable(context: &Context, kind: &'static str, meta: &kube::core::ObjectMeta, error: &str) {
    tracing::warn!(
        kind,
        namespace = meta.namespace,
        name = meta.name,
        error,
        "an object cannot be read and is skipped"
    );
    let about = ObjectReference {
        api_version: Some("sluice.dev/v1alpha1".to_owned()),
        kind: Some(kind.to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    };
    let note = format!("this {kind} cannot be read and is left as it is until it is corrected: {error}");
    context.events.warning(&about, "Unreadable", &note).await;
}

fn failed(
    context: &Context,
    kind: &'static str,
    meta: &kube::core::ObjectMeta,
    error: &ReconcileError,
) -> Action {
    if error.is_conflict() {
        return Action::requeue(Duration::from_millis(20));
    }
    let key = (
        kind,
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    );
    Action::requeue(context.backoff.failed(key, rand::random()))
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is the Controller's")]
fn broker_failed(object: Arc<Broker>, error: &ReconcileError, context: Arc<Context>) -> Action {
    failed(&context, "MessageBroker", object.meta(), error)
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is the Controller's")]
fn topic_failed(object: Arc<Topic>, error: &ReconcileError, context: Arc<Context>) -> Action {
    failed(&context, "MessageTopic", object.meta(), error)
}
