//! The status of both kinds at a real API server.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

#[path = "support/apiserver.rs"]
mod apiserver;

use apiserver::{ApiServer, Kind};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use sluice::api::{
    MessageBroker, MessageBrokerStatus, MessageTopic, MessageTopicStatus,
    broker_status::{
        AutoscalingStatus, BrokerStatus, Decision, DecisionInputs, DrainStatus, HoldingCounts, OpaqueState,
        Summary,
    },
    conditions::{self, Finding},
    topic_status::{ChainEntry, Holding, PartitionStatus},
};

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).expect("a valid time"))
}

#[tokio::test]
async fn a_whole_broker_status_is_kept_and_leaves_the_generation_alone() {
    let server = ApiServer::new().await;
    let created = server
        .create(Kind::Broker, &json!({}), false)
        .await
        .expect("accepted");
    let status = broker_status();
    let brokers = server.typed::<MessageBroker>();
    let apply = PatchParams::apply("sluice-tests").force();
    let object = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "MessageBroker", "status": status});
    brokers
        .patch_status("one", &apply, &Patch::Apply(&object))
        .await
        .expect("applied");
    let first = brokers.get("one").await.expect("readable");
    assert_eq!(first.status.as_ref(), Some(&status));
    assert_eq!(first.metadata.generation, created.metadata.generation);
    brokers
        .patch_status("one", &apply, &Patch::Apply(&object))
        .await
        .expect("applied");
    let again = brokers.get("one").await.expect("readable");
    assert_eq!(
        again.resource_version(),
        first.resource_version(),
        "the same status again is no write"
    );
}

fn broker_status() -> MessageBrokerStatus {
    let mut status = MessageBrokerStatus {
        observed_generation: Some(1),
        replicas: 3,
        ready_replicas: 3,
        updated_replicas: 3,
        selector: "app.kubernetes.io/instance=one".to_owned(),
        endpoint: "one.default.svc:7400".to_owned(),
        image: "sluice:1".to_owned(),
        channel_capacity: Some(128),
        summary: Some(Summary {
            brokers: "3/3".to_owned(),
            pressure: "70%".to_owned(),
            scaling: "Steady".to_owned(),
        }),
        brokers: vec![BrokerStatus {
            name: "one-0".to_owned(),
            ready: true,
            pressure: Some(70),
            capacity: Some(10_000),
            connections: Some(5),
            queue_delay_p99: Some("12ms".into()),
            partitions_led: Some(6),
        }],
        drain: Some(DrainStatus {
            ordinal: 3,
            since: at(10),
            empty_since: Some(at(20)),
            holding: HoldingCounts {
                partitions: 1,
                entries: 2,
                bytes: 1 << 40,
            },
            message: "copying".to_owned(),
        }),
        ..MessageBrokerStatus::default()
    };
    let mut autoscaling = AutoscalingStatus {
        starting_replicas: Some(3),
        desired_replicas: Some(3),
        recommended_replicas: Some(4),
        demand_per_second: Some(5_000_000_000),
        capacity_per_broker: Some(10_000),
        blocked_percent: Some(3),
        queue_delay_p99: Some("12ms".into()),
        brokers_reporting: Some(3),
        limited_by: Some("MaxReplicas".to_owned()),
        last_scale_time: Some(at(30)),
        state: Some(OpaqueState(
            json!({"window": [{"at": 1.5, "n": 3}], "k": {"value": null, "deep": {"er": true}}}),
        )),
        ..AutoscalingStatus::default()
    };
    for second in 0..12 {
        autoscaling.record(Decision {
            time: at(second),
            from: 3,
            to: 4,
            reason: "DemandAboveTarget".to_owned(),
            message: String::new(),
            inputs: DecisionInputs {
                brokers_ready: 3,
                ..DecisionInputs::default()
            },
        });
    }
    assert_eq!(
        (autoscaling.decisions.len(), &autoscaling.decisions[0].time),
        (10, &at(2))
    );
    status.autoscaling = Some(autoscaling);
    conditions::set(
        &mut status.conditions,
        Finding::new(conditions::READY, true, "AllReady", "fine"),
        Some(1),
        &at(1),
    );
    conditions::set(
        &mut status.conditions,
        Finding::new(conditions::PAUSED, false, "NotPaused", ""),
        Some(1),
        &at(1),
    );
    status
}

#[tokio::test]
async fn a_whole_topic_status_is_kept_and_guarded_by_compare_and_swap() {
    let server = ApiServer::new().await;
    server
        .create(Kind::Topic, &json!({}), false)
        .await
        .expect("accepted");
    let status = MessageTopicStatus {
        observed_generation: Some(1),
        partitions: vec![PartitionStatus {
            index: 3,
            epoch: 7,
            chain: vec![
                ChainEntry {
                    epoch: 5,
                    brokers: vec!["orders-0".to_owned()],
                    sealed_at: Some(181_204),
                },
                ChainEntry {
                    epoch: 7,
                    brokers: vec!["orders-4".to_owned()],
                    sealed_at: None,
                },
            ],
            holding: Some(Holding {
                broker: "orders-0".to_owned(),
                epochs: vec![5],
                message: "copying to orders-4: 1000 of 181204".to_owned(),
            }),
            note: "moved because orders-0 leaves".to_owned(),
        }],
        conditions: Vec::new(),
    };
    let topics = server.typed::<MessageTopic>();
    let stale = topics.get("one").await.expect("readable");
    let mut fresh = stale.clone();
    fresh.status = Some(status.clone());
    topics
        .replace_status("one", &PostParams::default(), &fresh)
        .await
        .expect("replaced");
    assert_eq!(topics.get("one").await.expect("readable").status, Some(status));
    let mut late = stale;
    late.status = Some(MessageTopicStatus::default());
    let refused = topics
        .replace_status("one", &PostParams::default(), &late)
        .await
        .expect_err("too late");
    assert!(matches!(refused, kube::Error::Api(status) if status.is_conflict()));
}

#[tokio::test]
async fn a_status_write_changes_no_spec_and_a_spec_write_no_status() {
    let server = ApiServer::new().await;
    let with_status = json!({"spec": {"replicas": 2}, "status": {"replicas": 9}});
    let created = server
        .create(Kind::Broker, &with_status, false)
        .await
        .expect("accepted");
    assert_eq!(created.data.get("status"), None);
    let brokers = server.typed::<MessageBroker>();
    let both =
        json!({"spec": {"replicas": 7}, "status": {"replicas": 2, "readyReplicas": 0, "updatedReplicas": 0}});
    brokers
        .patch_status("one", &PatchParams::default(), &Patch::Merge(both))
        .await
        .expect("patched");
    let read = brokers.get("one").await.expect("readable");
    assert_eq!(
        (read.spec.replicas, read.status.expect("written").replicas),
        (2, 2)
    );
}
