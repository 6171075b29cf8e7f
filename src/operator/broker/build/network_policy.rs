//! Closes every port of the brokers but their own, and the control port to all but the operator and the brokers.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Blueprint, NAME_LABEL};
use crate::api::names::{BROKER_HTTP_PORT, BROKER_PORT, CONTROL_PORT, FIELD_MANAGER};

/// The label that every namespace has.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// The NetworkPolicy.
pub fn build(blueprint: &Blueprint<'_>) -> NetworkPolicy {
    let brokers = NetworkPolicyPeer {
        pod_selector: Some(blueprint.selector()),
        ..NetworkPolicyPeer::default()
    };
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(labelled(NAMESPACE_LABEL, blueprint.operator_namespace)),
        pod_selector: Some(labelled(NAME_LABEL, FIELD_MANAGER)),
        ..NetworkPolicyPeer::default()
    };
    let open = NetworkPolicyIngressRule {
        from: None,
        ports: Some(vec![port(BROKER_PORT), port(BROKER_HTTP_PORT)]),
    };
    let control = NetworkPolicyIngressRule {
        from: Some(vec![brokers, operator]),
        ports: Some(vec![port(CONTROL_PORT)]),
    };
    NetworkPolicy {
        metadata: blueprint.meta(blueprint.name()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(blueprint.selector()),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![open, control]),
            ..NetworkPolicySpec::default()
        }),
    }
}

fn labelled(key: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        ..LabelSelector::default()
    }
}

fn port(number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    }
}
