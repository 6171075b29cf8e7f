//! The charts: what they render, what a real API server thinks of it, and what their roles allow.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

#[path = "support/apiserver.rs"]
mod apiserver;

use std::{collections::BTreeSet, path::Path, process::Command};

use apiserver::ApiServer;
use k8s_openapi::api::{authorization::v1::SubjectAccessReview, core::v1::Namespace};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde::Deserialize as _;
use serde_json::{Value, json};
use sluice::api::names;

fn chart(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("charts")
        .join(name)
        .display()
        .to_string()
}

/// What `helm template` prints, or why it refuses.
fn render(name: &str, namespace: &str, settings: &[&str]) -> Result<String, String> {
    let mut helm = apiserver::tool("helm");
    // The definitions of the API server are not asked for: this is what the chart says by itself.
    helm.args(["template", "sluice", &chart(name), "--namespace", namespace]);
    for setting in settings {
        helm.args(["--set", setting]);
    }
    let output = helm.output().expect("helm starts");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("text"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn objects(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).expect("YAML"))
        .filter(|object| !object.is_null())
        .collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// Every (group, resource, verb) that the rules of these roles allow.
fn allowed<'a>(roles: impl IntoIterator<Item = &'a Value>) -> BTreeSet<(String, String, String)> {
    let texts = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| one.as_str().expect("text").to_owned())
            .collect()
    };
    let mut all = BTreeSet::new();
    for rule in roles
        .into_iter()
        .flat_map(|role| role["rules"].as_array().expect("rules"))
    {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    all.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    all
}

/// The roles that are bound to the operator.
fn operator_roles(objects: &[Value]) -> Vec<&Value> {
    let bound: BTreeSet<_> = objects
        .iter()
        .filter(|object| {
            object["kind"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("RoleBinding"))
        })
        .map(|binding| binding["roleRef"]["name"].as_str().expect("a name"))
        .collect();
    let role = |object: &&Value| matches!(object["kind"].as_str(), Some("Role" | "ClusterRole"));
    objects
        .iter()
        .filter(role)
        .filter(|role| bound.contains(role["metadata"]["name"].as_str().expect("a name")))
        .collect()
}

