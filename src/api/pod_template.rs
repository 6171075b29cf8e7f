//! What a spec may say about the brokers' pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::api::resource::Quantity,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Embedded, InvalidField, quantity, schema};

/// What a broker's container requests, and its limits.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule(
        "(!has(self.requests) || self.requests.all(k, isQuantity(string(self.requests[k])))) && \
         (!has(self.limits) || self.limits.all(k, isQuantity(string(self.limits[k]))))",
        "resources: every request and limit must be a quantity, such as 500m or 1Gi"
    ),
    schema::rule(
        "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || \
         !isQuantity(string(self.requests[k])) || !isQuantity(string(self.limits[k])) || \
         quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
        "resources.requests must not exceed resources.limits of the same name; lower the request or raise the limit"
    ),
]))]
pub struct Resources {
    /// What is set aside for each broker, by resource name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// What each broker may use at most, by resource name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

impl Resources {
    /// As Kubernetes' own type.
    pub fn to_requirements(&self) -> ResourceRequirements {
        let some = |map: &BTreeMap<String, Quantity>| (!map.is_empty()).then(|| map.clone());
        ResourceRequirements {
            claims: None,
            limits: some(&self.limits),
            requests: some(&self.requests),
        }
    }

    /// The CPU limit in millicores, if there is one.
    ///
    /// # Errors
    /// If it is not a quantity.
    pub fn cpu_limit_milli(&self) -> Result<Option<u64>, InvalidField> {
        self.limits
            .get("cpu")
            .map(|cpu| quantity::milli(cpu, "spec.resources.limits.cpu"))
            .transpose()
    }
}

/// What to add to the brokers' pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels. Those of `sluice.dev` and `app.kubernetes.io` are the operator's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        schema_with = "schema::labels",
        extend("x-kubernetes-validations" = [
            schema::qualified_keys("podTemplate.labels"),
            schema::label_values("podTemplate.labels"),
            schema::rule(
                "!self.exists(k, k.startsWith('sluice.dev/') || k.startsWith('app.kubernetes.io/'))",
                "podTemplate.labels: labels of sluice.dev and app.kubernetes.io are the operator's; choose other keys"
            ),
        ])
    )]
    pub labels: BTreeMap<String, String>,
    /// Annotations. Those of `sluice.dev` are the operator's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        schema_with = "schema::annotations",
        extend("x-kubernetes-validations" = [
            schema::qualified_keys("podTemplate.annotations"),
            schema::rule(
                "!self.exists(k, k.startsWith('sluice.dev/'))",
                "podTemplate.annotations: annotations of sluice.dev are the operator's; choose other keys"
            ),
        ])
    )]
    pub annotations: BTreeMap<String, String>,
    /// As in a pod. Absent: brokers prefer nodes without another broker of the same cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Embedded<Affinity>>,
    /// As in a pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Labels that a node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        schema_with = "schema::labels",
        extend("x-kubernetes-validations" = [
            schema::qualified_keys("podTemplate.nodeSelector"),
            schema::label_values("podTemplate.nodeSelector"),
        ])
    )]
    pub node_selector: BTreeMap<String, String>,
    /// As in a pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub topology_spread_constraints: Vec<Embedded<TopologySpreadConstraint>>,
    /// The PriorityClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 253),
        extend("x-kubernetes-validations" = [schema::object_name("podTemplate.priorityClassName")])
    )]
    pub priority_class_name: Option<String>,
}

impl PodTemplate {
    /// `affinity`, typed.
    ///
    /// # Errors
    /// If it is not an affinity.
    pub fn affinity(&self) -> Result<Option<Affinity>, InvalidField> {
        self.affinity
            .as_ref()
            .map(|affinity| affinity.parse("spec.podTemplate.affinity"))
            .transpose()
    }

    /// `topologySpreadConstraints`, typed.
    ///
    /// # Errors
    /// If one of them is not such a constraint.
    pub fn topology_spread_constraints(&self) -> Result<Vec<TopologySpreadConstraint>, InvalidField> {
        self.topology_spread_constraints
            .iter()
            .enumerate()
            .map(|(index, one)| one.parse(&format!("spec.podTemplate.topologySpreadConstraints[{index}]")))
            .collect()
    }
}
