//! A spec that cannot work says so, harms nothing that runs, and heals when the old one is put back.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};
use crate::sandbox::{Sandbox, condition};
use crate::small;

/// Waits until `Ready` is false for this reason and an event tells the same.
async fn says(sandbox: &Sandbox, name: &str, reason: &str) {
    eventually(
        Duration::from_secs(90),
        &format!("{name} to say {reason}"),
        || async {
            let broker = sandbox.broker(name).await;
            let conditions = &broker.status.as_ref()?.conditions;
            let told = conditions
                .iter()
                .any(|condition| condition.status != "True" && condition.reason == reason);
            let event = sandbox
                .events(name)
                .await
                .iter()
                .any(|event| event.starts_with(reason));
            (told && event).then_some(())
        },
    )
    .await;
    let (status, _, message) = condition(&sandbox.broker(name).await, "Ready").expect("the condition Ready");
    assert_eq!(status, "False", "{message}");
}

async fn uids(sandbox: &Sandbox, name: &str) -> BTreeMap<String, String> {
    let pods = sandbox.broker_pods(name).await;
    pods.iter()
        .map(|pod| (pod.name_any(), pod.uid().expect("a uid")))
        .collect()
}

/// Applies a change that cannot work over a healthy spec, and puts the old one back.
async fn breaks_and_heals(sandbox: &Sandbox, change: &Value, reason: &str) {
    let good = small(2, &sandbox.cluster.image);
    let before = uids(sandbox, "orders").await;
    let mut bad = good.clone();
    for (field, value) in change.as_object().expect("an object") {
        bad[field] = value.clone();
    }
    sandbox.apply_broker("orders", &bad).await;
    says(sandbox, "orders", reason).await;
    let ready = sandbox
        .broker("orders")
        .await
        .status
        .expect("a status")
        .ready_replicas;
    assert!(ready >= 1, "a bad spec took every broker away");
    sandbox.apply_broker("orders", &good).await;
    sandbox.ready("orders", 2).await;
    let after = uids(sandbox, "orders").await;
    let kept = before
        .iter()
        .filter(|(name, uid)| after.get(*name) == Some(uid))
        .count();
    assert!(
        kept >= 1,
        "{reason}: at most one broker is replaced by a bad spec: {before:?} {after:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_or_impossible_resources_say_so_and_heal_when_put_back() {
    let sandbox = Cluster::shared().await.sandbox("bad-spec").await;
    sandbox
        .apply_broker("orders", &small(2, &sandbox.cluster.image))
        .await;
    sandbox.ready("orders", 2).await;
    breaks_and_heals(
        &sandbox,
        &json!({"image": "localhost/no/such:image"}),
        "ImageUnavailable",
    )
    .await;
    let impossible =
        json!({"resources": {"requests": {"cpu": "500", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}});
    breaks_and_heals(&sandbox, &impossible, "Unschedulable").await;
    sandbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_storage_class_says_so_and_the_others_go_on() {
    let sandbox = Cluster::shared().await.sandbox("bad-storage").await;
    let mut spec = small(1, &sandbox.cluster.image);
    spec["storage"]["storageClassName"] = json!("no-such-class");
    sandbox.apply_broker("broken", &spec).await;
    sandbox
        .apply_broker("healthy", &small(1, &sandbox.cluster.image))
        .await;
    says(&sandbox, "broken", "StorageClassNotFound").await;
    sandbox.ready("healthy", 1).await;
    sandbox.remove().await;
}
