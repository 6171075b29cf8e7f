//! What one broker accepts, and how its ports are encrypted.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InvalidField, quantity, schema};

/// What one broker accepts.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule_at(
    "maxInflightBytes",
    "!isQuantity(string(self.maxInflightBytes)) || !isQuantity(string(self.maxMessageBytes)) || \
     quantity(string(self.maxInflightBytes)).compareTo(quantity(string(self.maxMessageBytes))) >= 0",
    "limits.maxInflightBytes must be at least limits.maxMessageBytes, or no message of that size could pass"
)]))]
pub struct Limits {
    /// Connections at a time.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,
    /// Streams at a time in one connection.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_streams_per_connection: u32,
    /// The size of the largest message: key, headers and body.
    #[schemars(
        schema_with = "schema::quantity",
        extend("x-kubernetes-validations" = [schema::bytes_between("limits.maxMessageBytes", "1Ki", "64Mi")])
    )]
    pub max_message_bytes: Quantity,
    /// The size of all messages together that are accepted and not acknowledged yet.
    #[schemars(
        schema_with = "schema::quantity",
        extend("x-kubernetes-validations" = [schema::bytes_between("limits.maxInflightBytes", "64Ki", "1Ti")])
    )]
    pub max_inflight_bytes: Quantity,
}

impl Limits {
    /// `maxMessageBytes` as a number.
    ///
    /// # Errors
    /// If it is not a quantity.
    pub fn max_message_bytes(&self) -> Result<u64, InvalidField> {
        quantity::whole(&self.max_message_bytes, "spec.limits.maxMessageBytes")
    }

    /// `maxInflightBytes` as a number.
    ///
    /// # Errors
    /// If it is not a quantity.
    pub fn max_inflight_bytes(&self) -> Result<u64, InvalidField> {
        quantity::whole(&self.max_inflight_bytes, "spec.limits.maxInflightBytes")
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 60_000,
            max_streams_per_connection: 200,
            max_message_bytes: Quantity("4Mi".to_owned()),
            max_inflight_bytes: Quantity("256Mi".to_owned()),
        }
    }
}

/// Encryption of the brokers' ports.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct Tls {
    /// Where the certificates come from. Only `Disabled` is available yet.
    #[schemars(extend("x-kubernetes-validations" = [schema::rule(
        "self == 'Disabled'",
        "tls.mode: TLS is not available yet; the only mode is Disabled"
    )]))]
    pub mode: TlsMode,
}

/// Where the certificates come from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Nothing is encrypted.
    #[default]
    Disabled,
    /// The operator is the authority.
    OperatorManaged,
    /// From a Secret.
    Secret,
    /// From cert-manager.
    CertManager,
}
