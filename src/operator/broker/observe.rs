//! All reading of a reconcile: the object, its children, its pods and volumes, from the API server and no cache.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::ListParams;

use super::build::{DATA, config_map, selector_text, service_account};
use super::rivals::{self, Rival};
use crate::api::{MessageBroker, names};
use crate::operator::cluster::Member;
use crate::operator::error::ApiError;
use crate::operator::kube_io::{Kube, timed};
use crate::operator::placement::topics;

/// What is there.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The MessageBroker, as it is now.
    pub broker: MessageBroker,
    /// Its StatefulSet.
    pub stateful_set: Option<StatefulSet>,
    /// Its headless Service.
    pub headless: Option<Service>,
    /// Its client Service.
    pub client: Option<Service>,
    /// Its ConfigMap.
    pub config_map: Option<ConfigMap>,
    /// Its ServiceAccount.
    pub service_account: Option<ServiceAccount>,
    /// Its PodDisruptionBudget.
    pub pdb: Option<PodDisruptionBudget>,
    /// Its NetworkPolicy.
    pub network_policy: Option<NetworkPolicy>,
    /// Its pods, by ascending ordinal.
    pub pods: Vec<(u32, Pod)>,
    /// Its volumes' claims, by ascending ordinal.
    pub claims: Vec<(u32, PersistentVolumeClaim)>,
    /// While a claim is pending: the storage classes that there are.
    pub classes: Option<Vec<StorageClass>>,
    /// While there is no StatefulSet: one more than the highest ordinal that any topic's partitions name.
    pub referenced: u32,
    /// Other autoscalers of its brokers.
    pub rivals: Vec<Rival>,
}

/// Reads everything. `None`: there is no such MessageBroker any more, or it is being deleted.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn observe(kube: &Kube, namespace: &str, name: &str) -> Result<Option<Observed>, ApiError> {
    let Some(broker) = kube.get::<MessageBroker>(namespace, name).await? else {
        return Ok(None);
    };
    if broker.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let selector = selector_text(name);
    let (headless_name, config_name) = (names::headless_service(name), config_map::name(name));
    let account_name = service_account::name(name);
    let (
        stateful_set,
        headless,
        client,
        config_map,
        service_account,
        pdb,
        network_policy,
        pods,
        claims,
        autoscalers,
    ) = futures::try_join!(
        kube.get::<StatefulSet>(namespace, name),
        kube.get::<Service>(namespace, &headless_name),
        kube.get::<Service>(namespace, name),
        kube.get::<ConfigMap>(namespace, &config_name),
        kube.get::<ServiceAccount>(namespace, &account_name),
        kube.get::<PodDisruptionBudget>(namespace, name),
        kube.get::<NetworkPolicy>(namespace, name),
        kube.list::<Pod>(namespace, &selector),
        kube.list::<PersistentVolumeClaim>(namespace, &selector),
        // Anybody's: they carry no label of ours.
        kube.list::<HorizontalPodAutoscaler>(namespace, ""),
    )?;
    let mut pods = by_ordinal(pods, name);
    if let Some(set) = &stateful_set {
        // Labels alone do not make a pod ours: one of a StatefulSet before this one has the same.
        pods.retain(|(_, pod)| !is_of_another(pod, set));
    }
    let claims = by_ordinal(claims, &format!("{DATA}-{name}"));
    let classes = if claims.iter().any(|(_, claim)| is_pending(claim)) {
        classes(kube).await
    } else {
        None
    };
    let referenced = if stateful_set.is_none() {
        referenced(kube, namespace, name).await?
    } else {
        0
    };
    Ok(Some(Observed {
        broker,
        stateful_set,
        headless,
        client,
        config_map,
        service_account,
        pdb,
        network_policy,
        pods,
        claims,
        classes,
        referenced,
        rivals: rivals::of(&autoscalers, name),
    }))
}

fn is_of_another(pod: &Pod, set: &StatefulSet) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let controller = owners.find(|owner| owner.controller == Some(true));
    controller.is_some_and(|owner| Some(&owner.uid) != set.metadata.uid.as_ref())
}

fn by_ordinal<K: kube::Resource>(objects: Vec<K>, prefix: &str) -> Vec<(u32, K)> {
    let ordinal = |object: &K| names::ordinal(prefix, object.meta().name.as_deref()?);
    let mut found: Vec<(u32, K)> = objects
        .into_iter()
        .filter_map(|object| Some((ordinal(&object)?, object)))
        .collect();
    found.sort_by_key(|(ordinal, _)| *ordinal);
    found
}

fn is_pending(claim: &PersistentVolumeClaim) -> bool {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    phase.is_none_or(|phase| phase == "Pending")
}

/// Only for a better text of a condition: without the permission there is none.
async fn classes(kube: &Kube) -> Option<Vec<StorageClass>> {
    let api: Api<StorageClass> = Api::all(kube.client.clone());
    let params = ListParams::default();
    let list = timed("list", "StorageClass".to_owned(), api.list(&params)).await;
    list.ok().map(|list| list.items)
}

async fn referenced(kube: &Kube, namespace: &str, name: &str) -> Result<u32, ApiError> {
    let listed = topics::list(kube, namespace, name, &mut Default::default()).await?;
    let partitions = listed.topics.iter().flat_map(|topic| &topic.status.partitions);
    let brokers = partitions.flat_map(|partition| partition.chain.iter().flat_map(|entry| &entry.brokers));
    let ordinals = brokers.filter_map(|broker| names::ordinal(name, broker));
    Ok(ordinals.map(|ordinal| ordinal + 1).max().unwrap_or(0))
}

impl Observed {
    /// The pods as members of the cluster. One that is being deleted is not asked anything new.
    pub fn members(&self) -> Vec<Member> {
        self.pods
            .iter()
            .map(|(ordinal, pod)| member(*ordinal, pod))
            .collect()
    }
}

fn member(ordinal: u32, pod: &Pod) -> Member {
    let status = pod.status.as_ref();
    let ip = status
        .and_then(|status| status.pod_ip.clone())
        .filter(|ip| !ip.is_empty());
    let containers = status
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    let ran = containers.iter().any(|one| {
        let state = one.state.as_ref();
        one.restart_count > 0
            || one
                .last_state
                .as_ref()
                .is_some_and(|last| last.terminated.is_some())
            || state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    });
    Member {
        name: pod.metadata.name.clone().unwrap_or_default(),
        ordinal,
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        ip,
        ready: is_ready(pod),
        running: ran,
    }
}

/// Whether Kubernetes says that the pod serves.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    let ready = conditions
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}
