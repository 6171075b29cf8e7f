//! The operator moves partitions, drains brokers and scales: with a real API server and brokers of the test's own.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

#[path = "support/apiserver.rs"]
mod apiserver;
mod operator_support;

use std::time::Duration;

use apiserver::ApiServer;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use operator_support::brokers::World;
use operator_support::{
    Operator, broker, condition_becomes, create_autoscaler, create_broker, create_topic, eventually,
    forget_lease, is_seen, patch_broker, replicas, scale, versions,
};
use serde_json::{Value, json};
use sluice::api::MessageTopic;
use sluice::operator::placement::chain;
use tokio_util::sync::CancellationToken;

struct Bench {
    server: ApiServer,
    world: World,
    stop: CancellationToken,
}

impl Bench {
    async fn new(spec: Value) -> Self {
        let server = ApiServer::new().await;
        let (world, stop) = (World::default(), CancellationToken::new());
        world.serve(&server, &stop);
        create_broker(&server, spec).await;
        Self { server, world, stop }
    }

    async fn topic(&self, name: &str) -> MessageTopic {
        self.server.typed().get(name).await.expect("there")
    }

    /// How many partitions each of so many brokers owns, once all have an owner.
    async fn owned(&self, topic: &str, brokers: usize) -> Option<Vec<usize>> {
        let status = self.topic(topic).await.status?;
        let mut counts = vec![0; brokers];
        for partition in &status.partitions {
            assert!(chain::is_sound(partition), "{partition:?}");
            let owner = chain::owner(partition)?;
            let ordinal: usize = owner.rsplit('-').next()?.parse().ok()?;
            *counts.get_mut(ordinal)? += 1;
        }
        Some(counts)
    }

    /// Waits until so many partitions are with each broker, in the status and at the broker.
    async fn settle(&self, topic: &str, owned: &[usize]) {
        eventually(&format!("partitions as {owned:?}"), async || {
            let counts = self.owned(topic, owned.len()).await?;
            // The brokers are told after the status is written.
            let opened: Vec<usize> = (0..owned.len())
                .map(|ordinal| self.world.open(&format!("orders-{ordinal}")))
                .collect();
            (counts == owned && opened == owned).then_some(())
        })
        .await;
    }

    async fn scaled(&self, to: i32) {
        eventually(&format!("{to} brokers"), async || {
            (replicas(&self.server).await == Some(to)).then_some(())
        })
        .await;
    }

    fn end(&self) {
        self.stop.cancel();
        assert_eq!(self.world.breaches(), Vec::<String>::new());
    }
}

const FAST_DRAIN: &str = r#"{"drain": {"settle": "1s", "timeout": "10m"}}"#;

