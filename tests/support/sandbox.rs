//! The namespace of one test on a real cluster: brokers, topics and commands in pods.

use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use sluice::api::topic_status::ChainEntry;
use sluice::api::{MessageBroker, MessageTopic, names};

use crate::cluster::{Cluster, eventually};

/// The namespace of one test; remove it with [`Sandbox::remove`].
pub struct Sandbox {
    pub cluster: Cluster,
    pub namespace: String,
}

impl Sandbox {
    /// A client for one kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        self.cluster.api(&self.namespace)
    }

    /// Applies a `MessageBroker` with this spec.
    pub async fn apply_broker(&self, name: &str, spec: &Value) {
        let object = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "MessageBroker",
            "metadata": {"name": name}, "spec": spec});
        let params = PatchParams::apply("test").force();
        let api: Api<MessageBroker> = self.api();
        api.patch(name, &params, &Patch::Apply(object))
            .await
            .expect("applying the MessageBroker");
    }

    /// Applies a `MessageTopic` with this many partitions.
    pub async fn apply_topic(&self, name: &str, broker: &str, partitions: u32) {
        let object = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "MessageTopic",
            "metadata": {"name": name}, "spec": {"brokerRef": {"name": broker}, "partitions": partitions}});
        let params = PatchParams::apply("test").force();
        let api: Api<MessageTopic> = self.api();
        api.patch(name, &params, &Patch::Apply(object))
            .await
            .expect("applying the MessageTopic");
    }

    /// The object, as it is now.
    pub async fn broker(&self, name: &str) -> MessageBroker {
        self.api::<MessageBroker>()
            .get(name)
            .await
            .expect("reading the MessageBroker")
    }

    /// The object, as it is now.
    pub async fn topic(&self, name: &str) -> MessageTopic {
        self.api::<MessageTopic>()
            .get(name)
            .await
            .expect("reading the MessageTopic")
    }

    /// Waits until the object is Ready with exactly this many brokers; how long that took.
    pub async fn ready(&self, name: &str, brokers: u32) -> Duration {
        let start = Instant::now();
        eventually(
            Duration::from_secs(180),
            &format!("{name} Ready with {brokers} brokers"),
            || async {
                let broker = self.broker(name).await;
                let status = broker.status.as_ref()?;
                let ready = condition(&broker, "Ready").is_some_and(|(status, _, _)| status == "True");
                let current = status.observed_generation == broker.metadata.generation;
                (ready && current && status.ready_replicas == brokers && status.replicas == brokers)
                    .then_some(())
            },
        )
        .await;
        start.elapsed()
    }

    /// Waits until every partition of the topic has an owner.
    pub async fn assigned(&self, topic: &str) {
        eventually(
            Duration::from_secs(60),
            &format!("all partitions of {topic} assigned"),
            || async {
                let topic = self.topic(topic).await;
                let status = topic.status.as_ref()?;
                let open = |chain: &[ChainEntry]| chain.last().is_some_and(|entry| entry.sealed_at.is_none());
                let all = status.partitions.len() == topic.spec.partitions as usize;
                (all && status.partitions.iter().all(|partition| open(&partition.chain))).then_some(())
            },
        )
        .await;
    }

    /// How many partitions of the topic each broker leads, by the topic's status.
    pub async fn led(&self, topic: &str) -> std::collections::BTreeMap<String, usize> {
        let mut led = std::collections::BTreeMap::new();
        for partition in self.topic(topic).await.status.expect("a status").partitions {
            let owner = partition.chain.last().filter(|entry| entry.sealed_at.is_none());
            if let Some(owner) = owner.and_then(|entry| entry.brokers.first()) {
                *led.entry(owner.clone()).or_default() += 1;
            }
        }
        led
    }

    /// The brokers' pods, by ordinal.
    pub async fn broker_pods(&self, name: &str) -> Vec<Pod> {
        let labels = format!(
            "app.kubernetes.io/name={},app.kubernetes.io/instance={name}",
            names::APP_NAME
        );
        let list = self
            .api::<Pod>()
            .list(&ListParams::default().labels(&labels))
            .await;
        let mut pods = list.expect("listing the brokers' pods").items;
        pods.sort_by_key(|pod| names::ordinal(name, &pod.name_any()));
        pods
    }

    /// The names of the volume claims there are.
    pub async fn claims(&self) -> Vec<String> {
        let list = self
            .api::<PersistentVolumeClaim>()
            .list(&ListParams::default())
            .await;
        list.expect("listing the claims")
            .items
            .iter()
            .map(ResourceExt::name_any)
            .collect()
    }

    /// The number of replicas that the StatefulSet asks for.
    pub async fn stateful_set_replicas(&self, name: &str) -> i32 {
        let set = self
            .api::<StatefulSet>()
            .get(name)
            .await
            .expect("reading the StatefulSet");
        set.spec.and_then(|spec| spec.replicas).expect("replicas")
    }

    /// The events about the MessageBroker or MessageTopic of this name, as `reason: note`.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let list = self
            .api::<Event>()
            .list(&ListParams::default())
            .await
            .expect("listing events");
        let about = |event: &&Event| {
            let regarding = event.regarding.as_ref();
            regarding.is_some_and(|object| {
                object.name.as_deref() == Some(name)
                    && object
                        .kind
                        .as_deref()
                        .is_some_and(|kind| kind.starts_with("Message"))
            })
        };
        let text = |event: &Event| {
            format!(
                "{}: {}",
                event.reason.clone().unwrap_or_default(),
                event.note.clone().unwrap_or_default()
            )
        };
        list.items.iter().filter(about).map(text).collect()
    }

    /// Starts `sluice ARGUMENTS` in a pod of this name.
    pub async fn start(&self, name: &str, arguments: &[&str]) -> Job<'_> {
        self.start_on(name, arguments, &json!({})).await
    }

    /// Starts `sluice ARGUMENTS` in a pod on a node with these labels.
    pub async fn start_on(&self, name: &str, arguments: &[&str], nodes: &Value) -> Job<'_> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 1, "nodeSelector": nodes,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": "sluice", "image": self.cluster.image, "args": arguments,
                    "imagePullPolicy": "IfNotPresent",
                    "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]}}}]}}))
        .expect("a pod");
        self.api::<Pod>()
            .create(&PostParams::default(), &pod)
            .await
            .expect("starting the pod");
        Job {
            sandbox: self,
            name: name.to_owned(),
        }
    }

    /// Removes the namespace and waits until it is gone with everything in it.
    pub async fn remove(self) {
        self.cluster.remove_namespace(&self.namespace).await;
    }
}

