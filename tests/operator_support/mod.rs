//! An operator in the test's own process, at a real API server, and what the tests look at.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

pub mod brokers;

use std::future::Future;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};
use sluice::api::{MessageBroker, MessageTopic};
use sluice::operator::{OperatorArgs, run};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::apiserver::{ApiServer, kubeconfig};

/// One operator process, as far as the API server can tell: it has threads and connections of its own.
pub struct Operator {
    shutdown: CancellationToken,
    ended: oneshot::Receiver<()>,
    runtime: Runtime,
}

impl Operator {
    /// Starts one that watches the test's namespace.
    pub fn start(server: &ApiServer, name: &str) -> Self {
        let args = OperatorArgs {
            watch_namespaces: vec![server.namespace.clone()],
            broker_image: "sluice:test".to_owned(),
            pod_name: name.to_owned(),
            pod_namespace: server.namespace.clone(),
            lease_name: "sluice-operator".to_owned(),
            lease_duration: 3,
            http_listen: ([127, 0, 0, 1], 0).into(),
            pressure_interval: 200,
            exit_after: Vec::new(),
        };
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads");
        let (done, ended) = oneshot::channel();
        runtime.spawn(async move {
            let kubeconfig = Kubeconfig::read_from(kubeconfig()).expect("a kubeconfig");
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
            let client = Client::try_from(config.expect("usable")).expect("a client");
            run::run_with(client, args, stop)
                .await
                .expect("the operator starts");
            let _ = done.send(());
        });
        Self {
            shutdown,
            ended,
            runtime,
        }
    }

    /// SIGKILL, as far as the API server and the brokers can tell.
    pub fn kill(self) {
        self.runtime.shutdown_background();
    }

    /// SIGTERM.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.ended.await.expect("the operator ends well");
        self.runtime.shutdown_background();
    }
}

/// Waits until `check` says `Some`, for at most 40 seconds.
pub async fn eventually<T, F>(what: &str, check: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    within(Duration::from_secs(40), what, check).await
}

/// Waits until `check` says `Some`, for no longer than `patience`.
pub async fn within<T, F>(patience: Duration, what: &str, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(start.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Makes a MessageBroker called `orders`.
pub async fn create_broker(server: &ApiServer, spec: Value) -> MessageBroker {
    let broker: MessageBroker = serde_json::from_value(json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "MessageBroker", "metadata": {"name": "orders"}, "spec": spec
    }))
    .expect("a MessageBroker");
    let created = server
        .typed::<MessageBroker>()
        .create(&PostParams::default(), &broker)
        .await;
    created.expect("accepted")
}

/// Makes a MessageTopic of `orders`.
pub async fn create_topic(server: &ApiServer, name: &str, partitions: u32) -> MessageTopic {
    let topic: MessageTopic = serde_json::from_value(json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "MessageTopic", "metadata": {"name": name},
        "spec": {"brokerRef": {"name": "orders"}, "partitions": partitions}
    }))
    .expect("a MessageTopic");
    let created = server
        .typed::<MessageTopic>()
        .create(&PostParams::default(), &topic)
        .await;
    created.expect("accepted")
}

/// Changes a part of `orders`.
pub async fn patch_broker(server: &ApiServer, patch: Value) {
    let api = server.typed::<MessageBroker>();
    let patched = api
        .patch("orders", &PatchParams::default(), &Patch::Merge(patch))
        .await;
    patched.expect("accepted");
}

/// `orders` as it is.
pub async fn broker(server: &ApiServer) -> MessageBroker {
    server.typed().get("orders").await.expect("there")
}

/// Status and reason of a condition of `orders`.
pub async fn condition(server: &ApiServer, type_: &str) -> Option<(String, String, String)> {
    let status = broker(server).await.status?;
    let found = status.conditions.into_iter().find(|one| one.type_ == type_)?;
    Some((found.status, found.reason, found.message))
}

/// Waits until a condition of `orders` is as it should be; status, reason and message of it.
pub async fn condition_becomes(
    server: &ApiServer,
    type_: &str,
    is: impl Fn(&(String, String, String)) -> bool,
) -> (String, String, String) {
    eventually(&format!("{type_} to be as it should"), async || {
        condition(server, type_).await.filter(&is)
    })
    .await
}

/// Waits until the operator has seen the newest `spec` of `orders`.
pub async fn is_seen(server: &ApiServer) {
    eventually("the operator to have seen the change", async || {
        let broker = broker(server).await;
        (broker.status?.observed_generation == broker.metadata.generation).then_some(())
    })
    .await;
}

/// `kubectl scale`, and what any other autoscaler does.
pub async fn scale(server: &ApiServer, to: i32) {
    let scale = Patch::Merge(json!({"spec": {"replicas": to}}));
    let scaled = server
        .typed::<MessageBroker>()
        .patch_scale("orders", &PatchParams::default(), &scale)
        .await
        .expect("scaled");
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas), Some(to));
}

/// Points a HorizontalPodAutoscaler called `web` at `orders`.
pub async fn create_autoscaler(server: &ApiServer) {
    let autoscaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"maxReplicas": 9, "scaleTargetRef":
            {"apiVersion": "sluice.dev/v1alpha1", "kind": "MessageBroker", "name": "orders"}},
    }))
    .expect("a HorizontalPodAutoscaler");
    let created = server.typed().create(&PostParams::default(), &autoscaler).await;
    created.expect("created");
}

/// `spec.replicas` of the StatefulSet.
pub async fn replicas(server: &ApiServer) -> Option<i32> {
    let set = server
        .typed::<StatefulSet>()
        .get_opt("orders")
        .await
        .expect("an answer");
    set?.spec?.replicas
}

/// Lets the next operator begin without waiting for a dead one's Lease.
pub async fn forget_lease(client: &Client, namespace: &str) {
    let api = kube::Api::<Lease>::namespaced(client.clone(), namespace);
    let _ = api.delete("sluice-operator", &DeleteParams::default()).await;
}

/// The resourceVersion of everything that the operator writes.
pub async fn versions(server: &ApiServer) -> Vec<(String, String)> {
    let mut versions = Vec::new();
    macro_rules! of {
        ($($kind:ty),*) => {$(
            for object in server.typed::<$kind>().list(&Default::default()).await.expect("a list") {
                let kind = stringify!($kind);
                versions.push((format!("{kind} {}", object.name_any()), object.resource_version().unwrap_or_default()));
            }
        )*};
    }
    use k8s_openapi::api::{core::v1 as core, networking::v1 as networking, policy::v1 as policy};
    of!(
        MessageBroker,
        MessageTopic,
        StatefulSet,
        core::Service,
        core::ConfigMap,
        core::ServiceAccount,
        policy::PodDisruptionBudget,
        networking::NetworkPolicy,
        core::Pod,
        core::PersistentVolumeClaim
    );
    versions
}
