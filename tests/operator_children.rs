//! The operator and a MessageBroker's children at a real API server.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

#[path = "support/apiserver.rs"]
mod apiserver;
mod operator_support;

use std::time::Duration;

use apiserver::ApiServer;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use operator_support::{
    Operator, broker, condition, condition_becomes, create_broker, eventually, patch_broker, replicas,
    versions,
};
use serde_json::json;
use sluice::api::MessageBroker;
use sluice::operator::kube_io::Kube;
use sluice::operator::lease::Term;
use sluice::operator::metrics::Metrics;

#[tokio::test(flavor = "multi_thread")]
async fn children_are_made_owned_and_healed_and_at_rest_nothing_is_written() {
    let server = ApiServer::new().await;
    let operator = Operator::start(&server, "a");
    let made = create_broker(&server, json!({"replicas": 2})).await;
    eventually("the StatefulSet", async || {
        (replicas(&server).await == Some(2)).then_some(())
    })
    .await;
    for (name, owners) in [
        (
            "StatefulSet",
            server
                .typed::<StatefulSet>()
                .get("orders")
                .await
                .expect("made")
                .metadata
                .owner_references,
        ),
        (
            "Service",
            server
                .typed::<Service>()
                .get("orders")
                .await
                .expect("made")
                .metadata
                .owner_references,
        ),
        (
            "headless",
            server
                .typed::<Service>()
                .get("orders-brokers")
                .await
                .expect("made")
                .metadata
                .owner_references,
        ),
        (
            "ConfigMap",
            server
                .typed::<ConfigMap>()
                .get("orders-brokers")
                .await
                .expect("made")
                .metadata
                .owner_references,
        ),
        (
            "ServiceAccount",
            server
                .typed::<ServiceAccount>()
                .get("orders-brokers")
                .await
                .expect("made")
                .metadata
                .owner_references,
        ),
        (
            "PDB",
            server
                .typed::<PodDisruptionBudget>()
                .get("orders")
                .await
                .expect("made")
                .metadata
                .owner_references,
        ),
        (
            "NetworkPolicy",
            server
                .typed::<NetworkPolicy>()
                .get("orders")
                .await
                .expect("made")
                .metadata
                .owner_references,
        ),
    ] {
        assert_eq!(
            owners.expect("owned")[0].uid,
            made.uid().expect("a uid"),
            "{name}"
        );
    }
    let status = broker(&server).await.status.expect("a status");
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.image, "sluice:test");

    // At rest.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let before = versions(&server).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(
        versions(&server).await,
        before,
        "something is written though nothing changes"
    );

    // Drift: a deleted child, a changed field, a label that the spec loses.
    let config = server.typed::<ConfigMap>();
    let gone = config.get("orders-brokers").await.expect("made").uid();
    config
        .delete("orders-brokers", &DeleteParams::default())
        .await
        .expect("deleted");
    let patch = json!({"spec": {"ports": [{"port": 7400, "name": "broker", "targetPort": 99}]}});
    let services = server.typed::<Service>();
    services
        .patch("orders", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .expect("changed");
    eventually("the ConfigMap to be made again", async || {
        config
            .get_opt("orders-brokers")
            .await
            .expect("an answer")
            .filter(|new| new.uid() != gone)
    })
    .await;
    eventually("the port to be put back", async || {
        let ports = services.get("orders").await.expect("there").spec?.ports?;
        (format!("{:?}", ports[0].target_port).contains("broker")).then_some(())
    })
    .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_removed_from_the_spec_leaves_the_object() {
    let server = ApiServer::new().await;
    let operator = Operator::start(&server, "a");
    create_broker(
        &server,
        json!({"replicas": 1, "podTemplate": {"labels": {"team": "shop"}}}),
    )
    .await;
    let label = async || {
        let set = server
            .typed::<StatefulSet>()
            .get_opt("orders")
            .await
            .expect("an answer")?;
        let labels = set.spec?.template.metadata?.labels?;
        Some(labels.contains_key("team"))
    };
    eventually("the label", async || label().await.filter(|there| *there)).await;
    patch_broker(&server, json!({"spec": {"podTemplate": {"labels": null}}})).await;
    eventually("the label to go", async || label().await.filter(|there| !there)).await;
    patch_broker(
        &server,
        json!({"spec": {"podDisruptionBudget": {"enabled": false}}}),
    )
    .await;
    eventually("the PodDisruptionBudget to go", async || {
        let found = server
            .typed::<PodDisruptionBudget>()
            .get_opt("orders")
            .await
            .expect("an answer");
        found.is_none().then_some(())
    })
    .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_field_is_named_and_stops_nothing_else() {
    let server = ApiServer::new().await;
    let operator = Operator::start(&server, "a");
    create_broker(
        &server,
        json!({"replicas": 2, "podTemplate": {"affinity": {"podAntiAfinity": {}}}}),
    )
    .await;
    let said = eventually("the condition", async || {
        let (status, reason, message) = condition(&server, "ResourcesSynced").await?;
        (status == "False" && reason == "InvalidSpec").then_some(message)
    })
    .await;
    assert!(
        said.contains("spec.podTemplate.affinity.podAntiAfinity"),
        "{said}"
    );
    eventually("the rest", async || {
        (replicas(&server).await == Some(2)).then_some(())
    })
    .await;
    patch_broker(&server, json!({"spec": {"podTemplate": {"affinity": null}}})).await;
    condition_becomes(&server, "ResourcesSynced", |found| found.0 == "True").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_means_that_nothing_is_changed() {
    let server = ApiServer::new().await;
    let operator = Operator::start(&server, "a");
    create_broker(&server, json!({"replicas": 1})).await;
    eventually("the StatefulSet", async || {
        (replicas(&server).await == Some(1)).then_some(())
    })
    .await;
    patch_broker(&server, json!({"spec": {"paused": true, "replicas": 3}})).await;
    condition_becomes(&server, "Paused", |found| found.0 == "True").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(replicas(&server).await, Some(1));
    patch_broker(&server, json!({"spec": {"paused": false}})).await;
    eventually("it to go on", async || {
        (replicas(&server).await == Some(3)).then_some(())
    })
    .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_operator_takes_over_and_terms_grow() {
    let server = ApiServer::new().await;
    let first = Operator::start(&server, "a");
    create_broker(&server, json!({"replicas": 1})).await;
    eventually("the StatefulSet", async || {
        (replicas(&server).await == Some(1)).then_some(())
    })
    .await;
    let leases = server.typed::<k8s_openapi::api::coordination::v1::Lease>();
    let lease = async || {
        leases
            .get("sluice-operator")
            .await
            .expect("a Lease")
            .spec
            .expect("a spec")
    };
    let before = lease().await;
    let second = Operator::start(&server, "b");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(
        lease().await.holder_identity,
        before.holder_identity,
        "the holder keeps it"
    );
    first.stop().await;
    patch_broker(&server, json!({"spec": {"replicas": 2}})).await;
    eventually("the second to go on", async || {
        (replicas(&server).await == Some(2)).then_some(())
    })
    .await;
    let after = lease().await;
    assert!(after.holder_identity.expect("held").starts_with("b_"));
    assert!(after.lease_transitions > before.lease_transitions);
    second.stop().await;
    assert_eq!(
        lease().await.holder_identity.as_deref(),
        Some(""),
        "it is released"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_write_is_refused_and_a_deposed_leader_writes_nothing() {
    let server = ApiServer::new().await;
    let old = create_broker(&server, json!({})).await;
    patch_broker(&server, json!({"spec": {"replicas": 5}})).await;
    let term = Term::lasting(1, Duration::from_secs(60));
    let kube = Kube::new(server.client.clone(), term.clone(), Metrics::new().0);
    let mut stale = old.clone();
    stale.status = Some(Default::default());
    let error = kube
        .replace_status(&stale)
        .await
        .expect_err("it was changed meanwhile");
    assert!(error.is_conflict(), "{error}");
    // By uid and resourceVersion: not this one any more.
    kube.delete(&old).await.expect("left alone");
    assert_eq!(broker(&server).await.uid(), old.uid());
    term.ended.cancel();
    let fresh = broker(&server).await;
    let error = kube
        .delete::<MessageBroker>(&fresh)
        .await
        .expect_err("not the leader");
    assert!(error.to_string().contains("does not lead"), "{error}");
}
