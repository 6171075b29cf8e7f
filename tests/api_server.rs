//! Both kinds at a real API server: defaults, scale, columns, names, and how they are installed.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

#[path = "support/apiserver.rs"]
mod apiserver;

use std::{path::Path, time::Duration};

use apiserver::{ApiServer, Kind};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sluice::{
    api::{
        MessageBroker, MessageTopic,
        conditions::{self, Finding},
    },
    cli::crd,
};

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).expect("a valid time"))
}

#[tokio::test]
async fn an_empty_broker_gets_every_default() {
    let server = ApiServer::new().await;
    let stored = server
        .create(Kind::Broker, &json!({}), false)
        .await
        .expect("accepted");
    assert_eq!(
        stored.data["spec"],
        json!({
            "replicas": 3,
            "image": "",
            "resources": {},
            "storage": {
                "type": "Persistent",
                "size": "10Gi",
                "retentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"}
            },
            "durability": "Fsync",
            "channel": {
                "mode": "Auto", "capacity": 128, "min": 64, "max": 65536, "targetQueueDelay": "100ms", "burstWindow": "2s",
                "maxChangePercent": 50
            },
            "autoscaling": {
                "mode": "Off", "minReplicas": 1, "maxReplicas": 10, "targetUtilizationPercent": 70, "catchUp": "60s",
                "metricsStaleness": "15s",
                "behavior": {
                    "scaleUp": {
                        "stabilizationWindowSeconds": 0, "tolerancePercent": 10, "selectPolicy": "Max",
                        "policies": [
                            {"type": "Percent", "value": 400, "periodSeconds": 15},
                            {"type": "Pods", "value": 4, "periodSeconds": 15}
                        ]
                    },
                    "scaleDown": {
                        "stabilizationWindowSeconds": 300, "tolerancePercent": 15, "selectPolicy": "Max",
                        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]
                    }
                },
                "fallback": {"failureThreshold": 3, "behavior": "CurrentReplicasIfHigher", "replicas": 3},
                "drain": {"settle": "10s", "timeout": "10m"}
            },
            "topicDefaults": {"autoCreate": true, "partitions": 16, "retention": {"age": "24h"}},
            "limits": {
                "maxConnections": 60000, "maxStreamsPerConnection": 200, "maxMessageBytes": "4Mi",
                "maxInflightBytes": "256Mi"
            },
            "tls": {"mode": "Disabled"},
            "podTemplate": {},
            "podDisruptionBudget": {"enabled": true},
            "networkPolicy": {"enabled": true},
            "paused": false
        })
    );
}

#[tokio::test]
async fn a_default_fills_what_an_object_that_is_given_leaves_out() {
    let server = ApiServer::new().await;
    let spec =
        json!({"spec": {"autoscaling": {"mode": "Auto", "behavior": {"scaleUp": {"selectPolicy": "Min"}}}}});
    server.create(Kind::Broker, &spec, false).await.expect("accepted");
    let read = server
        .typed::<MessageBroker>()
        .get("one")
        .await
        .expect("readable");
    let scale_up = &read.spec.autoscaling.behavior.scale_up;
    assert_eq!((scale_up.tolerance_percent, scale_up.policies.len()), (10, 2));
    assert_eq!(read.spec.autoscaling.max_replicas, 10);
}

#[tokio::test]
async fn an_empty_topic_gets_every_default() {
    let server = ApiServer::new().await;
    let stored = server
        .create(Kind::Topic, &json!({}), false)
        .await
        .expect("accepted");
    assert_eq!(
        stored.data["spec"],
        json!({
            "brokerRef": {"name": "orders"},
            "partitions": 16,
            "retention": {"age": "24h", "policy": "Log"},
            "ackDeadline": "30s",
            "maxDeliveries": 0
        })
    );
}

#[tokio::test]
async fn a_topic_needs_a_broker() {
    let server = ApiServer::new().await;
    let mut topic = Kind::Topic.complete(&json!({}));
    topic.data["spec"] = json!({});
    let created = server
        .untyped(Kind::Topic)
        .create(&PostParams::default(), &topic)
        .await;
    assert!(
        created
            .expect_err("refused")
            .to_string()
            .contains("spec.brokerRef: Required value")
    );
}

#[tokio::test]
async fn null_quantities_become_defaults_and_stop_no_list() {
    let server = ApiServer::new().await;
    let nulls = json!({"spec": {
        "storage": {"size": null},
        "limits": {"maxMessageBytes": null, "maxInflightBytes": null},
        "topicDefaults": {"retention": {"bytes": null}}
    }});
    server
        .create(Kind::Broker, &nulls, false)
        .await
        .expect("accepted");
    server
        .create(
            Kind::Topic,
            &json!({"spec": {"retention": {"bytes": null}}}),
            false,
        )
        .await
        .expect("accepted");
    let brokers = server
        .typed::<MessageBroker>()
        .list(&ListParams::default())
        .await
        .expect("the list is readable");
    assert_eq!(brokers.items[0].spec.storage.size_bytes(), Ok(10 << 30));
    assert_eq!(brokers.items[0].spec.limits.max_message_bytes(), Ok(4 << 20));
    let topics = server
        .typed::<MessageTopic>()
        .list(&ListParams::default())
        .await
        .expect("the list is readable");
    assert_eq!(topics.items[0].spec.retention.bytes(), Ok(None));
}

