//! The charts: install, upgrade, uninstall.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt;

use crate::cluster::{Cluster, OPERATOR_NAMESPACE, eventually};
use crate::{assert_exactly_once, small};

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_of_the_operator_restarts_no_broker_and_an_uninstall_keeps_brokers_and_definitions() {
    let sandbox = Cluster::alone().await.sandbox("helm").await;
    // Without an image of its own, the broker gets the operator's: that must be settled once.
    let mut spec = small(2, "");
    spec["image"] = serde_json::json!("");
    sandbox.apply_broker("orders", &spec).await;
    sandbox.ready("orders", 2).await;
    let running = || async {
        let pods = sandbox.broker_pods("orders").await;
        pods.iter()
            .map(|pod| (pod.name_any(), pod.uid().expect("a uid")))
            .collect::<BTreeMap<_, _>>()
    };
    let operators = || async {
        let pods = sandbox.cluster.operator_pods().await;
        pods.iter()
            .map(|pod| pod.uid().expect("a uid"))
            .collect::<Vec<_>>()
    };
    let (before, old_operators) = (running().await, operators().await);

    let broker_image = format!("brokerImage={}", "localhost/sluice:another");
    sandbox
        .cluster
        .install_operator(&["--set", &broker_image, "--set-string", "podAnnotations.roll=1"]);
    eventually(
        Duration::from_secs(60),
        "the old operators to be gone",
        || async {
            let now = operators().await;
            (now.len() == 2 && now.iter().all(|uid| !old_operators.contains(uid))).then_some(())
        },
    )
    .await;
    // The new leader has reconciled when it has taken this change in.
    sandbox.apply_topic("events", "orders", 4).await;
    sandbox.assigned("events").await;
    sandbox.ready("orders", 2).await;
    assert_eq!(
        running().await,
        before,
        "brokers were restarted by an upgrade of the operator"
    );

    sandbox
        .cluster
        .helm(&["uninstall", "sluice", "--namespace", OPERATOR_NAMESPACE, "--wait"]);
    sandbox.cluster.kubectl(&[
        "get",
        "crd",
        "messagebrokers.sluice.dev",
        "messagetopics.sluice.dev",
    ]);
    // Running brokers need no operator.
    let load = [
        "bench",
        "--address",
        "orders.helm:7400",
        "--topic",
        "events",
        "--rate",
        "200",
        "--duration",
        "5s",
    ];
    let job = sandbox
        .start(
            "load",
            &[&load[..], &["--producer-id", "helm", "--output", "json"]].concat(),
        )
        .await;
    assert_exactly_once(&job.summary(Duration::from_secs(60)).await);
    assert_eq!(running().await, before);

    sandbox.cluster.install_operator(&[]);
    sandbox.ready("orders", 2).await;
    assert_eq!(running().await, before);
    sandbox.remove().await;
}
