//! The cluster of brokers follows the load, and no path shrinks it but the drain.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use sluice::api::MessageBroker;

use crate::cluster::{Cluster, eventually};
use crate::sandbox::{Sandbox, condition};
use crate::{assert_exactly_once, small};

/// Whatever the topic's chains place on a broker, that broker's volume must be there.
async fn assert_volumes_hold_the_data(sandbox: &Sandbox, topic: &str) {
    // The claims are read last: what was placed before that must still have its claim.
    let status = sandbox.topic(topic).await.status.unwrap_or_default();
    let claims: BTreeSet<String> = sandbox.claims().await.into_iter().collect();
    for partition in status.partitions {
        for broker in partition.chain.iter().flat_map(|entry| &entry.brokers) {
            let later = sandbox.topic(topic).await.status.unwrap_or_default();
            let still = later
                .partitions
                .iter()
                .filter(|other| other.index == partition.index);
            let placed = still
                .flat_map(|other| &other.chain)
                .any(|entry| entry.brokers.contains(broker));
            assert!(
                claims.contains(&format!("data-{broker}")) || !placed,
                "{broker} holds data of partition {} and its volume is gone: {claims:?}",
                partition.index
            );
        }
    }
}

/// Messages a second that one broker acknowledges with the channel that it starts with while publishers send as fast as it
/// lets them: what one carries easily on one machine is too much on another.
async fn saturation(sandbox: &Sandbox, spec: &Value) -> u64 {
    let mut spec = spec.clone();
    spec["autoscaling"] = json!({"mode": "Off"});
    spec["channel"]["mode"] = json!("Fixed");
    sandbox.apply_broker("trial", &spec).await;
    sandbox.ready("trial", 1).await;
    sandbox.apply_topic("attempts", "trial", 12).await;
    sandbox.assigned("attempts").await;
    let load = [
        ["bench", "--address", "trial.scaling:7400", "--topic", "attempts"],
        [
            "--rate=0",
            "--duration=10s",
            "--publishers=6",
            "--subscribers=2",
            "--output=json",
        ],
    ];
    let job = sandbox.start("trial-load", &load.concat()).await;
    let summary = job.summary(Duration::from_secs(120)).await;
    let brokers = sandbox.api::<MessageBroker>();
    brokers
        .delete("trial", &DeleteParams::default())
        .await
        .expect("deleted");
    summary["acknowledgedRate"].as_f64().expect("a rate") as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn five_times_the_load_scales_up_and_its_end_scales_down_through_the_drain_and_nothing_is_lost() {
    let sandbox = Cluster::shared().await.sandbox("scaling").await;
    let mut spec = small(1, &sandbox.cluster.image);
    spec["resources"] =
        json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "256Mi"}});
    spec["channel"] = json!({"capacity": 512});
    spec["autoscaling"] = json!({"mode": "Auto", "minReplicas": 1, "maxReplicas": 4, "fallback": {"replicas": 1},
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 20}}, "drain": {"settle": "2s"}});
    let small = saturation(&sandbox, &spec).await * 2 / 5;
    println!("the small load is {small}/s");
    sandbox.apply_broker("orders", &spec).await;
    sandbox.ready("orders", 1).await;
    sandbox.apply_topic("events", "orders", 12).await;
    sandbox.assigned("events").await;

    let schedule = format!("{small}:20s,{}:60s,{small}:600s", 5 * small);
    let load = [
        "bench",
        "--address",
        "orders.scaling:7400",
        "--topic",
        "events",
        "--schedule",
        &schedule,
    ];
    let more = [
        "--publishers",
        "6",
        "--subscribers",
        "2",
        "--producer-id",
        "scaling",
        "--drain-timeout",
        "60s",
    ];
    let job = sandbox
        .start("load", &[&load[..], &more[..], &["--output", "json"]].concat())
        .await;

    let (mut most, mut last, start) = (1, 1, Instant::now());
    loop {
        let replicas = sandbox.stateful_set_replicas("orders").await;
        assert!(
            (1..=4).contains(&replicas),
            "{replicas} brokers are out of bounds"
        );
        assert!(
            last - replicas <= 1,
            "shrunk by more than one ordinal at a time: {last} to {replicas}"
        );
        assert_volumes_hold_the_data(&sandbox, "events").await;
        most = most.max(replicas);
        if last != replicas {
            println!(
                "{:6.1} s  {last} -> {replicas} brokers",
                start.elapsed().as_secs_f64()
            );
        }
        last = replicas;
        if most > 1 && replicas == 1 {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(400),
            "at most {most} brokers, {replicas} at the end"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    job.finish().await;
    let summary = job.summary(Duration::from_secs(120)).await;
    assert_exactly_once(&summary);
    let status = sandbox
        .broker("orders")
        .await
        .status
        .expect("a status")
        .autoscaling
        .expect("decisions");
    assert!(
        status
            .decisions
            .iter()
            .any(|decision| decision.to > decision.from),
        "{status:?}"
    );
    assert!(
        status
            .decisions
            .iter()
            .any(|decision| decision.to < decision.from),
        "{status:?}"
    );
    sandbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_scale_down_drains_first_and_keeps_every_message() {
    let sandbox = Cluster::shared().await.sandbox("scale-by-hand").await;
    let mut spec = small(3, &sandbox.cluster.image);
    spec["autoscaling"] = json!({"drain": {"settle": "2s"}});
    sandbox.apply_broker("orders", &spec).await;
    sandbox.ready("orders", 3).await;
    sandbox.apply_topic("events", "orders", 6).await;
    sandbox.assigned("events").await;

    let publish = [
        "bench",
        "--address",
        "orders.scale-by-hand:7400",
        "--topic",
        "events",
        "--rate",
        "500",
    ];
    let rest = ["--duration", "6s", "--producer-id", "by-hand", "--output", "json"];
    let job = sandbox
        .start(
            "publish",
            &[&publish[..], &rest[..], &["--mode", "publish"]].concat(),
        )
        .await;
    let published = job.summary(Duration::from_secs(60)).await;
    assert_eq!(published["acknowledged"], 3000, "{published}");

    let api: Api<MessageBroker> = sandbox.api();
    let scale = json!({"spec": {"replicas": 1}});
    api.patch_scale("orders", &PatchParams::default(), &Patch::Merge(scale))
        .await
        .expect("scaling");
    let mut drained = BTreeSet::new();
    eventually(Duration::from_secs(120), "one broker to be left", || async {
        assert_volumes_hold_the_data(&sandbox, "events").await;
        (sandbox.stateful_set_replicas("orders").await == 1).then_some(())
    })
    .await;
    sandbox.ready("orders", 1).await;
    drained.extend(sandbox.led("events").await.into_keys());
    assert_eq!(drained, BTreeSet::from(["orders-0".to_owned()]));
    eventually(
        Duration::from_secs(60),
        "the volumes of the others to be removed",
        || async { (sandbox.claims().await == ["data-orders-0"]).then_some(()) },
    )
    .await;

    let address = "orders.scale-by-hand:7400";
    let read = [
        "sub",
        "--address",
        address,
        "--topic",
        "events",
        "--group",
        "after",
        "--from",
        "earliest",
    ];
    let rest = ["--max", "3000", "--timeout", "60s", "--output", "json"];
    let job = sandbox.start("read", &[&read[..], &rest[..]].concat()).await;
    let (code, output) = job.end(Duration::from_secs(90)).await;
    assert_eq!(code, 0, "{output}");
    assert_eq!(
        output.lines().filter(|line| line.contains("\"offset\"")).count(),
        3000
    );
    sandbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_scaled_behind_the_operators_back_is_put_back_and_loses_no_volume() {
    let sandbox = Cluster::shared().await.sandbox("behind").await;
    sandbox
        .apply_broker("orders", &small(2, &sandbox.cluster.image))
        .await;
    sandbox.ready("orders", 2).await;
    sandbox.apply_topic("events", "orders", 4).await;
    sandbox.assigned("events").await;
    let before = sandbox.claims().await;
    sandbox.cluster.kubectl(&[
        "--namespace",
        "behind",
        "scale",
        "statefulset",
        "orders",
        "--replicas=3",
    ]);
    eventually(
        Duration::from_secs(60),
        "the StatefulSet to be put back",
        || async { (sandbox.stateful_set_replicas("orders").await == 2).then_some(()) },
    )
    .await;
    sandbox.ready("orders", 2).await;
    // The broker that should not be there leaves through the drain like any other, and takes only its own volume.
    eventually(Duration::from_secs(60), "the drain to be over", || async {
        let (draining, _, _) = condition(&sandbox.broker("orders").await, "Draining")?;
        (draining == "False" && sandbox.claims().await == before).then_some(())
    })
    .await;
    assert_eq!(before, ["data-orders-0", "data-orders-1"]);
    sandbox.remove().await;
}
