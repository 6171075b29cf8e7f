//! What is kept in memory of each MessageBroker while it exists: what its reconcile wants, what its brokers say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::context::{Context, Guarded};
use super::pressure::LinkState;
use super::scaling::Scaler;
use crate::api::MessageBroker;
use crate::api::broker_status::HoldingCounts;
use crate::api::topic::TopicDefaults;
use crate::pb::{Durability, LimitsConfiguration};

/// A pod of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The broker's name.
    pub name: String,
    /// Its ordinal.
    pub ordinal: u32,
    /// The pod's uid.
    pub pod_uid: String,
    /// The pod's address, once it has one.
    pub ip: Option<String>,
    /// Kubernetes says that it serves.
    pub ready: bool,
    /// A container of it runs, so that it may have something on its disk that is not known.
    pub running: bool,
}

/// What the reconcile wants of the brokers.
#[derive(Clone, Debug, PartialEq)]
pub struct Directive {
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// What one broker accepts.
    pub limits: LimitsConfiguration,
    /// Messages between the network and the log.
    pub capacity: u32,
    /// What a topic gets that is published to and does not exist.
    pub topic_defaults: TopicDefaults,
    /// Every pod.
    pub members: Vec<Member>,
    /// How many brokers the StatefulSet has.
    pub size: u32,
    /// Brokers with a lower ordinal are to stay.
    pub keep: u32,
    /// The ordinal that is being emptied.
    pub leaving: Option<u32>,
    /// How long a leaving broker must have held nothing.
    pub settle: Duration,
    /// Nothing may move.
    pub frozen: bool,
    /// Another one whenever `leaving` changes: what was found before that says nothing about this drain.
    pub drain: u64,
}

/// What is known of the brokers and their partitions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The newest configuration's generation; 0: none was made yet.
    pub generation: u64,
    /// How many partitions each broker owns.
    pub led: BTreeMap<String, u32>,
    /// One more than the highest ordinal that any chain names.
    pub referenced: u32,
    /// What the leaving broker still holds.
    pub holding: HoldingCounts,
    /// What the leaving broker waits for, for a person.
    pub waiting_for: String,
    /// The ordinal that these two speak of.
    pub leaving: Option<u32>,
    /// The directive's number of the drain.
    pub drain: u64,
    /// The leaving broker holds nothing.
    pub empty: bool,
    /// It has held nothing for long enough.
    pub settled: bool,
    /// Partitions are being moved.
    pub moving: bool,
    /// Why placement does not get on; empty: it does.
    pub problem: String,
    /// Each link, by broker: connected, confirmed generation, why not.
    pub links: BTreeMap<String, LinkFacts>,
}

/// What a reconcile looks at of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// It may be asked anything.
    pub connected: bool,
    /// It has the newest configuration.
    pub current: bool,
    /// Why it is not connected.
    pub error: String,
}

/// One MessageBroker, by uid.
pub struct Cluster {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: one that is deleted and made again is another.
    pub uid: String,
    /// What its reconcile wants.
    pub directive: watch::Sender<Option<Arc<Directive>>>,
    /// Wakes the placement.
    pub poke: Notify,
    /// The newest of each link, refreshed by the placement.
    pub links: Mutex<BTreeMap<String, Arc<super::pressure::Link>>>,
    /// What is known.
    pub facts: Mutex<Facts>,
    /// The autoscaler's memory.
    pub scaler: Mutex<Scaler>,
    /// Ends all its tasks.
    pub stop: CancellationToken,
    /// Asks for a reconcile.
    request: Box<dyn Fn() + Send + Sync>,
    /// When the cluster was first seen by this operator.
    pub since: Instant,
}

