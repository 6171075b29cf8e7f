//! Three nodes, one of them cut off for a minute under load.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use crate::cluster::{Cluster, eventually};
use crate::sandbox::condition;
use crate::{assert_exactly_once, small};

/// A node that is cut off, until it is linked again or the test ends.
struct Cut<'a>(&'a Cluster, &'static str);

impl<'a> Cut<'a> {
    fn off(cluster: &'a Cluster, node: &'static str) -> Self {
        cluster.link(node, false);
        Self(cluster, node)
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        self.0.link(self.1, true);
    }
}

fn node_of(pod: &Pod) -> String {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.clone())
        .expect("a node")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cut_off_for_a_minute_loses_nothing_and_all_is_ready_again_without_help() {
    let sandbox = Cluster::alone().await.sandbox("nodes").await;
    sandbox
        .apply_broker("orders", &small(3, &sandbox.cluster.image))
        .await;
    sandbox.ready("orders", 3).await;
    sandbox.apply_topic("events", "orders", 6).await;
    sandbox.assigned("events").await;
    let pods = sandbox.broker_pods("orders").await;
    let nodes: BTreeSet<String> = pods.iter().map(node_of).collect();
    assert_eq!(
        nodes.len(),
        3,
        "the brokers are not spread over the nodes: {nodes:?}"
    );
    let place: BTreeMap<String, String> = pods.iter().map(|pod| (node_of(pod), pod.name_any())).collect();
    let cut = &place["node-3"];

    let on = json!({"kubernetes.io/hostname": "node-1"});
    let load = [
        "bench",
        "--address",
        "orders.nodes:7400",
        "--topic",
        "events",
        "--rate",
        "300",
        "--duration",
        "110s",
    ];
    let more = [
        "--publishers",
        "3",
        "--subscribers",
        "2",
        "--producer-id",
        "nodes",
        "--drain-timeout",
        "90s",
    ];
    let job = sandbox
        .start_on(
            "load",
            &[&load[..], &more[..], &["--output", "json"]].concat(),
            &on,
        )
        .await;
    job.prints("acknowledgedRate", Duration::from_secs(30)).await;

    let link = Cut::off(&sandbox.cluster, "node-3");
    let since = std::time::Instant::now();
    eventually(
        Duration::from_secs(60),
        "the status to say that a broker is away",
        || async {
            let broker = sandbox.broker("orders").await;
            let (status, _, message) = condition(&broker, "BrokersAvailable")?;
            let topic = sandbox.topic("events").await.status?;
            let told = topic
                .conditions
                .iter()
                .any(|condition| condition.status == "False" && condition.message.contains(cut.as_str()));
            (status == "False" && message.contains(cut.as_str()) && told).then_some(())
        },
    )
    .await;
    println!("away is told after {:.1} s", since.elapsed().as_secs_f64());
    // What the others lead goes on.
    for partition in 0..6 {
        let status = sandbox.topic("events").await.status.expect("a status");
        let owner = status.partitions[partition]
            .chain
            .last()
            .expect("an entry")
            .brokers[0]
            .clone();
        let line = format!("hello-{partition}");
        let publish = ["pub", "--address", "orders.nodes:7400", "--topic", "events"];
        let index = partition.to_string();
        let rest = ["--partition", &index, "--timeout", "10s", &line];
        let name = format!("pub-{partition}");
        let job = sandbox
            .start_on(&name, &[&publish[..], &rest[..]].concat(), &on)
            .await;
        let (code, output) = job.end(Duration::from_secs(40)).await;
        if &owner == cut {
            assert_ne!(
                code, 0,
                "a partition of the broker that is cut off took a message: {output}"
            );
        } else {
            assert_eq!(code, 0, "partition {partition} of {owner}: {output}");
        }
    }
    if let Some(rest) = Duration::from_secs(60).checked_sub(since.elapsed()) {
        tokio::time::sleep(rest).await;
    }
    drop(link);
    let took = sandbox.ready("orders", 3).await;
    println!("all Ready {:.1} s after the link is back", took.as_secs_f64());

    // Nothing lost; and nothing twice, which two owners appending at one place would show as.
    let summary = job.summary(Duration::from_secs(240)).await;
    assert_exactly_once(&summary);
    sandbox.remove().await;
}