#[tokio::test]
async fn bad_pod_settings_are_taken_and_named_when_they_are_used() {
    let server = ApiServer::new().await;
    let spec = json!({"spec": {"podTemplate": {
        "affinity": {"nodeAfinity": {}},
        "topologySpreadConstraints": [{"maxSkew": "one"}]
    }}});
    server.create(Kind::Broker, &spec, false).await.expect("accepted");
    let read = server
        .typed::<MessageBroker>()
        .get("one")
        .await
        .expect("readable");
    let affinity = read.spec.pod_template.affinity().expect_err("misspelt");
    assert_eq!(affinity.field, "spec.podTemplate.affinity.nodeAfinity");
    let spread = read
        .spec
        .pod_template
        .topology_spread_constraints()
        .expect_err("of the wrong type");
    assert_eq!(spread.field, "spec.podTemplate.topologySpreadConstraints[0]");
}

#[tokio::test]
async fn the_definitions_are_taken_by_both_kinds_of_apply() {
    let server = ApiServer::new().await;
    for (path, _) in crd::generated_files().expect("serialises") {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let file = file.to_str().expect("text");
        server
            .kubectl(&["apply", "--server-side", "--force-conflicts", "-f", file])
            .expect("server-side apply");
        server
            .kubectl(&["apply", "--dry-run=server", "-f", file])
            .expect("client-side apply");
    }
}

#[tokio::test]
async fn the_scale_subresource_scales() {
    let server = ApiServer::new().await;
    server
        .create(Kind::Broker, &json!({}), false)
        .await
        .expect("accepted");
    let brokers: Api<MessageBroker> = server.typed();
    let status =
        json!({"status": {"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2, "selector": "a=b"}});
    brokers
        .patch_status("one", &PatchParams::default(), &Patch::Merge(status))
        .await
        .expect("patched");

    server
        .kubectl(&["scale", "mb/one", "--replicas=5"])
        .expect("scaled");
    let scale = brokers.get_scale("one").await.expect("there is a scale");
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(5));
    let status = scale.status.expect("a status");
    assert_eq!((status.replicas, status.selector.as_deref()), (2, Some("a=b")));
    assert_eq!(brokers.get("one").await.expect("there").spec.replicas, 5);

    let refused = server
        .kubectl(&["scale", "mb/one", "--replicas=0"])
        .expect_err("refused");
    assert!(
        refused.contains("spec.replicas") && refused.contains("greater than or equal to 1"),
        "{refused}"
    );
}

#[tokio::test]
async fn short_names_categories_and_columns_are_as_documented() {
    let server = ApiServer::new().await;
    server
        .create(Kind::Broker, &json!({"metadata": {"name": "orders"}}), false)
        .await
        .expect("accepted");
    server
        .create(Kind::Topic, &json!({"metadata": {"name": "created"}}), false)
        .await
        .expect("accepted");
    let mut found = Vec::new();
    conditions::set(
        &mut found,
        Finding::new(conditions::READY, true, "AllReady", ""),
        Some(1),
        &at(1),
    );
    let status = json!({"status": {
        "channelCapacity": 256,
        "summary": {"brokers": "3/4", "pressure": "73%", "scaling": "DemandAboveTarget"},
        "conditions": found
    }});
    let brokers = server.typed::<MessageBroker>();
    brokers
        .patch_status("orders", &PatchParams::default(), &Patch::Merge(status))
        .await
        .expect("patched");
    // Discovery learns of new definitions a moment after they are established.
    for attempt in 0.. {
        if server
            .kubectl(&["get", "sluice"])
            .is_ok_and(|text| text.contains("orders") && text.contains("created"))
        {
            break;
        }
        assert!(attempt < 50, "{:?}", server.kubectl(&["get", "sluice"]));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for category in ["sluice", "all"] {
        let listed = server.kubectl(&["get", category, "-o", "name"]).expect("listed");
        assert!(
            listed.contains("messagebroker.sluice.dev/orders"),
            "{category}: {listed}"
        );
        assert!(
            listed.contains("messagetopic.sluice.dev/created"),
            "{category}: {listed}"
        );
    }
    let words = |text: &str, line: usize| -> Vec<String> {
        text.lines()
            .nth(line)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let table = server.kubectl(&["get", "mb"]).expect("listed");
    assert_eq!(
        words(&table, 0),
        [
            "NAME", "READY", "BROKERS", "CHANNEL", "PRESSURE", "SCALING", "AGE"
        ]
    );
    assert_eq!(
        words(&table, 1)[..6],
        ["orders", "True", "3/4", "256", "73%", "DemandAboveTarget"]
    );
    let table = server.kubectl(&["get", "mt"]).expect("listed");
    assert_eq!(words(&table, 0), ["NAME", "READY", "BROKER", "PARTITIONS", "AGE"]);
    assert_eq!(words(&table, 1)[..3], ["created", "orders", "16"]);
}

#[tokio::test]
async fn topics_are_found_by_their_broker() {
    let server = ApiServer::new().await;
    for (name, broker) in [("a", "orders"), ("b", "payments"), ("c", "orders")] {
        let topic = json!({"metadata": {"name": name}, "spec": {"brokerRef": {"name": broker}}});
        server.create(Kind::Topic, &topic, false).await.expect("accepted");
    }
    let params = ListParams::default().fields("spec.brokerRef.name=orders");
    let found = server
        .typed::<MessageTopic>()
        .list(&params)
        .await
        .expect("listed");
    assert_eq!(
        found.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["a", "c"]
    );
}

#[tokio::test]
async fn a_field_that_does_not_exist_is_named_by_kubectl() {
    let server = ApiServer::new().await;
    let file = tempfile::Builder::new()
        .suffix(".json")
        .tempfile()
        .expect("a file");
    let object: Value = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "MessageBroker", "metadata": {"name": "one"},
        "spec": {"chanel": {}}
    });
    std::fs::write(file.path(), object.to_string()).expect("written");
    let refused = server
        .kubectl(&["apply", "-f", file.path().to_str().expect("text")])
        .expect_err("refused");
    assert!(refused.contains("unknown field \"spec.chanel\""), "{refused}");
}
