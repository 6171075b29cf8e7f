//! A real Kubernetes with nodes, as `dev/cluster` starts it: `make test-node` names it in `SLUICE_TEST_CLUSTER`.

use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Resource};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::sandbox::Sandbox;

/// Where the operator is installed.
pub const OPERATOR_NAMESPACE: &str = "sluice-system";

/// Whether this process has installed the operator.
static INSTALLED: OnceCell<()> = OnceCell::const_new();

/// The cluster, with the operator installed.
pub struct Cluster {
    pub client: Client,
    /// The image under test.
    pub image: String,
    name: String,
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests with `make test-node`"))
}

impl Cluster {
    /// For a test that leaves the operator and the nodes as they are: others run beside it. Installs the charts once.
    pub async fn shared() -> Self {
        let cluster = Self::connect().await;
        INSTALLED
            .get_or_init(|| async { cluster.install_operator(&[]) })
            .await;
        cluster
    }

    /// For a test of `alone`. Installs the charts: whatever the test before left, each starts with a whole operator.
    pub async fn alone() -> Self {
        let cluster = Self::connect().await;
        cluster.install_operator(&[]);
        cluster
    }

    async fn connect() -> Self {
        let name = variable("SLUICE_TEST_CLUSTER");
        let image = variable("SLUICE_TEST_IMAGE");
        let path = script(&["kubeconfig", "--name", &name]);
        let kubeconfig = Kubeconfig::read_from(path.trim()).expect("the cluster's kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("a usable kubeconfig")).expect("a client");
        Self { client, image, name }
    }

    /// Installs or upgrades both charts with the image under test, and waits until the operator is ready.
    pub fn install_operator(&self, more: &[&str]) {
        let root = env!("CARGO_MANIFEST_DIR");
        let (repository, tag) = self.image.rsplit_once(':').expect("an image with a tag");
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), namespace.to_string()).expect("writing it");
        self.kubectl(&["apply", "-f", file.path().to_str().expect("a plain path")]);
        let crds = format!("{root}/charts/sluice-crds");
        self.helm(&[
            "upgrade",
            "--install",
            "sluice-crds",
            &crds,
            "--namespace",
            OPERATOR_NAMESPACE,
        ]);
        let chart = format!("{root}/charts/sluice-operator");
        let repository = format!("image.repository={repository}");
        let tag = format!("image.tag={tag}");
        let mut arguments = vec![
            "upgrade",
            "--install",
            "sluice",
            &chart,
            "--namespace",
            OPERATOR_NAMESPACE,
        ];
        arguments.extend([
            "--set",
            &repository,
            "--set-string",
            &tag,
            "--wait",
            "--timeout",
            "2m",
        ]);
        arguments.extend(more);
        self.helm(&arguments);
    }

    /// Its name, as `dev/cluster` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `kubectl` on this cluster; its output.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        script(&[&["kubectl", "--name", &self.name], arguments].concat())
    }

    /// `helm` on this cluster; its output.
    pub fn helm(&self, arguments: &[&str]) -> String {
        script(&[&["helm", "--name", &self.name], arguments].concat())
    }

    /// Cuts a node off, or links it again.
    pub fn link(&self, node: &str, linked: bool) {
        script(&[
            if linked { "heal" } else { "partition" },
            "--name",
            &self.name,
            node,
        ]);
    }

    /// A command inside the network of a node, with the cluster's DNS; its output.
    pub fn inside(&self, node: &str, command: &[&str]) -> String {
        script(&[&["run", "--name", &self.name, "--node", node, "--"], command].concat())
    }

    /// Sends a signal to the process in a pod's only container: `SIGKILL`, as the kernel's out-of-memory killer would, or
    /// another.
    pub fn signal(&self, pod: &Pod, signal: &str) {
        let status = pod.status.as_ref().expect("a status");
        let containers = status.container_statuses.as_ref().expect("its containers");
        let id = containers[0].container_id.as_ref().expect("a running container");
        let id = id.rsplit('/').next().expect("an id");
        let node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .expect("a node");
        self.inside(
            &node,
            &[
                "ctr",
                "--namespace",
                "k8s.io",
                "tasks",
                "kill",
                "--signal",
                signal,
                id,
            ],
        );
    }

    /// A namespace of its own for a test, with Pod Security *restricted* enforced.
    pub async fn sandbox(self, name: &str) -> Sandbox {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        if namespaces
            .get_opt(name)
            .await
            .expect("reading the namespace")
            .is_some()
        {
            self.remove_namespace(name).await;
        }
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}))
        .expect("a namespace");
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .expect("creating the namespace");
        Sandbox {
            cluster: self,
            namespace: name.to_owned(),
        }
    }

    /// Deletes a namespace and waits until it is gone with everything in it.
    pub async fn remove_namespace(&self, name: &str) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces
            .delete(name, &DeleteParams::default())
            .await
            .expect("deleting the namespace");
        eventually(Duration::from_secs(90), "the namespace to be gone", || async {
            namespaces
                .get_opt(name)
                .await
                .expect("reading the namespace")
                .is_none()
                .then_some(())
        })
        .await;
    }

    /// The operator's pods, the leader and the one that stands by.
    pub async fn operator_pods(&self) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let list = pods
            .list(&ListParams::default().labels("app.kubernetes.io/name=sluice-operator"))
            .await;
        list.expect("listing the operator's pods").items
    }

    /// A client for one kind in one namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// Asks again until there is an answer; panics with `what` when there is none in time.
pub async fn eventually<T, F, Fut>(within: Duration, what: &str, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < within, "waited {within:?} for {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// `dev/cluster/cluster ARGUMENTS`; its output. Panics with what it said if it fails.
pub fn script(arguments: &[&str]) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("dev/cluster/cluster");
    let output = Command::new(path)
        .args(arguments)
        .output()
        .expect("running dev/cluster/cluster");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cluster {arguments:?}: {text}{error}");
    text
}
