//! Who brokers are. They hold no API credentials.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::Blueprint;

/// Its name.
pub fn name(cluster: &str) -> String {
    format!("{cluster}-brokers")
}

/// The ServiceAccount, without a token.
pub fn build(blueprint: &Blueprint<'_>) -> ServiceAccount {
    ServiceAccount {
        metadata: blueprint.meta(name(blueprint.name())),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
