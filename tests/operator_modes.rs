//! Autoscaling modes, bounds, pauses and scales by hand, changed while the operator runs: with a real API server and brokers of the
//! test's own, whose pressure is given.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

#[path = "support/apiserver.rs"]
mod apiserver;
mod operator_support;

use std::time::Duration;

use apiserver::ApiServer;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use operator_support::brokers::World;
use operator_support::{
    Operator, broker, condition, condition_becomes, create_autoscaler, create_broker, create_topic,
    eventually, is_seen, patch_broker, replicas, scale, within,
};
use serde_json::{Value, json};
use sluice::api::MessageTopic;
use sluice::api::broker_status::AutoscalingStatus;
use tokio_util::sync::CancellationToken;

const MOST: u32 = 5;

struct Bench {
    server: ApiServer,
    world: World,
    stop: CancellationToken,
    operator: Operator,
}

impl Bench {
    /// Two brokers that own a topic's partitions, from 1 to [`MOST`] of them.
    async fn new(mode: &str) -> Self {
        let server = ApiServer::new().await;
        let (world, stop) = (World::default(), CancellationToken::new());
        world.serve(&server, &stop);
        let autoscaling = json!({"mode": mode, "minReplicas": 1, "maxReplicas": MOST, "fallback": {"replicas": 2},
            "drain": {"settle": "1s", "timeout": "10m"}});
        create_broker(&server, json!({"replicas": 2, "autoscaling": autoscaling})).await;
        let operator = Operator::start(&server, "a");
        let bench = Self {
            server,
            world,
            stop,
            operator,
        };
        create_topic(&bench.server, "payments", 4).await;
        eventually("every partition to have an owner", async || {
            let topic: MessageTopic = bench.server.typed().get("payments").await.expect("there");
            let partitions = topic.status?.partitions;
            (partitions.len() == 4 && partitions.iter().all(|one| !one.chain.is_empty())).then_some(())
        })
        .await;
        bench
    }

    /// What each broker reports from now on, those that are still to come as well.
    fn load(&self, rate: u64, blocked: bool) {
        let names = (0..MOST).map(|ordinal| format!("orders-{ordinal}"));
        self.world.load(names, rate, blocked);
    }

    async fn patch(&self, autoscaling: Value) {
        patch_broker(&self.server, json!({"spec": {"autoscaling": autoscaling}})).await;
    }

    async fn scaled(&self, what: &str, is_it: impl Fn(i32) -> bool) {
        eventually(&format!("{what}: the number of brokers"), async || {
            replicas(&self.server).await.filter(|count| is_it(*count))
        })
        .await;
    }

    /// To more than there are, and waits until they are there.
    async fn raise_minimum(&self, least: i32) {
        self.patch(json!({"minReplicas": least, "fallback": {"replicas": least}}))
            .await;
        self.scaled("minReplicas above", |count| count == least).await;
    }

    async fn autoscaling(&self) -> AutoscalingStatus {
        let status = broker(&self.server).await.status.unwrap_or_default();
        status.autoscaling.unwrap_or_default()
    }

