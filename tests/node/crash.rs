//! A broker's process is killed in the middle of its work.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::{Cluster, eventually};
use crate::sandbox::Sandbox;
use crate::{assert_exactly_once, small};

fn restarts(pod: &Pod) -> i32 {
    let containers = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    containers
        .and_then(|all| all.first())
        .map_or(0, |container| container.restart_count)
}

/// Publishes for 30 seconds while the process of `orders-1` is killed twice; the load's summary.
async fn load_while_killed(sandbox: &Sandbox, topic: &str, producer: &[&str]) -> serde_json::Value {
    sandbox.apply_topic(topic, "orders", 6).await;
    sandbox.assigned(topic).await;
    let before = restarts(&sandbox.broker_pods("orders").await[1]);
    let address = format!("orders.{}:7400", sandbox.namespace);
    let load = [
        "bench",
        "--address",
        &address,
        "--topic",
        topic,
        "--rate",
        "1000",
        "--duration",
        "30s",
    ];
    let more = [
        "--publishers",
        "4",
        "--subscribers",
        "2",
        "--drain-timeout",
        "60s",
        "--output",
        "json",
    ];
    let job = sandbox
        .start(topic, &[&load[..], &more[..], producer].concat())
        .await;
    for kill in 1..=2 {
        eventually(
            Duration::from_secs(60),
            "orders-1 to lead and take messages",
            || async {
                let broker = sandbox.broker("orders").await;
                let status = broker.status?;
                let ready = status
                    .brokers
                    .iter()
                    .any(|broker| broker.name == "orders-1" && broker.ready);
                (ready && status.ready_replicas == 2).then_some(())
            },
        )
        .await;
        job.prints("acknowledgedRate", Duration::from_secs(30)).await;
        sandbox
            .cluster
            .signal(&sandbox.broker_pods("orders").await[1], "SIGKILL");
        eventually(
            Duration::from_secs(60),
            "orders-1 to be started again",
            || async { (restarts(&sandbox.broker_pods("orders").await[1]) >= before + kill).then_some(()) },
        )
        .await;
    }
    job.summary(Duration::from_secs(150)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_of_a_broker_while_publishing_loses_nothing_and_duplicates_only_without_producer_ids() {
    let sandbox = Cluster::shared().await.sandbox("crash").await;
    sandbox
        .apply_broker("orders", &small(2, &sandbox.cluster.image))
        .await;
    sandbox.ready("orders", 2).await;

    let idempotent = load_while_killed(&sandbox, "with-ids", &["--producer-id", "crash"]).await;
    assert_exactly_once(&idempotent);
    assert!(
        idempotent["reconnects"].as_u64().is_some_and(|count| count > 0),
        "the kill was felt: {idempotent}"
    );

    let plain = load_while_killed(&sandbox, "without-ids", &[]).await;
    assert_eq!(plain["lost"], 0, "{plain}");
    assert!(
        plain["acknowledged"].as_u64().is_some_and(|count| count > 0),
        "{plain}"
    );
    sandbox.remove().await;
}
