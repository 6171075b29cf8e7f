//! What the demo puts on the cluster: a namespace, the broker and topic of `broker.yaml`, the load's pod.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, LogParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde::Deserialize as _;
use serde_json::{Value, json};
use sluice::api::{MessageBroker, MessageTopic};

/// Where everything of the demo is.
pub(crate) const NAMESPACE: &str = "sluice-demo";
/// The name of the MessageBroker in `broker.yaml`.
pub(crate) const BROKER: &str = "orders";
/// The name of the MessageTopic in `broker.yaml`.
pub(crate) const TOPIC: &str = "events";
/// How long a broker may take to tell what it has done.
const PATIENCE: Duration = Duration::from_millis(500);
/// The small load, in percent of what one broker does at saturation; five times that takes more than one.
pub(crate) const SMALL_PERCENT: u64 = 40;
/// Publishers of each load.
const PUBLISHERS: &str = "6";
/// How many seconds of a saturated broker are looked at to see what it can do. The load goes on for one more, since its last second may
/// have no line of its own.
const SATURATED: usize = 12;
/// Of that, what does not count.
const WARM_UP: usize = 4;
/// The MessageBroker and the MessageTopic.
pub(crate) const MANIFEST: &str = include_str!("broker.yaml");

/// Printed at the end.
pub(crate) const LOOK_AROUND: &str = "\
Look around (it goes on until `make down`):
  eval \"$(dev/cluster/cluster env)\"
  kubectl -n sluice-demo get mb,mt,pods
  kubectl -n sluice-demo describe mb orders
  kubectl -n sluice-demo get events --field-selector regarding.kind=MessageBroker
  kubectl -n sluice-demo get mb orders -o jsonpath='{.status.autoscaling}'
  kubectl -n sluice-demo scale mb orders --replicas=2";

/// The cluster with the demo's objects on it.
pub(crate) struct Stage {
    pub(crate) client: Client,
    image: String,
}

impl Stage {
    /// Starts from an empty namespace, applies the objects and waits until the broker is Ready.
    pub(crate) async fn set(image: String) -> Result<Self> {
        let client = Client::try_default()
            .await
            .context("no cluster answers; run this with `make demo`")?;
        let stage = Self { client, image };
        stage.empty_namespace().await?;
        for document in serde_yaml::Deserializer::from_str(MANIFEST) {
            stage.apply(Value::deserialize(document)?).await?;
        }
        stage
            .until("the broker to be Ready", Duration::from_secs(120), async || {
                Ok(is_ready(&stage.broker().await?))
            })
            .await?;
        stage
            .until(
                "the topic to have its partitions",
                Duration::from_secs(60),
                async || stage.is_assigned().await,
            )
            .await?;
        Ok(stage)
    }

