//! What brokers read at their start, as environment variables. What can change live goes over gRPC instead.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::Blueprint;

/// Its name.
pub fn name(cluster: &str) -> String {
    format!("{cluster}-brokers")
}

/// The ConfigMap.
pub fn build(blueprint: &Blueprint<'_>) -> ConfigMap {
    let data = [("SLUICE_LOG", "info"), ("SLUICE_LOG_FORMAT", "json")];
    let data: BTreeMap<String, String> = data
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    ConfigMap {
        metadata: blueprint.meta(name(blueprint.name())),
        data: Some(data),
        ..ConfigMap::default()
    }
}
