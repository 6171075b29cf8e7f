//! A broker's pod: restricted by the Pod Security Standards, spread over nodes and zones.

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapEnvSource, Container, ContainerPort, EmptyDirVolumeSource,
    EnvFromSource, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, SeccompProfile, SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Blueprint, CONFIG_HASH, DATA, USER, config_map, selector_labels, service_account};
use crate::api::names::{self, BROKER_HTTP_PORT, BROKER_PORT, CONTROL_PORT};
use crate::api::storage::StorageType;
use crate::operator::broker::diff;

/// Seconds that a broker has to commit what it let in.
const GRACE_SECONDS: i64 = 30;

/// The pod template.
pub fn template(blueprint: &Blueprint<'_>, config_map: &ConfigMap) -> PodTemplateSpec {
    let extra = &blueprint.spec().pod_template;
    let mut labels = extra.labels.clone();
    labels.extend(selector_labels(blueprint.name()));
    let mut annotations = extra.annotations.clone();
    annotations.insert(CONFIG_HASH.to_owned(), diff::hash(&config_map.data));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec(blueprint)),
    }
}

fn spec(blueprint: &Blueprint<'_>) -> PodSpec {
    let extra = &blueprint.spec().pod_template;
    PodSpec {
        service_account_name: Some(service_account::name(blueprint.name())),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(blueprint)],
        volumes: volumes(blueprint),
        affinity: blueprint.validated.affinity.clone(),
        topology_spread_constraints: Some(spread(blueprint)),
        tolerations: some(extra.tolerations.clone()),
        node_selector: (!extra.node_selector.is_empty()).then(|| extra.node_selector.clone()),
        priority_class_name: extra.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        localhost_profile: None,
    }
}

/// A volume that dies with the pod; a persistent one comes from the StatefulSet's claims.
fn volumes(blueprint: &Blueprint<'_>) -> Option<Vec<Volume>> {
    let storage = &blueprint.spec().storage;
    (storage.type_ == StorageType::Ephemeral).then(|| {
        vec![Volume {
            name: DATA.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(storage.size.clone()),
                medium: None,
            }),
            ..Volume::default()
        }]
    })
}

/// As the spec says, or softly over nodes and zones.
fn spread(blueprint: &Blueprint<'_>) -> Vec<TopologySpreadConstraint> {
    if !blueprint.validated.spread.is_empty() {
        return blueprint.validated.spread.clone();
    }
    ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        .map(|key| TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(blueprint.selector()),
            ..TopologySpreadConstraint::default()
        })
        .into()
}

fn container(blueprint: &Blueprint<'_>) -> Container {
    let (namespace, cluster) = (blueprint.namespace(), blueprint.name());
    let headless = names::headless_service(cluster);
    let flags = [
        ("--name", "$(POD_NAME)".to_owned()),
        ("--cluster", format!("{namespace}/{cluster}")),
        ("--data-dir", "/data".to_owned()),
        ("--listen", format!("0.0.0.0:{BROKER_PORT}")),
        ("--control-listen", format!("0.0.0.0:{CONTROL_PORT}")),
        ("--http-listen", format!("0.0.0.0:{BROKER_HTTP_PORT}")),
        (
            "--advertise",
            format!("$(POD_NAME).{headless}.{namespace}.svc:{BROKER_PORT}"),
        ),
    ];
    let flags = flags.into_iter().map(|(flag, value)| format!("{flag}={value}"));
    Container {
        name: "broker".to_owned(),
        image: Some(blueprint.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(std::iter::once("broker".to_owned()).chain(flags).collect()),
        env: Some(vec![
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
        ]),
        env_from: Some(vec![EnvFromSource {
            config_map_ref: Some(ConfigMapEnvSource {
                name: config_map::name(cluster),
                optional: None,
            }),
            ..EnvFromSource::default()
        }]),
        ports: Some(vec![
            port("broker", BROKER_PORT),
            port("control", CONTROL_PORT),
            port("http", BROKER_HTTP_PORT),
        ]),
        resources: Some(blueprint.spec().resources.to_requirements()),
        // Recovering a large log takes its time; the process answers from its start.
        startup_probe: Some(probe("/healthz", 1, 600)),
        readiness_probe: Some(probe("/readyz", 1, 3)),
        liveness_probe: Some(probe("/healthz", 10, 6)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            seccomp_profile: Some(runtime_default()),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: DATA.to_owned(),
            mount_path: "/data".to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                api_version: Some("v1".to_owned()),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}
