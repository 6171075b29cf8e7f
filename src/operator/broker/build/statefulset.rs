//! The StatefulSet of the brokers.
//!
//! Its update strategy is OnDelete, so that the operator alone decides which broker restarts when. A rolling update
//! by partition can only ever change the highest ordinals, and so cannot bring back a broken broker below before
//! healthy ones above it are restarted.
//!
//! `whenScaled` is always Retain here: the operator deletes a volume itself, after the drain. So nobody who scales
//! the StatefulSet behind its back deletes messages.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Blueprint, DATA, DEFAULT_IMAGE, pod, selector_labels};
use crate::api::names;
use crate::api::storage::{StorageType, VolumeFate};

/// The StatefulSet, without its number of brokers.
pub fn build(blueprint: &Blueprint<'_>, config_map: &ConfigMap) -> StatefulSet {
    let mut metadata = blueprint.meta(blueprint.name());
    metadata.annotations = Some(BTreeMap::from([(
        DEFAULT_IMAGE.to_owned(),
        blueprint.default_image.clone(),
    )]));
    let storage = &blueprint.spec().storage;
    let persistent = storage.type_ == StorageType::Persistent;
    let claims = match &blueprint.live_claims {
        // They cannot be changed; volumes grow one by one.
        Some(live) => live.iter().map(kept).collect(),
        None if persistent => vec![claim(blueprint)],
        None => Vec::new(),
    };
    let when_deleted = match storage.retention_policy.when_deleted {
        VolumeFate::Retain => "Retain",
        VolumeFate::Delete => "Delete",
    };
    StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            service_name: Some(names::headless_service(blueprint.name())),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(when_deleted.to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            revision_history_limit: Some(5),
            selector: blueprint.selector(),
            template: pod::template(blueprint, config_map),
            volume_claim_templates: (!claims.is_empty()).then_some(claims),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn claim(blueprint: &Blueprint<'_>) -> PersistentVolumeClaim {
    let storage = &blueprint.spec().storage;
    let requests = BTreeMap::from([("storage".to_owned(), storage.size.clone())]);
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(DATA.to_owned()),
            labels: Some(selector_labels(blueprint.name())),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(requests),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// The live template without what only the API server writes.
fn kept(live: &PersistentVolumeClaim) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: live.metadata.name.clone(),
            labels: live.metadata.labels.clone(),
            ..ObjectMeta::default()
        },
        spec: live.spec.as_ref().map(|spec| PersistentVolumeClaimSpec {
            access_modes: spec.access_modes.clone(),
            storage_class_name: spec.storage_class_name.clone(),
            resources: spec.resources.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
