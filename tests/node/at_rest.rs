//! Where nothing changes, nothing is written.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::{Resource, ResourceExt};
use sluice::api::{MessageBroker, MessageTopic};

use crate::cluster::Cluster;
use crate::sandbox::Sandbox;
use crate::small;

async fn versions<K>(sandbox: &Sandbox, all: &mut BTreeMap<String, String>)
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    for object in sandbox
        .api::<K>()
        .list(&ListParams::default())
        .await
        .expect("listing")
        .items
    {
        let name = format!("{}/{}", K::kind(&()), object.name_any());
        all.insert(name, object.resource_version().expect("a version"));
    }
}

async fn everything(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    versions::<MessageBroker>(sandbox, &mut all).await;
    versions::<MessageTopic>(sandbox, &mut all).await;
    versions::<StatefulSet>(sandbox, &mut all).await;
    versions::<Service>(sandbox, &mut all).await;
    versions::<ConfigMap>(sandbox, &mut all).await;
    versions::<ServiceAccount>(sandbox, &mut all).await;
    versions::<PodDisruptionBudget>(sandbox, &mut all).await;
    versions::<NetworkPolicy>(sandbox, &mut all).await;
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_nothing_is_written_for_a_minute() {
    let sandbox = Cluster::shared().await.sandbox("at-rest").await;
    let mut spec = small(2, &sandbox.cluster.image);
    spec["autoscaling"] = serde_json::json!({"mode": "Auto", "minReplicas": 2, "maxReplicas": 4});
    sandbox.apply_broker("orders", &spec).await;
    sandbox.apply_topic("events", "orders", 8).await;
    sandbox.ready("orders", 2).await;
    sandbox.assigned("events").await;
    // At rest is when the last change is 20 seconds old.
    let mut before = everything(&sandbox).await;
    for attempt in 1.. {
        assert!(
            attempt <= 6,
            "something is still written two minutes after the last change: {before:?}"
        );
        tokio::time::sleep(Duration::from_secs(20)).await;
        let now = everything(&sandbox).await;
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before.len() >= 9, "{before:?}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(everything(&sandbox).await, before);
    sandbox.remove().await;
}
