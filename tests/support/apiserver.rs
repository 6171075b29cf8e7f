//! A real API server with both definitions installed, and a namespace of its own for each test.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, CustomResourceExt, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::Status,
};
use serde_json::{Value, json};
use sluice::api::{MessageBroker, MessageTopic};
use tokio::sync::OnceCell;

/// The environment variable that names the kubeconfig.
pub const KUBECONFIG: &str = "SLUICE_TEST_KUBECONFIG";

static INSTALLED: OnceCell<()> = OnceCell::const_new();

/// A namespace in a real API server that has both definitions.
///
/// It stays when the test ends, to be looked at; the API server is the tests' own. Elsewhere:
/// `kubectl delete namespace -l sluice.dev/test`.
pub struct ApiServer {
    /// Speaks to the API server as its administrator.
    pub client: Client,
    /// This test's own.
    pub namespace: String,
}

impl ApiServer {
    /// Connects, installs the definitions if this process did not yet, and makes a namespace.
    pub async fn new() -> Self {
        let client = client().await;
        INSTALLED.get_or_init(|| install(client.clone())).await;
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {
            "generateName": "sluice-test-", "labels": {"sluice.dev/test": "api"}
        }}))
        .expect("a namespace");
        let created = Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await;
        let namespace = created.expect("the test may create a namespace").name_any();
        Self { client, namespace }
    }

    /// Typed objects of this namespace.
    pub fn typed<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects of this namespace as they are on the wire.
    pub fn untyped(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource())
    }

    /// Creates an object, or says how the API server refuses it.
    pub async fn create(&self, kind: Kind, object: &Value, dry_run: bool) -> Result<DynamicObject, Status> {
        let object = kind.complete(object);
        let params = PostParams {
            dry_run,
            ..PostParams::default()
        };
        self.untyped(kind).create(&params, &object).await.map_err(refusal)
    }

    /// Replaces an object that is there, or says how the API server refuses it.
    pub async fn replace(&self, kind: Kind, object: &Value, dry_run: bool) -> Result<DynamicObject, Status> {
        let mut object = kind.complete(object);
        let present = self
            .untyped(kind)
            .get(&object.name_any())
            .await
            .expect("it is there");
        object.metadata.resource_version = present.metadata.resource_version;
        let params = PostParams {
            dry_run,
            ..PostParams::default()
        };
        self.untyped(kind)
            .replace(&object.name_any(), &params, &object)
            .await
            .map_err(refusal)
    }

    /// Runs kubectl in this namespace; its standard output, or its standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut scoped = vec!["--namespace", self.namespace.as_str()];
        scoped.extend(arguments);
        self.kubectl_anywhere(&scoped)
    }

    /// Runs kubectl in whatever namespaces the arguments say; its standard output, or its standard error.
    pub fn kubectl_anywhere(&self, arguments: &[&str]) -> Result<String, String> {
        let output = tool("kubectl")
            .args(["--kubeconfig", &kubeconfig()])
            .args(arguments)
            .output()
            .expect("kubectl starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        // kubectl says this of whatever was made by server-side apply before, which is how the tests install.
        let known = "is missing the kubectl.kubernetes.io/last-applied-configuration annotation";
        let warning = error
            .lines()
            .find(|line| line.starts_with("Warning:") && !line.contains(known));
        assert_eq!(warning, None, "kubectl {arguments:?}");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(error)
        }
    }
}

/// One of the custom resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MessageBroker.
    Broker,
    /// MessageTopic.
    Topic,
}

impl Kind {
    /// How to address it.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::Broker => ApiResource::erase::<MessageBroker>(&()),
            Self::Topic => ApiResource::erase::<MessageTopic>(&()),
        }
    }

    /// Its definition.
    pub fn definition(self) -> CustomResourceDefinition {
        match self {
            Self::Broker => MessageBroker::crd(),
            Self::Topic => MessageTopic::crd(),
        }
    }

    /// The schema of its objects.
    pub fn schema(self) -> Value {
        json!(self.definition())["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    /// `object` merged over the smallest valid object of this kind.
    pub fn complete(self, object: &Value) -> DynamicObject {
        let resource = self.resource();
        let spec = match self {
            Self::Broker => json!({}),
            Self::Topic => json!({"brokerRef": {"name": "orders"}}),
        };
        let mut complete = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "one"}, "spec": spec
        });
        merge(&mut complete, object);
        serde_json::from_value(complete).expect("an object")
    }
}

/// Puts `over` over `base`, field by field. A null stays a null.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                merge(base.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// kubectl or helm: the one on the PATH, else the one that the development cluster has built.
pub fn tool(name: &str) -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let on_path =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(name).is_file());
    if on_path {
        return Command::new(name);
    }
    let built = BUILT.get_or_init(|| {
        let cluster = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/cluster/cluster");
        let output = Command::new(cluster)
            .arg("build")
            .output()
            .expect("dev/cluster/cluster starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "dev/cluster/cluster build fails: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        PathBuf::from(text.lines().last().expect("the folder of the programs"))
    });
    Command::new(built.join(name))
}

/// The path of the kubeconfig that the tests were given.
pub fn kubeconfig() -> String {
    env::var(KUBECONFIG).unwrap_or_else(|_| {
        panic!(
            "this test needs a real API server and {KUBECONFIG} is not set; run `make test`, which starts one, or set \
             {KUBECONFIG} to the kubeconfig of a cluster that may be written to"
        )
    })
}

async fn client() -> Client {
    let path = kubeconfig();
    let config = Kubeconfig::read_from(&path)
        .unwrap_or_else(|error| panic!("cannot read {KUBECONFIG}={path}: {error}"));
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
    let client = config
        .map(Client::try_from)
        .unwrap_or_else(|error| panic!("cannot use {KUBECONFIG}={path}: {error}"));
    client.expect("a client")
}

async fn install(client: Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let params = PatchParams::apply("sluice-tests").force();
    for definition in [MessageBroker::crd(), MessageTopic::crd()] {
        let name = definition.name_any();
        let applied = definitions
            .patch(&name, &params, &Patch::Apply(&definition))
            .await;
        applied.unwrap_or_else(|error| panic!("the API server refuses {name}: {error}"));
        for attempt in 0.. {
            let found = definitions.get(&name).await.expect("it was applied");
            let conditions = found
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            if conditions
                .iter()
                .any(|one| one.type_ == "Established" && one.status == "True")
            {
                break;
            }
            assert!(
                attempt < 100,
                "{name} is not established after ten seconds: {conditions:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn refusal(error: kube::Error) -> Status {
    match error {
        kube::Error::Api(refusal) => *refusal,
        other => panic!("the API server does not answer: {other}"),
    }
}

/// What the API server names as wrong, one line each.
pub fn causes(refusal: &Status) -> Vec<String> {
    let details = refusal.details.as_ref();
    details
        .map(|details| {
            details
                .causes
                .iter()
                .map(|cause| format!("{}: {}", cause.field, cause.message))
                .collect()
        })
        .unwrap_or_default()
}
