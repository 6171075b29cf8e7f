//! Lets one broker go at a time.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Blueprint;

/// The PodDisruptionBudget. A broker that does not serve anyway may always go.
pub fn build(blueprint: &Blueprint<'_>) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: blueprint.meta(blueprint.name()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(blueprint.selector()),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
