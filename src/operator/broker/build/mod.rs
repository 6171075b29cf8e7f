//! The children that a MessageBroker should have: pure, and never failing, since validate refused what could.

pub mod config_map;
pub mod network_policy;
pub mod pdb;
pub mod pod;
pub mod service_account;
pub mod services;
pub mod statefulset;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::Resource;

use super::validate::Validated;
use crate::api::{MessageBroker, MessageBrokerSpec, names};

/// `app.kubernetes.io/name`.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// `app.kubernetes.io/instance`: the MessageBroker.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// `app.kubernetes.io/managed-by`.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// On the StatefulSet: the image that an empty `spec.image` stands for, for good.
pub const DEFAULT_IMAGE: &str = "sluice.dev/default-image";
/// On the StatefulSet: the number of brokers that the operator set; another `spec.replicas` is somebody else's.
pub const REPLICAS: &str = "sluice.dev/replicas";
/// On every child: what was last applied, so that what is not wanted any more is seen.
pub const APPLIED: &str = "sluice.dev/applied";
/// On the pod template: what a broker reads at its start.
pub const CONFIG_HASH: &str = "sluice.dev/config-hash";
/// The volume of a broker's messages.
pub const DATA: &str = "data";
/// The uid and gid that brokers run as.
pub const USER: i64 = 65_532;

/// What children are built from.
#[derive(Clone, Debug)]
pub struct Blueprint<'a> {
    /// The MessageBroker.
    pub broker: &'a MessageBroker,
    /// What can be used of its spec.
    pub validated: &'a Validated,
    /// The brokers' image.
    pub image: String,
    /// What an empty `spec.image` stands for.
    pub default_image: String,
    /// The volume claim templates that are live: they cannot be changed.
    pub live_claims: Option<Vec<PersistentVolumeClaim>>,
    /// The namespace of the operator's own pods.
    pub operator_namespace: &'a str,
}

/// The children that there should be. The StatefulSet's number of brokers is set by the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Children {
    /// The brokers.
    pub stateful_set: StatefulSet,
    /// Gives each broker a name.
    pub headless: Service,
    /// What clients connect to.
    pub client: Service,
    /// What brokers read at their start.
    pub config_map: ConfigMap,
    /// Who brokers are; without a token.
    pub service_account: ServiceAccount,
    /// Lets one broker go at a time.
    pub pdb: Option<PodDisruptionBudget>,
    /// Closes every port but the brokers' own.
    pub network_policy: Option<NetworkPolicy>,
}

/// The children that there should be.
pub fn build(blueprint: &Blueprint<'_>) -> Children {
    let config_map = config_map::build(blueprint);
    let spec = blueprint.spec();
    Children {
        stateful_set: statefulset::build(blueprint, &config_map),
        headless: services::headless(blueprint),
        client: services::client(blueprint),
        service_account: service_account::build(blueprint),
        pdb: spec.pod_disruption_budget.enabled.then(|| pdb::build(blueprint)),
        network_policy: spec
            .network_policy
            .enabled
            .then(|| network_policy::build(blueprint)),
        config_map,
    }
}

impl Blueprint<'_> {
    /// The MessageBroker's name.
    pub fn name(&self) -> &str {
        self.broker.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.broker.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Its spec.
    pub fn spec(&self) -> &MessageBrokerSpec {
        &self.broker.spec
    }

    /// The labels that select its pods.
    pub fn selector(&self) -> LabelSelector {
        LabelSelector {
            match_labels: Some(selector_labels(self.name())),
            ..LabelSelector::default()
        }
    }

    /// The metadata of a child of this name.
    pub fn meta(&self, name: impl Into<String>) -> ObjectMeta {
        let mut labels = selector_labels(self.name());
        labels.insert(MANAGED_BY_LABEL.to_owned(), names::FIELD_MANAGER.to_owned());
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some(self.namespace().to_owned()),
            labels: Some(labels),
            owner_references: Some(vec![self.owner()]),
            ..ObjectMeta::default()
        }
    }

    fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: MessageBroker::api_version(&()).into_owned(),
            kind: MessageBroker::kind(&()).into_owned(),
            name: self.name().to_owned(),
            uid: self.broker.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(false),
        }
    }
}

/// The labels that select a cluster's pods.
pub fn selector_labels(cluster: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (NAME_LABEL.to_owned(), names::APP_NAME.to_owned()),
        (INSTANCE_LABEL.to_owned(), cluster.to_owned()),
    ])
}

/// The same as text.
pub fn selector_text(cluster: &str) -> String {
    format!("{INSTANCE_LABEL}={cluster},{NAME_LABEL}={}", names::APP_NAME)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::super::validate::validate;
    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "reads better with json! in place")]
    pub(crate) fn broker(spec: Value) -> MessageBroker {
        serde_json::from_value(json!({
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "MessageBroker",
            "metadata": {"name": "orders", "namespace": "shop", "uid": "1-2-3", "generation": 4},
            "spec": spec
        }))
        .expect("a MessageBroker")
    }

    pub(crate) fn children(spec: Value) -> Children {
        let broker = broker(spec);
        let validated = validate(&broker.spec, None);
        build(&Blueprint {
            broker: &broker,
            validated: &validated,
            image: "sluice:1".to_owned(),
            default_image: "sluice:1".to_owned(),
            live_claims: None,
            operator_namespace: "sluice-system",
        })
    }

    #[test]
    fn children_of_the_default_spec() {
        let children = children(json!({}));
        insta::assert_yaml_snapshot!("stateful_set", children.stateful_set);
        insta::assert_yaml_snapshot!("headless_service", children.headless);
        insta::assert_yaml_snapshot!("client_service", children.client);
        insta::assert_yaml_snapshot!("config_map", children.config_map);
        insta::assert_yaml_snapshot!("service_account", children.service_account);
        insta::assert_yaml_snapshot!("pod_disruption_budget", children.pdb);
        insta::assert_yaml_snapshot!("network_policy", children.network_policy);
    }

    #[test]
    fn stateful_set_of_a_full_spec() {
        let children = children(json!({
            "storage": {"type": "Ephemeral", "size": "1Gi"},
            "resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "200m", "memory": "256Mi"}},
            "podDisruptionBudget": {"enabled": false},
            "networkPolicy": {"enabled": false},
            "podTemplate": {
                "labels": {"team": "shop"},
                "annotations": {"example.com/a": "b"},
                "nodeSelector": {"disk": "fast"},
                "priorityClassName": "high",
                "tolerations": [{"key": "dedicated", "operator": "Exists"}],
                "affinity": {"nodeAffinity": {}},
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
                ]
            }
        }));
        insta::assert_yaml_snapshot!("stateful_set_full", children.stateful_set);
        assert!(children.pdb.is_none() && children.network_policy.is_none());
    }
}
