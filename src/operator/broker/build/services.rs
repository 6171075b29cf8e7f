//! The headless Service, which names each broker, and the one that clients connect to.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Blueprint, selector_labels};
use crate::api::names::{self, BROKER_HTTP_PORT, BROKER_PORT, CONTROL_PORT};

/// Gives each broker a name, also while it is not ready: its peers and the operator speak to it before.
pub fn headless(blueprint: &Blueprint<'_>) -> Service {
    Service {
        metadata: blueprint.meta(names::headless_service(blueprint.name())),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(selector_labels(blueprint.name())),
            ports: Some(vec![
                port("broker", BROKER_PORT, Some("kubernetes.io/h2c")),
                port("control", CONTROL_PORT, Some("kubernetes.io/h2c")),
                port("http", BROKER_HTTP_PORT, None),
            ]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// What clients connect to.
pub fn client(blueprint: &Blueprint<'_>) -> Service {
    Service {
        metadata: blueprint.meta(blueprint.name()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(selector_labels(blueprint.name())),
            ports: Some(vec![port("broker", BROKER_PORT, Some("kubernetes.io/h2c"))]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn port(name: &str, number: u16, protocol: Option<&str>) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: protocol.map(str::to_owned),
        ..ServicePort::default()
    }
}
