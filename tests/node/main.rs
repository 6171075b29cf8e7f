//! On a real cluster of three nodes: what a user of Sluice relies on. Run by `make test-node`, a few
//! tests at a time; those of [`alone`] one by one.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "every file uses a part of the support"
)]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by it"
)]

#[path = "../support/cluster.rs"]
mod cluster;
#[path = "../support/sandbox.rs"]
mod sandbox;

mod alone;
mod at_rest;
mod bad_spec;
mod basics;
mod crash;
mod scaling;

use serde_json::{Value, json};

/// A `MessageBroker` that a small machine carries: so many brokers, the image under test.
pub fn small(replicas: u32, image: &str) -> Value {
    json!({"replicas": replicas, "image": image, "storage": {"size": "1Gi"},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}})
}

/// Asserts what every load must end with: all that was acknowledged was delivered, in order and once.
pub fn assert_exactly_once(summary: &Value) {
    assert_eq!(summary["lost"], 0, "{summary}");
    assert_eq!(summary["duplicated"], 0, "{summary}");
    assert_eq!(summary["reordered"], 0, "{summary}");
    assert!(
        summary["acknowledged"].as_u64().is_some_and(|count| count > 0),
        "{summary}"
    );
    assert_eq!(summary["exit"], 0, "{summary}");
}