impl Cluster {
    /// A reconcile, please.
    pub fn request_reconcile(&self) {
        (self.request)();
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// How events refer to it.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("sluice.dev/v1alpha1".to_owned()),
            kind: Some("MessageBroker".to_owned()),
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// What each link knows now.
    pub fn link_states(&self) -> BTreeMap<String, LinkState> {
        let links = self.links.lock();
        links
            .iter()
            .map(|(name, link)| (name.clone(), link.state()))
            .collect()
    }

    /// Publishes what the reconcile wants, if it is anything new.
    pub fn direct(&self, mut directive: Directive) {
        self.directive.send_if_modified(|present| {
            let before = present.as_deref();
            let same_drain = before.is_some_and(|before| before.leaving == directive.leaving);
            directive.drain = before.map_or(0, |before| before.drain) + u64::from(!same_drain);
            if before == Some(&directive) {
                return false;
            }
            *present = Some(Arc::new(directive.clone()));
            true
        });
    }

    /// The broker that has held nothing for long enough, if that was found out about the present drain.
    pub fn settled(&self, facts: &Facts) -> Option<u32> {
        let directive = self.directive.borrow();
        let present = directive.as_deref()?;
        let valid = facts.settled && facts.drain == present.drain && facts.leaving == present.leaving;
        facts.leaving.filter(|_| valid)
    }

    /// Publishes what was found, and asks for a reconcile if that matters to it.
    pub fn found(&self, facts: Facts) {
        let changed = {
            let mut present = self.facts.lock();
            let changed = *present != facts;
            *present = facts;
            changed
        };
        if changed {
            self.request_reconcile();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Every MessageBroker of a term.
#[derive(Default)]
pub struct Clusters(Mutex<BTreeMap<(String, String), Arc<Cluster>>>);

impl Clusters {
    /// The cluster of this object; its tasks are started when it is first asked for.
    pub fn of(&self, context: &Arc<Context>, broker: &MessageBroker) -> Arc<Cluster> {
        let namespace = broker.metadata.namespace.clone().unwrap_or_default();
        let name = broker.metadata.name.clone().unwrap_or_default();
        let uid = broker.metadata.uid.clone().unwrap_or_default();
        let key = (namespace.clone(), name.clone());
        let mut clusters = self.0.lock();
        if let Some(cluster) = clusters.get(&key)
            && cluster.uid == uid
        {
            return Arc::clone(cluster);
        }
        let object = ObjectRef::<Guarded<MessageBroker>>::new(&name).within(&namespace);
        let requests = context.requests.clone();
        let cluster = Arc::new(Cluster {
            namespace,
            name,
            uid,
            directive: watch::Sender::new(None),
            poke: Notify::new(),
            links: Mutex::default(),
            facts: Mutex::default(),
            scaler: Mutex::new(Scaler::new(broker)),
            stop: context.kube.term.ended.child_token(),
            request: Box::new(move || {
                // The receiver is gone only when the term is over.
                let _ = requests.unbounded_send(object.clone());
            }),
            since: Instant::now(),
        });
        if let Some(old) = clusters.insert(key, Arc::clone(&cluster)) {
            old.stop.cancel();
        }
        context
            .metrics
            .clusters
            .set(i64::try_from(clusters.len()).unwrap_or(i64::MAX));
        super::placement::engine::start(Arc::clone(context), Arc::clone(&cluster));
        super::scaling::start(Arc::clone(context), Arc::clone(&cluster));
        cluster
    }

    /// The object is gone: end its tasks.
    pub fn forget(&self, context: &Context, namespace: &str, name: &str) {
        let mut clusters = self.0.lock();
        if let Some(cluster) = clusters.remove(&(namespace.to_owned(), name.to_owned())) {
            cluster.stop.cancel();
        }
        context
            .metrics
            .clusters
            .set(i64::try_from(clusters.len()).unwrap_or(i64::MAX));
    }

    /// Ends the tasks of those that `present` does not name.
    pub fn keep(&self, context: &Context, present: impl Fn(&str, &str) -> bool) {
        let gone: Vec<(String, String)> = {
            let clusters = self.0.lock();
            clusters
                .keys()
                .filter(|(namespace, name)| !present(namespace, name))
                .cloned()
                .collect()
        };
        for (namespace, name) in gone {
            self.forget(context, &namespace, &name);
        }
    }

    /// Wakes the placement of the cluster; of all in the namespace, or everywhere, if it is not named.
    pub fn poke(&self, namespace: Option<&str>, name: Option<&str>) {
        for ((its_namespace, its_name), cluster) in &*self.0.lock() {
            if namespace.is_none_or(|one| one == its_namespace) && name.is_none_or(|one| one == its_name) {
                cluster.poke.notify_one();
            }
        }
    }

    /// Whether there is a cluster of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Cluster>> {
        self.0
            .lock()
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }
}