fn fast(mut spec: Value) -> Value {
    spec["autoscaling"] = serde_json::from_str(FAST_DRAIN).expect("valid");
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_follow_the_brokers_up_and_down_and_nothing_is_lost() {
    let bench = Bench::new(fast(json!({"replicas": 2}))).await;
    let operator = Operator::start(&bench.server, "a");
    create_topic(&bench.server, "payments", 6).await;
    bench.settle("payments", &[3, 3]).await;
    bench.world.publish(10);
    assert_eq!(bench.world.kept(), 60);

    patch_broker(&bench.server, json!({"spec": {"replicas": 3}})).await;
    bench.settle("payments", &[2, 2, 2]).await;
    bench.world.publish(1);
    assert_eq!(bench.world.kept(), 66);

    // Two brokers fewer: one at a time, each emptied before it goes.
    patch_broker(&bench.server, json!({"spec": {"replicas": 1}})).await;
    bench.scaled(2).await;
    assert_eq!(bench.world.held("orders-2"), 0, "it left before it was empty");
    bench.scaled(1).await;
    assert_eq!(bench.world.held("orders-1"), 0, "it left before it was empty");
    bench.settle("payments", &[6]).await;
    assert_eq!(bench.world.kept(), 66, "messages were lost");
    eventually("the volumes of those that left to go", async || {
        let claims = bench
            .server
            .typed::<PersistentVolumeClaim>()
            .list(&Default::default())
            .await
            .expect("claims");
        let names: Vec<String> = claims
            .iter()
            .filter(|claim| claim.metadata.deletion_timestamp.is_none())
            .map(ResourceExt::name_any)
            .collect();
        (names == ["data-orders-0"]).then_some(())
    })
    .await;
    eventually("the drain to be over", async || {
        broker(&bench.server)
            .await
            .status
            .filter(|status| status.drain.is_none())
    })
    .await;
    operator.stop().await;
    bench.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_scales_the_stateful_set_itself_loses_no_broker() {
    let bench = Bench::new(fast(json!({"replicas": 3}))).await;
    let operator = Operator::start(&bench.server, "a");
    create_topic(&bench.server, "payments", 3).await;
    bench.settle("payments", &[1, 1, 1]).await;
    bench.world.publish(5);
    let patch = json!({"spec": {"replicas": 1}});
    let sets = bench.server.typed::<StatefulSet>();
    sets.patch("orders", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .expect("scaled");
    bench.scaled(3).await;
    eventually("all claims", async || {
        let claims = bench
            .server
            .typed::<PersistentVolumeClaim>()
            .list(&Default::default())
            .await
            .expect("claims");
        (claims.items.len() == 3).then_some(())
    })
    .await;
    bench.settle("payments", &[1, 1, 1]).await;
    assert_eq!(bench.world.kept(), 15);
    operator.stop().await;
    bench.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_at_any_moment_is_gone_on_from() {
    let bench = Bench::new(fast(json!({"replicas": 1}))).await;
    let first = Operator::start(&bench.server, "a");
    create_topic(&bench.server, "payments", 8).await;
    bench.settle("payments", &[8]).await;
    bench.world.publish(7);
    first.stop().await;
    let mut round = 0;
    for wanted in [3, 1, 2, 1] {
        patch_broker(&bench.server, json!({"spec": {"replicas": wanted}})).await;
        for _ in 0..5 {
            round += 1;
            forget_lease(&bench.server.client, &bench.server.namespace).await;
            let operator = Operator::start(&bench.server, &format!("o{round}"));
            tokio::time::sleep(Duration::from_millis(150 + rand::random_range(0..900))).await;
            operator.kill();
            // Terms of a deleted Lease count seconds.
            tokio::time::sleep(Duration::from_millis(1000)).await;
        }
    }
    forget_lease(&bench.server.client, &bench.server.namespace).await;
    let last = Operator::start(&bench.server, "last");
    bench.scaled(1).await;
    bench.settle("payments", &[8]).await;
    assert_eq!(bench.world.kept(), 56, "messages were lost");
    last.stop().await;
    bench.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_clients_ask_for_is_made_and_one_that_is_deleted_leaves_the_disks() {
    let bench = Bench::new(json!({"replicas": 2, "topicDefaults": {"partitions": 4}})).await;
    let operator = Operator::start(&bench.server, "a");
    condition_becomes(&bench.server, "Ready", |found| found.0 == "True").await;
    bench.world.want("orders-1", "clicks");
    eventually("the topic", async || {
        bench
            .server
            .typed::<MessageTopic>()
            .get_opt("clicks")
            .await
            .expect("an answer")
    })
    .await;
    bench.settle("clicks", &[2, 2]).await;
    eventually("both brokers to have it", async || {
        (bench.world.held("orders-0") == 2 && bench.world.held("orders-1") == 2).then_some(())
    })
    .await;
    bench
        .server
        .typed::<MessageTopic>()
        .delete("clicks", &Default::default())
        .await
        .expect("deleted");
    eventually("it to leave the disks", async || {
        (bench.world.held("orders-0") + bench.world.held("orders-1") == 0).then_some(())
    })
    .await;
    operator.stop().await;
    bench.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn backpressure_adds_brokers_quickly_and_the_decision_is_in_the_status() {
    let spec = json!({"replicas": 1, "autoscaling": {"mode": "Auto", "minReplicas": 1, "maxReplicas": 5,
        "fallback": {"replicas": 1}}});
    let bench = Bench::new(spec).await;
    let operator = Operator::start(&bench.server, "a");
    create_topic(&bench.server, "payments", 8).await;
    bench.settle("payments", &[8]).await;
    bench.world.load(["orders-0".to_owned()], 400, false);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let start = std::time::Instant::now();
    bench.world.load(["orders-0".to_owned()], 1000, true);
    eventually("more brokers", async || {
        replicas(&bench.server).await.filter(|count| *count > 1)
    })
    .await;
    println!("pressure seen to StatefulSet patched: {:?}", start.elapsed());
    let status = broker(&bench.server)
        .await
        .status
        .and_then(|status| status.autoscaling)
        .expect("there");
    let decision = status.decisions.last().expect("a decision");
    assert!(decision.to > decision.from && !decision.message.is_empty());
    operator.stop().await;
    bench.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_autoscaler_is_told_of_and_not_fought_with() {
    let spec = json!({"replicas": 2, "autoscaling": {"mode": "Auto", "minReplicas": 1, "maxReplicas": 9}});
    let bench = Bench::new(spec).await;
    let operator = Operator::start(&bench.server, "a");
    bench.scaled(2).await;
    create_autoscaler(&bench.server).await;
    let conflict = |found: &(String, String, String)| found.1 == "AnotherAutoscaler";
    let (_, _, said) = condition_becomes(&bench.server, "ScalingActive", conflict).await;
    assert!(said.contains("web"), "{said}");

    // As it would scale.
    scale(&bench.server, 7).await;
    is_seen(&bench.server).await;
    assert_eq!(replicas(&bench.server).await, Some(2), "it was followed");

    // With scaling off, whoever writes spec.replicas decides.
    patch_broker(&bench.server, json!({"spec": {"autoscaling": {"mode": "Off"}}})).await;
    bench.scaled(7).await;
    condition_becomes(&bench.server, "ScalingActive", |found| found.1 == "Off").await;
    operator.stop().await;
    bench.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_brokers_at_rest_nothing_is_written() {
    let bench = Bench::new(json!({"replicas": 2})).await;
    let operator = Operator::start(&bench.server, "a");
    create_topic(&bench.server, "payments", 4).await;
    bench.settle("payments", &[2, 2]).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    let before = versions(&bench.server).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(
        versions(&bench.server).await,
        before,
        "something is written though nothing changes"
    );
    operator.stop().await;
    bench.end();
}
