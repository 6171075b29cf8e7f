//! Every rule of both kinds, at a real API server: one object that it accepts, and one that it refuses for this rule
//! alone and with its message.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

#[path = "support/apiserver.rs"]
mod apiserver;
#[path = "support/rules.rs"]
mod rules;

use apiserver::Kind;
use rules::{Case, change, holds, messages, spec};
use serde_json::json;

/// Makes a test of each case, and a list of all.
macro_rules! cases {
    ($($name:ident => $case:expr,)+) => {
        $(#[tokio::test]
        async fn $name() {
            $case.check().await;
        })+

        fn all() -> Vec<Case> {
            vec![$($case),+]
        }
    };
}

/// `length` characters.
fn long(length: usize) -> String {
    "a".repeat(length)
}

use Kind::{Broker, Topic};

cases! {
    broker_name_length => holds(
        Broker,
        json!({"metadata": {"name": long(52)}}),
        json!({"metadata": {"name": long(53)}}),
        "metadata.name must have at most 52 characters"
    ),
    broker_name_is_a_dns_label => holds(
        Broker,
        json!({"metadata": {"name": "orders-2"}}),
        json!({"metadata": {"name": "2-orders"}}),
        "metadata.name must be a DNS label"
    ),
    broker_name_has_no_dots => holds(
        Broker,
        json!({"metadata": {"name": "orders"}}),
        json!({"metadata": {"name": "orders.eu"}}),
        "metadata.name must be a DNS label"
    ),
    image_has_no_spaces => spec(
        Broker,
        json!({"image": "registry.example.com:5000/team/sluice@sha256:0123"}),
        json!({"image": "sluice latest"}),
        "image must be an image reference without spaces"
    ),
    ephemeral_storage_is_not_available_yet => spec(
        Broker,
        json!({"storage": {"type": "Persistent"}}),
        json!({"storage": {"type": "Ephemeral"}}),
        "storage.type: Ephemeral is not available yet"
    ),
    storage_class_cannot_be_changed => change(
        Broker,
        json!({"storage": {"storageClassName": "fast"}}),
        json!({"storage": {"storageClassName": "fast", "size": "20Gi"}}),
        json!({"storage": {"storageClassName": "slow"}}),
        "storage.storageClassName cannot be changed, added or removed"
    ),
    storage_class_cannot_be_added => change(
        Broker,
        json!({}),
        json!({"storage": {"size": "20Gi"}}),
        json!({"storage": {"storageClassName": "slow"}}),
        "storage.storageClassName cannot be changed, added or removed"
    ),
    storage_class_cannot_be_removed => change(
        Broker,
        json!({"storage": {"storageClassName": "fast"}}),
        json!({"paused": true}),
        json!({"storage": {"storageClassName": null}}),
        "storage.storageClassName cannot be changed, added or removed"
    ),
    storage_class_is_a_name => spec(
        Broker,
        json!({"storage": {"storageClassName": "fast-ssd.eu"}}),
        json!({"storage": {"storageClassName": "Fast SSD"}}),
        "storage.storageClassName must be the name of an object"
    ),
    storage_size_has_a_least => spec(
        Broker,
        json!({"storage": {"size": "16Mi"}}),
        json!({"storage": {"size": "15Mi"}}),
        "storage.size must be a quantity of bytes from 16Mi to 64Ti"
    ),
    storage_size_has_a_most => spec(
        Broker,
        json!({"storage": {"size": "64Ti"}}),
        json!({"storage": {"size": "65Ti"}}),
        "storage.size must be a quantity of bytes from 16Mi to 64Ti"
    ),
    storage_size_is_a_quantity => spec(
        Broker,
        json!({"storage": {"size": "1.5Gi"}}),
        json!({"storage": {"size": "ten"}}),
        "storage.size must be a quantity of bytes from 16Mi to 64Ti"
    ),
    storage_size_may_be_a_number => spec(
        Broker,
        json!({"storage": {"size": 1_073_741_824}}),
        json!({"storage": {"size": 10}}),
        "storage.size must be a quantity of bytes from 16Mi to 64Ti"
    ),
    storage_size_never_shrinks => change(
        Broker,
        json!({"storage": {"size": "10Gi"}}),
        json!({"storage": {"size": "10241Mi"}}),
        json!({"storage": {"size": "10239Mi"}}),
        "storage.size can grow and never shrink"
    ),
    channel_bounds_are_in_order => spec(
        Broker,
        json!({"channel": {"min": 128, "max": 128}}),
        json!({"channel": {"min": 129, "max": 128}}),
        "channel.min must not exceed channel.max"
    ),
    channel_capacity_is_not_below_its_bounds => spec(
        Broker,
        json!({"channel": {"capacity": 64}}),
        json!({"channel": {"capacity": 63}}),
        "channel.capacity must lie within channel.min and channel.max"
    ),
    channel_capacity_is_not_above_its_bounds => spec(
        Broker,
        json!({"channel": {"capacity": 65_536}}),
        json!({"channel": {"capacity": 65_537}}),
        "channel.capacity must lie within channel.min and channel.max"
    ),
    a_fixed_channel_has_no_bounds => spec(
        Broker,
        json!({"channel": {"mode": "Fixed", "capacity": 32}}),
        json!({"channel": {"mode": "Auto", "capacity": 32}}),
        "channel.capacity must lie within channel.min and channel.max"
    ),
    channel_target_queue_delay => spec(
        Broker,
        json!({"channel": {"targetQueueDelay": "1ms"}}),
        json!({"channel": {"targetQueueDelay": "1m1ms"}}),
        "channel.targetQueueDelay must be a duration from 1ms to 1m"
    ),
    channel_burst_window => spec(
        Broker,
        json!({"channel": {"burstWindow": "5m"}}),
        json!({"channel": {"burstWindow": "9ms"}}),
        "channel.burstWindow must be a duration from 10ms to 5m"
    ),
    a_duration_has_a_unit => spec(
        Broker,
        json!({"channel": {"burstWindow": "1m30s500ms"}}),
        json!({"channel": {"burstWindow": "2"}}),
        "channel.burstWindow must be a duration from 10ms to 5m"
    ),
    a_duration_is_not_empty => spec(
        Broker,
        json!({"channel": {"burstWindow": "2s"}}),
        json!({"channel": {"burstWindow": ""}}),
        "channel.burstWindow must be a duration from 10ms to 5m"
    ),
    a_duration_that_overflows_is_refused_like_any_other => spec(
        Broker,
        json!({"channel": {"burstWindow": "2s"}}),
        json!({"channel": {"burstWindow": "999999h999999h9h"}}),
        "channel.burstWindow must be a duration from 10ms to 5m"
    ),
    autoscaling_bounds_are_in_order => spec(
        Broker,
        json!({"autoscaling": {"minReplicas": 3, "maxReplicas": 3}}),
        json!({"autoscaling": {"minReplicas": 4, "maxReplicas": 3}}),
        "autoscaling.minReplicas must not exceed autoscaling.maxReplicas"
    ),
    fallback_is_not_above_the_bounds => spec(
        Broker,
        json!({"autoscaling": {"maxReplicas": 2, "fallback": {"replicas": 2}}}),
        json!({"autoscaling": {"maxReplicas": 2}}),
        "autoscaling.fallback.replicas (3 unless given) must lie within"
    ),
    fallback_is_not_below_the_bounds => spec(
        Broker,
        json!({"autoscaling": {"minReplicas": 4, "fallback": {"replicas": 4}}}),
        json!({"autoscaling": {"minReplicas": 4, "fallback": {"replicas": 3}}}),
        "autoscaling.fallback.replicas (3 unless given) must lie within"
    ),
    autoscaling_catch_up => spec(
        Broker,
        json!({"autoscaling": {"catchUp": "1h"}}),
        json!({"autoscaling": {"catchUp": "1h1s"}}),
        "autoscaling.catchUp must be a duration from 1s to 1h"
    ),
    autoscaling_metrics_staleness => spec(
        Broker,
        json!({"autoscaling": {"metricsStaleness": "1s"}}),
        json!({"autoscaling": {"metricsStaleness": "999ms"}}),
        "autoscaling.metricsStaleness must be a duration from 1s to 10m"
    ),
    drain_settle => spec(
        Broker,
        json!({"autoscaling": {"drain": {"settle": "0s"}}}),
        json!({"autoscaling": {"drain": {"settle": "soon"}}}),
        "autoscaling.drain.settle must be a duration from 0s to 1h"
    ),
    drain_timeout => spec(
        Broker,
        json!({"autoscaling": {"drain": {"timeout": "24h"}}}),
        json!({"autoscaling": {"drain": {"timeout": "25h"}}}),
        "autoscaling.drain.timeout must be a duration from 1s to 24h"
    ),
    drain_settle_is_shorter_than_timeout => spec(
        Broker,
        json!({"autoscaling": {"drain": {"settle": "59s", "timeout": "1m"}}}),
        json!({"autoscaling": {"drain": {"settle": "60s", "timeout": "1m"}}}),
        "autoscaling.drain.settle must be shorter than autoscaling.drain.timeout"
    ),
    default_retention_age => spec(
        Broker,
        json!({"topicDefaults": {"retention": {"age": "0s"}}}),
        json!({"topicDefaults": {"retention": {"age": "7d"}}}),
        "topicDefaults.retention.age must be 0s (no limit) or a duration"
    ),
    default_retention_bytes => spec(
        Broker,
        json!({"topicDefaults": {"retention": {"bytes": "1Gi"}}}),
        json!({"topicDefaults": {"retention": {"bytes": "1Ki"}}}),
        "topicDefaults.retention.bytes must be a quantity of bytes"
    ),
    limits_max_message_bytes => spec(
        Broker,
        json!({"limits": {"maxMessageBytes": "64Mi"}}),
        json!({"limits": {"maxMessageBytes": "65Mi"}}),
        "limits.maxMessageBytes must be a quantity of bytes from 1Ki to 64Mi"
    ),
    limits_max_inflight_bytes => spec(
        Broker,
        json!({"limits": {"maxInflightBytes": "1Ti"}}),
        json!({"limits": {"maxInflightBytes": "2Ti"}}),
        "limits.maxInflightBytes must be a quantity of bytes from 64Ki to 1Ti"
    ),
    the_largest_message_can_pass => spec(
        Broker,
        json!({"limits": {"maxMessageBytes": "4Mi", "maxInflightBytes": "4Mi"}}),
        json!({"limits": {"maxMessageBytes": "4Mi", "maxInflightBytes": "3Mi"}}),
        "limits.maxInflightBytes must be at least limits.maxMessageBytes"
    ),
    tls_is_not_available_yet => spec(
        Broker,
        json!({"tls": {"mode": "Disabled"}}),
        json!({"tls": {"mode": "OperatorManaged"}}),
        "tls.mode: TLS is not available yet"
    ),
    resources_are_quantities => spec(
        Broker,
        json!({"resources": {"requests": {"cpu": "200m", "memory": "64Mi"}, "limits": {"cpu": 1}}}),
        json!({"resources": {"requests": {"cpu": "half"}}}),
        "resources: every request and limit must be a quantity"
    ),
    requests_do_not_exceed_limits => spec(
        Broker,
        json!({"resources": {"requests": {"cpu": "1000m", "memory": "1Gi"}, "limits": {"cpu": 1}}}),
        json!({"resources": {"requests": {"cpu": "1001m"}, "limits": {"cpu": 1}}}),
        "resources.requests must not exceed resources.limits"
    ),
    pod_label_keys => spec(
        Broker,
        json!({"podTemplate": {"labels": {"example.com/team": "a"}}}),
        json!({"podTemplate": {"labels": {"my team": "a"}}}),
        "podTemplate.labels: every key must be a qualified name"
    ),
    pod_label_values => spec(
        Broker,
        json!({"podTemplate": {"labels": {"team": ""}}}),
        json!({"podTemplate": {"labels": {"team": "a team"}}}),
        "podTemplate.labels: every value must be empty or"
    ),
    pod_labels_of_the_operator => spec(
        Broker,
        json!({"podTemplate": {"labels": {"sluice": "mine"}}}),
        json!({"podTemplate": {"labels": {"app.kubernetes.io/name": "mine"}}}),
        "podTemplate.labels: labels of sluice.dev and app.kubernetes.io are the operator's"
    ),
    pod_annotation_keys => spec(
        Broker,
        json!({"podTemplate": {"annotations": {"example.com/note": "any text, {even} this"}}}),
        json!({"podTemplate": {"annotations": {"": "a"}}}),
        "podTemplate.annotations: every key must be a qualified name"
    ),
    pod_annotations_of_the_operator => spec(
        Broker,
        json!({"podTemplate": {"annotations": {"prometheus.io/scrape": "true"}}}),
        json!({"podTemplate": {"annotations": {"sluice.dev/hash": "a"}}}),
        "podTemplate.annotations: annotations of sluice.dev are the operator's"
    ),
    node_selector_keys => spec(
        Broker,
        json!({"podTemplate": {"nodeSelector": {"topology.kubernetes.io/zone": "eu-1"}}}),
        json!({"podTemplate": {"nodeSelector": {"-zone": "eu-1"}}}),
        "podTemplate.nodeSelector: every key must be a qualified name"
    ),
    node_selector_values => spec(
        Broker,
        json!({"podTemplate": {"nodeSelector": {"disk": "ssd"}}}),
        json!({"podTemplate": {"nodeSelector": {"disk": "ssd-"}}}),
        "podTemplate.nodeSelector: every value must be empty or"
    ),
    priority_class_is_a_name => spec(
        Broker,
        json!({"podTemplate": {"priorityClassName": "high"}}),
        json!({"podTemplate": {"priorityClassName": ""}}),
        "podTemplate.priorityClassName must be the name of an object"
    ),
    broker_ref_is_a_name => spec(
        Topic,
        json!({"brokerRef": {"name": "payments"}}),
        json!({"brokerRef": {"name": "Payments"}}),
        "brokerRef.name must be the name of an object"
    ),
    broker_ref_is_immutable => change(
        Topic,
        json!({}),
        json!({"maxDeliveries": 3}),
        json!({"brokerRef": {"name": "payments"}}),
        "brokerRef.name cannot be changed"
    ),
    partitions_never_shrink => change(
        Topic,
        json!({"partitions": 4}),
        json!({"partitions": 5}),
        json!({"partitions": 3}),
        "partitions can grow and never shrink"
    ),
    retention_age => spec(
        Topic,
        json!({"retention": {"age": "168h"}}),
        json!({"retention": {"age": "500ms"}}),
        "retention.age must be 0s (no limit) or a duration from 1s to 87600h"
    ),
    retention_bytes => spec(
        Topic,
        json!({"retention": {"bytes": "1Mi"}}),
        json!({"retention": {"bytes": "-1"}}),
        "retention.bytes must be a quantity of bytes from 1Mi to 64Ti"
    ),
    ack_deadline => spec(
        Topic,
        json!({"ackDeadline": "100ms"}),
        json!({"ackDeadline": "0s"}),
        "ackDeadline must be a duration from 100ms to 12h"
    ),
    dead_letter_topic_is_a_name => spec(
        Topic,
        json!({"maxDeliveries": 3, "deadLetterTopic": "orders.dead"}),
        json!({"maxDeliveries": 3, "deadLetterTopic": "orders/dead"}),
        "deadLetterTopic must be the name of an object"
    ),
    dead_letter_topic_is_another => holds(
        Topic,
        json!({"metadata": {"name": "orders"}, "spec": {"maxDeliveries": 3, "deadLetterTopic": "dead"}}),
        json!({"metadata": {"name": "dead"}, "spec": {"maxDeliveries": 3, "deadLetterTopic": "dead"}}),
        "spec.deadLetterTopic must be another topic than this one"
    ),
    dead_letter_topic_needs_max_deliveries => spec(
        Topic,
        json!({"maxDeliveries": 1, "deadLetterTopic": "dead"}),
        json!({"maxDeliveries": 0, "deadLetterTopic": "dead"}),
        "deadLetterTopic is never used while maxDeliveries is 0"
    ),
}

#[test]
fn every_rule_has_a_case() {
    let cases = all();
    for kind in [Broker, Topic] {
        let mut found = Vec::new();
        messages(&kind.schema(), &mut found);
        assert!(!found.is_empty());
        let without = |message: &&String| {
            !cases
                .iter()
                .any(|case| case.kind == kind && message.contains(case.message))
        };
        let missing: Vec<_> = found.iter().filter(without).collect();
        assert!(
            missing.is_empty(),
            "rules of {kind:?} without a case: {missing:#?}"
        );
        println!("{kind:?}: {} rules", found.len());
    }
}