    async fn empty_namespace(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        if namespaces.get_opt(NAMESPACE).await?.is_some() {
            namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
            self.until("the old demo to be gone", Duration::from_secs(120), async || {
                Ok(namespaces.get_opt(NAMESPACE).await?.is_none())
            })
            .await?;
        }
        let namespace = json!({"metadata": {"name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        namespaces
            .create(&PostParams::default(), &serde_json::from_value(namespace)?)
            .await?;
        Ok(())
    }

    async fn apply(&self, object: Value) -> Result<()> {
        let name = object["metadata"]["name"]
            .as_str()
            .context("an object without a name")?
            .to_owned();
        let params = PatchParams::apply("sluice-demo").force();
        match object["kind"].as_str() {
            Some("MessageBroker") => {
                self.brokers()
                    .patch(&name, &params, &Patch::Apply(object))
                    .await?;
            }
            Some("MessageTopic") => {
                self.topics().patch(&name, &params, &Patch::Apply(object)).await?;
            }
            kind => bail!("broker.yaml holds an unknown kind {kind:?}"),
        }
        Ok(())
    }

    async fn until(&self, what: &str, within: Duration, done: impl AsyncFn() -> Result<bool>) -> Result<()> {
        let wait = async {
            while !done().await? {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(())
        };
        tokio::time::timeout(within, wait)
            .await
            .with_context(|| format!("waited {within:?} for {what}"))?
    }

    async fn is_assigned(&self) -> Result<bool> {
        let topic = self.topics().get(TOPIC).await?;
        let status = topic.status.unwrap_or_default();
        let is_open = |partition: &sluice::api::topic_status::PartitionStatus| {
            partition
                .chain
                .last()
                .is_some_and(|entry| entry.sealed_at.is_none())
        };
        Ok(
            status.partitions.len() == topic.spec.partitions as usize
                && status.partitions.iter().all(is_open),
        )
    }

    /// The MessageBroker now.
    pub(crate) async fn broker(&self) -> Result<MessageBroker> {
        Ok(self.brokers().get(BROKER).await?)
    }

    /// Starts publishers, and what `more` says, in the pod `load`.
    pub(crate) async fn start_load(&self, more: &[&str]) -> Result<()> {
        let publishers = [
            "--publishers",
            PUBLISHERS,
            "--drain-timeout",
            "60s",
            "--output=json",
        ];
        self.start_bench("load", &[&publishers, more].concat()).await
    }

    /// Runs `sluice bench` on the topic in a pod, once.
    pub(crate) async fn start_bench(&self, pod: &str, more: &[&str]) -> Result<()> {
        let address = format!("{BROKER}:{}", sluice::api::names::BROKER_PORT);
        let topic = ["bench", "--address", &address, "--topic", TOPIC];
        self.start_pod(pod, &[&topic, more].concat()).await
    }

    /// What one broker acknowledges a second while publishers send as fast as it lets them. Takes the broker for it: scaled
    /// by nobody, with the channel that it starts with. Start from [`Stage::set`] again afterwards.
    pub(crate) async fn saturate(&self) -> Result<f64> {
        let alone = json!({"spec": {"autoscaling": {"mode": "Off"}, "channel": {"mode": "Fixed"}}});
        self.brokers()
            .patch(BROKER, &PatchParams::default(), &Patch::Merge(alone))
            .await?;
        let duration = format!("--duration={}s", SATURATED + 1);
        self.start_load(&["--rate=0", &duration, "--subscribers=2", "--producer-id=trial"])
            .await?;
        let mut lines = self.load_lines().await?;
        let mut rates = Vec::new();
        while let Some(line) = lines.next().await? {
            if line["type"] == "summary" {
                break;
            }
            rates.extend(line["acknowledgedRate"].as_f64());
        }
        let counted = rates
            .get(WARM_UP..SATURATED)
            .context("the load ended early; see: kubectl --namespace sluice-demo logs load")?;
        Ok(counted.iter().sum::<f64>() / counted.len() as f64)
    }

    /// Runs the executable with these arguments in a pod, once.
    async fn start_pod(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "automountServiceAccountToken": false,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": name, "image": self.image, "args": arguments,
                    "imagePullPolicy": "IfNotPresent",
                    "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]}}}]}}))?;
        self.pods().create(&PostParams::default(), &pod).await?;
        self.until("the load to start", Duration::from_secs(60), async || {
            let phase = self
                .pods()
                .get(name)
                .await?
                .status
                .and_then(|status| status.phase);
            Ok(phase.is_some_and(|phase| phase != "Pending"))
        })
        .await
    }

    /// What the load prints, as it prints it.
    pub(crate) async fn load_lines(&self) -> Result<Lines> {
        let params = LogParams {
            follow: true,
            ..LogParams::default()
        };
        let lines = self.pods().log_stream("load", &params).await?.lines();
        Ok(Lines(Box::pin(lines.map_err(anyhow::Error::from))))
    }

    /// Messages that each broker has acknowledged since its start, from its `/metrics` by way of the API server.
    pub(crate) async fn acked_by_broker(&self) -> Result<Vec<(String, u64)>> {
        let labels = format!(
            "app.kubernetes.io/name={},app.kubernetes.io/instance={BROKER}",
            sluice::api::names::APP_NAME
        );
        let pods = self
            .pods()
            .list(&kube::api::ListParams::default().labels(&labels))
            .await?;
        let mut acked = Vec::new();
        for pod in pods.items {
            let (name, port) = (pod.name_any(), sluice::api::names::BROKER_HTTP_PORT);
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}:{port}/proxy/metrics");
            let request = self
                .client
                .request_text(http::Request::get(path).body(Vec::new())?);
            // A broker that comes or goes does not answer, and must not hold up the others' second.
            let Ok(Ok(text)) = tokio::time::timeout(PATIENCE, request).await else {
                continue;
            };
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix("sluice_broker_acked_messages_total "));
            acked.push((
                name,
                value.and_then(|value| value.trim().parse().ok()).unwrap_or(0),
            ));
        }
        Ok(acked)
    }

    fn brokers(&self) -> Api<MessageBroker> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn topics(&self) -> Api<MessageTopic> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The pods of the demo's namespace.
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }
}

fn is_ready(broker: &MessageBroker) -> bool {
    let conditions = broker.status.as_ref().map(|status| &status.conditions);
    conditions.is_some_and(|all| {
        all.iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

/// The lines of the load that are JSON.
pub(crate) struct Lines(std::pin::Pin<Box<dyn futures::Stream<Item = Result<String>> + Send>>);

impl Lines {
    /// The next one; `None` when the load has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>> {
        while let Some(line) = self.0.try_next().await? {
            if let Ok(value) = serde_json::from_str(&line) {
                return Ok(Some(value));
            }
            eprintln!("load: {line}");
        }
        Ok(None)
    }
}