/// A pod that runs one command.
pub struct Job<'a> {
    sandbox: &'a Sandbox,
    name: String,
}

impl Job<'_> {
    /// What it has printed so far.
    pub async fn output(&self) -> String {
        let pods = self.sandbox.api::<Pod>();
        pods.logs(&self.name, &LogParams::default())
            .await
            .unwrap_or_default()
    }

    /// Waits until it has printed a line with this text.
    pub async fn prints(&self, text: &str, within: Duration) {
        eventually(
            within,
            &format!("the pod {} to print {text:?}", self.name),
            || async { self.output().await.contains(text).then_some(()) },
        )
        .await;
    }

    /// Tells it to finish, as Ctrl-C would.
    pub async fn finish(&self) {
        let pod = self.sandbox.api::<Pod>().get(&self.name).await;
        self.sandbox
            .cluster
            .signal(&pod.expect("reading the pod"), "SIGINT");
    }

    /// Waits until it ends; its exit code and what it printed.
    pub async fn end(&self, within: Duration) -> (i32, String) {
        let pods = self.sandbox.api::<Pod>();
        let code = eventually(within, &format!("the pod {} to end", self.name), || async {
            let pod = pods.get(&self.name).await.ok()?;
            let containers = pod.status?.container_statuses?;
            Some(containers.first()?.state.as_ref()?.terminated.as_ref()?.exit_code)
        })
        .await;
        (code, self.output().await)
    }

    /// Waits until it ends; the last line that is JSON. Whether it ended well is in `exit`.
    pub async fn summary(&self, within: Duration) -> Value {
        let (code, output) = self.end(within).await;
        let last = output
            .lines()
            .rev()
            .find_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut summary = last.unwrap_or_else(|| panic!("the pod {} printed no JSON: {output}", self.name));
        summary["exit"] = json!(code);
        summary
    }
}

/// The status, reason and message of a condition.
pub fn condition(broker: &MessageBroker, type_: &str) -> Option<(String, String, String)> {
    let conditions = &broker.status.as_ref()?.conditions;
    let condition = conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((
        condition.status.clone(),
        condition.reason.clone(),
        condition.message.clone(),
    ))
}