    async fn end(self) {
        self.operator.stop().await;
        self.stop.cancel();
        assert_eq!(self.world.breaches(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_that_is_set_while_publishers_are_held_back_does_what_it_says() {
    let bench = Bench::new("Off").await;
    bench.load(1_000, true);
    condition_becomes(&bench.server, "ScalingActive", |found| found.1 == "Off").await;

    bench.patch(json!({"mode": "Recommend"})).await;
    let said = eventually("more brokers to be recommended", async || {
        let status = bench.autoscaling().await;
        let proposed = status.decisions.last().is_some_and(|decision| decision.to > 2);
        (proposed && status.recommended_replicas > Some(2)).then_some(status)
    })
    .await;
    assert_eq!(
        (said.desired_replicas, said.limited_by.as_deref()),
        (Some(2), Some("Mode")),
        "{said:?}"
    );
    assert_eq!(replicas(&bench.server).await, Some(2), "only recommended");

    bench.patch(json!({"mode": "ScaleUpOnly"})).await;
    bench.scaled("ScaleUpOnly", |count| count > 2).await;

    // What does not act goes by spec.replicas, through the drain.
    bench.patch(json!({"mode": "Recommend"})).await;
    bench.scaled("Recommend", |count| count == 2).await;
    assert_eq!(bench.world.held("orders-2"), 0, "it left before it was empty");

    bench.patch(json!({"mode": "Auto"})).await;
    bench.scaled("Auto", |count| count > 2).await;
    bench.patch(json!({"mode": "Off"})).await;
    bench.scaled("Off", |count| count == 2).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_felt_during_a_pause_is_acted_on_after_it_and_not_before() {
    let bench = Bench::new("Auto").await;
    for round in 0..2 {
        patch_broker(&bench.server, json!({"spec": {"paused": true}})).await;
        condition_becomes(&bench.server, "Paused", |found| found.0 == "True").await;
        let before = bench.autoscaling().await;
        bench.load(1_000, true);
        tokio::time::sleep(Duration::from_secs(4)).await;
        // It is over before anything could be done about it.
        bench.load(10, false);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(replicas(&bench.server).await, Some(2), "{round}");
        assert_eq!(bench.autoscaling().await, before, "{round}");

        patch_broker(&bench.server, json!({"spec": {"paused": false}})).await;
        condition_becomes(&bench.server, "Paused", |found| found.0 == "False").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = bench.autoscaling().await;
        assert_eq!(replicas(&bench.server).await, Some(2), "{round}: {after:?}");
        assert_eq!(after.decisions, before.decisions, "{round}");
    }
    bench.load(1_000, true);
    bench.scaled("after the pauses", |count| count > 2).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minimum_that_is_raised_and_a_scale_by_hand_within_the_bounds_count_under_auto() {
    let bench = Bench::new("Auto").await;
    bench.load(10, false);
    bench.raise_minimum(4).await;
    let decision = bench.autoscaling().await.decisions.pop().expect("a decision");
    assert_eq!(
        (decision.from, decision.to, decision.reason.as_str()),
        (2, 4, "OutOfBounds")
    );

    for (wanted, expected) in [(5, 5), (9, 5)] {
        scale(&bench.server, wanted).await;
        bench.scaled("by hand", |count| count == expected).await;
        is_seen(&bench.server).await;
        let status = bench.autoscaling().await;
        assert_eq!(status.starting_replicas, u32::try_from(wanted).ok());
        assert_eq!(status.desired_replicas, u32::try_from(expected).ok());
    }
    bench.end().await;
}

/// An operator that has just started removes no broker before it has seen a minute, the shortest window there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_maximum_that_is_lowered_below_the_present_empties_each_broker_before_it_leaves() {
    let bench = Bench::new("Auto").await;
    bench.load(10, false);
    bench.raise_minimum(4).await;
    let shortest = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
    bench
        .patch(json!({"minReplicas": 1, "maxReplicas": 2, "fallback": {"replicas": 2}, "behavior": shortest}))
        .await;
    within(Duration::from_secs(150), "maxReplicas below", async || {
        let count = replicas(&bench.server).await?;
        for gone in count..4 {
            assert_eq!(
                bench.world.held(&format!("orders-{gone}")),
                0,
                "it left before it was empty"
            );
        }
        (count == 2).then_some(())
    })
    .await;
    let decisions = bench.autoscaling().await.decisions;
    let last = decisions.last().expect("a decision");
    assert_eq!(last.reason, "OutOfBounds", "{decisions:?}");
    assert!(
        (3..=4).contains(&last.from) && last.to < last.from,
        "{decisions:?}"
    );
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_autoscaler_that_writes_again_and_again_moves_no_broker_until_it_is_gone() {
    let bench = Bench::new("Auto").await;
    bench.load(10, false);
    create_autoscaler(&bench.server).await;
    condition_becomes(&bench.server, "ScalingActive", |found| {
        found.1 == "AnotherAutoscaler"
    })
    .await;
    for wanted in [4, 1, 5, 3] {
        scale(&bench.server, wanted).await;
        is_seen(&bench.server).await;
        assert_eq!(replicas(&bench.server).await, Some(2), "it followed to {wanted}");
        let (_, reason, _) = condition(&bench.server, "ScalingActive").await.expect("there");
        assert_eq!(reason, "AnotherAutoscaler");
    }
    let status = bench.autoscaling().await;
    assert_eq!(
        (status.starting_replicas, status.desired_replicas),
        (Some(2), Some(2))
    );
    assert_eq!(status.decisions, []);

    // What is in spec.replicas then is a wish like any other.
    bench
        .server
        .typed::<HorizontalPodAutoscaler>()
        .delete("web", &Default::default())
        .await
        .expect("deleted");
    scale(&bench.server, 4).await;
    bench.scaled("by hand", |count| count == 4).await;
    condition_becomes(&bench.server, "ScalingActive", |found| {
        found.1 != "AnotherAutoscaler"
    })
    .await;
    bench.end().await;
}