#[test]
fn helm_finds_nothing_wrong_with_the_charts() {
    for name in ["sluice-crds", "sluice-operator"] {
        let output = apiserver::tool("helm")
            .args(["lint", "--strict", &chart(name)])
            .output()
            .expect("helm starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

#[test]
fn the_readmes_say_what_the_values_are() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/readme.py");
    let output = Command::new("python3")
        .arg(script)
        .arg("--check")
        .output()
        .expect("python3 starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn wrong_values_are_refused_by_their_name() {
    for (setting, name) in [
        ("replicas=many", "/replicas"),
        ("replcas=2", "replcas"),
        ("image.tag=a b", "/image/tag"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("watchNamespaces={A}", "/watchNamespaces/0"),
        (
            "metrics.podMonitor.interval=often",
            "/metrics/podMonitor/interval",
        ),
        ("resources.limits.memory=lots", "/resources/limits/memory"),
    ] {
        let refused = render("sluice-operator", "a", &[setting]).expect_err(setting);
        assert!(refused.contains(name), "{setting}: {refused}");
    }
}

#[test]
fn the_operator_gets_its_settings() {
    let text = render(
        "sluice-operator",
        "sluice-system",
        &["watchNamespaces={a,b}", "image.repository=x/sluice"],
    );
    let objects = objects(&text.expect("renders"));
    let deployment = of_kind(&objects, "Deployment")[0];
    assert_eq!(deployment["spec"]["replicas"], 2);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"], json!(["operator"]));
    assert_eq!(
        container["image"],
        concat!("x/sluice:", env!("CARGO_PKG_VERSION")),
        "the tag is the crate's version"
    );
    let environment = container["env"].as_array().expect("a list");
    let variable = |name: &str| {
        environment
            .iter()
            .find(|one| one["name"] == name)
            .unwrap_or_else(|| panic!("no {name}"))
    };
    assert_eq!(variable("SLUICE_WATCH_NAMESPACES")["value"], "a,b");
    assert_eq!(variable("SLUICE_BROKER_IMAGE")["value"], container["image"]);
    assert_eq!(
        variable("SLUICE_HTTP_LISTEN")["value"],
        format!("0.0.0.0:{}", names::OPERATOR_HTTP_PORT)
    );
    assert_eq!(variable("SLUICE_LEASE_NAME")["value"], "sluice");
    assert_eq!(variable("SLUICE_LOG")["value"], "info");
    assert_eq!(
        variable("POD_NAME")["valueFrom"]["fieldRef"]["fieldPath"],
        "metadata.name"
    );
    assert_eq!(
        variable("POD_NAMESPACE")["valueFrom"]["fieldRef"]["fieldPath"],
        "metadata.namespace"
    );
    assert_eq!(container["ports"][0]["containerPort"], names::OPERATOR_HTTP_PORT);
}

#[test]
fn the_roles_allow_no_secrets_no_wildcards_and_no_more_in_one_form_than_in_the_other() {
    let everywhere = objects(&render("sluice-operator", "s", &[]).expect("renders"));
    let named = objects(&render("sluice-operator", "s", &["watchNamespaces={a,b}"]).expect("renders"));
    let rules = allowed(operator_roles(&everywhere));
    assert_eq!(rules, allowed(operator_roles(&named)));
    for (group, resource, verb) in &rules {
        assert!(
            group != "*" && resource != "*" && verb != "*",
            "{group}/{resource} {verb}"
        );
        assert!(resource != "secrets" && !resource.contains("role") && verb != "deletecollection");
    }
    let cluster = allowed(
        operator_roles(&named)
            .into_iter()
            .filter(|role| role["kind"] == "ClusterRole"),
    );
    let read_only = |(_, resource, verb): &(String, String, String)| {
        matches!(resource.as_str(), "nodes" | "storageclasses")
            && matches!(verb.as_str(), "get" | "list" | "watch")
    };
    assert!(cluster.iter().all(read_only), "{cluster:?}");
    let namespaces: BTreeSet<_> = of_kind(&named, "Role")
        .iter()
        .map(|role| role["metadata"]["namespace"].as_str().expect("a name"))
        .collect();
    assert_eq!(namespaces, BTreeSet::from(["a", "b", "s"]));
}

#[test]
fn what_is_optional_is_off_or_on_as_asked() {
    let kinds = |settings: &[&str]| -> BTreeSet<String> {
        let objects = objects(&render("sluice-operator", "s", settings).expect("renders"));
        objects
            .iter()
            .map(|object| object["kind"].as_str().expect("a kind").to_owned())
            .collect()
    };
    let all = kinds(&["metrics.podMonitor.enabled=true", "metrics.alerts.enabled=true"]);
    let usual = kinds(&[]);
    let added: Vec<_> = all.difference(&usual).cloned().collect();
    assert_eq!(added, ["PodMonitor", "PrometheusRule"]);
    let least = kinds(&[
        "podDisruptionBudget.enabled=false",
        "networkPolicy.enabled=false",
        "metrics.service.enabled=false",
        "serviceAccount.create=false",
        "rbac.create=false",
        "rbac.aggregate=false",
    ]);
    assert_eq!(least, BTreeSet::from(["Deployment".to_owned()]));
    assert!(
        !kinds(&["replicas=1"]).contains("PodDisruptionBudget"),
        "it would stop every drain"
    );
}

#[tokio::test]
async fn a_restricted_namespace_takes_everything_without_a_warning() {
    let server = ApiServer::new().await;
    let namespaces: Api<Namespace> = Api::all(server.client.clone());
    let labels = json!({"metadata": {"labels": {
        "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"
    }}});
    namespaces
        .patch(&server.namespace, &PatchParams::default(), &Patch::Merge(labels))
        .await
        .expect("labelled");
    let watch = format!("watchNamespaces={{{}}}", server.namespace);
    for settings in [vec![], vec![watch.as_str()]] {
        let text = render("sluice-operator", &server.namespace, &settings).expect("renders");
        let file = tempfile::Builder::new()
            .suffix(".yaml")
            .tempfile()
            .expect("a file");
        std::fs::write(file.path(), text).expect("written");
        // kubectl's warnings fail this, those of Pod Security among them.
        server
            .kubectl(&[
                "apply",
                "--dry-run=server",
                "--validate=strict",
                "-f",
                file.path().to_str().expect("text"),
            ])
            .expect("accepted");
    }
}

#[tokio::test]
async fn the_operator_may_do_what_it_does_and_nothing_else() {
    let server = ApiServer::new().await;
    let own = server.namespace.as_str();
    let watched = ApiServer::new().await.namespace;
    let other = ApiServer::new().await.namespace;
    let (watch, name) = (
        format!("watchNamespaces={{{watched}}}"),
        format!("fullnameOverride={own}"),
    );
    let text = render("sluice-operator", own, &[&watch, &name]).expect("renders");
    let file = tempfile::Builder::new()
        .suffix(".yaml")
        .tempfile()
        .expect("a file");
    std::fs::write(file.path(), text).expect("written");
    server
        .kubectl_anywhere(&["apply", "-f", file.path().to_str().expect("text")])
        .expect("applied");

    let may = async |namespace: &str, verb: &str, what: &str| {
        let (resource, name) = what.split_once('/').unwrap_or((what, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let review = json!({"metadata": {}, "spec": {
            "user": format!("system:serviceaccount:{own}:{own}"),
            "resourceAttributes": {
                "namespace": namespace, "verb": verb, "group": group, "resource": resource, "name": name
            }
        }});
        let review: SubjectAccessReview = serde_json::from_value(review).expect("a review");
        let answer = Api::all(server.client.clone())
            .create(&PostParams::default(), &review)
            .await;
        answer.expect("answered").status.expect("a status").allowed
    };
    let lease = format!("leases.coordination.k8s.io/{own}");
    for (namespace, verb, what) in [
        (watched.as_str(), "patch", "messagebrokers.sluice.dev"),
        (&watched, "create", "messagetopics.sluice.dev"),
        (&watched, "delete", "statefulsets.apps"),
        (&watched, "delete", "persistentvolumeclaims"),
        (&watched, "create", "events.events.k8s.io"),
        (own, "update", &lease),
        (own, "create", "leases.coordination.k8s.io"),
        ("", "watch", "nodes"),
        ("", "get", "storageclasses.storage.k8s.io"),
    ] {
        assert!(
            may(namespace, verb, what).await,
            "must be allowed: {verb} {what} in {namespace:?}"
        );
    }
    for (namespace, verb, what) in [
        (watched.as_str(), "get", "secrets"),
        (&watched, "delete", "messagebrokers.sluice.dev"),
        (&watched, "create", "pods"),
        (&watched, "create", "leases.coordination.k8s.io"),
        (&other, "list", "messagebrokers.sluice.dev"),
        (&other, "patch", "statefulsets.apps"),
        (own, "get", "secrets"),
        (own, "update", "leases.coordination.k8s.io/another"),
        (own, "delete", "statefulsets.apps"),
        ("", "list", "messagebrokers.sluice.dev"),
        ("", "patch", "nodes"),
    ] {
        assert!(
            !may(namespace, verb, what).await,
            "must be refused: {verb} {what} in {namespace:?}"
        );
    }
    let made = server.kubectl_anywhere(&[
        "delete",
        "-f",
        file.path().to_str().expect("text"),
        "--wait=false",
    ]);
    made.expect("removed");
}
