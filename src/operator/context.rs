//! What all loops of one term share.

use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;

use super::backoff::Backoff;
use super::cluster::Clusters;
use super::config::OperatorArgs;
use super::events::Events;
use super::kube_io::Kube;
use super::metrics::Metrics;
use crate::api::MessageBroker;

/// An object that may not be readable: it then never stops the others.
pub type Guarded<K> = DeserializeGuard<K>;

/// What all loops of one term share.
pub struct Context {
    /// Requests to the API server.
    pub kube: Kube,
    /// Tells people what happened.
    pub events: Events,
    /// The operator's figures.
    pub metrics: Metrics,
    /// Every MessageBroker.
    pub clusters: Clusters,
    /// Asks for reconciles.
    pub requests: mpsc::UnboundedSender<ObjectRef<Guarded<MessageBroker>>>,
    /// How often each object failed in a row: kind, namespace, name.
    pub backoff: Backoff<(&'static str, String, String)>,
    /// The image of brokers that name none.
    pub broker_image: String,
    /// The namespace of the operator's own pods.
    pub operator_namespace: String,
    /// How often a broker reports.
    pub pressure_interval: Duration,
}

/// Where requests for reconciles come out.
pub type Requests = mpsc::UnboundedReceiver<ObjectRef<Guarded<MessageBroker>>>;

impl Context {
    /// A term's context.
    pub fn new(kube: Kube, events: Events, metrics: Metrics, args: &OperatorArgs) -> (Arc<Self>, Requests) {
        let (requests, receiver) = mpsc::unbounded();
        let context = Self {
            kube,
            events,
            metrics,
            clusters: Clusters::default(),
            requests,
            backoff: Backoff::new(),
            broker_image: args.broker_image.clone(),
            operator_namespace: args.pod_namespace.clone(),
            pressure_interval: args.pressure_interval(),
        };
        (Arc::new(context), receiver)
    }
}
