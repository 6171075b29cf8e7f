//! Where a broker keeps its messages.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InvalidField, quantity, schema};

/// The volume of each broker.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule_at(
        "storageClassName",
        "has(self.storageClassName) == has(oldSelf.storageClassName) && \
         (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
        "storage.storageClassName cannot be changed, added or removed; make a new MessageBroker with the other class and \
         move the clients"
    ),
]))]
pub struct Storage {
    /// Whether messages outlive their pod. Only `Persistent` is available yet.
    #[serde(rename = "type")]
    #[schemars(extend("x-kubernetes-validations" = [schema::rule(
        "self == 'Persistent'",
        "storage.type: Ephemeral is not available yet; the only type is Persistent"
    )]))]
    pub type_: StorageType,
    /// The size of each broker's volume. May grow, never shrink.
    #[schemars(
        schema_with = "schema::quantity",
        extend("x-kubernetes-validations" = [
            schema::bytes_between("storage.size", "16Mi", "64Ti"),
            schema::rule(
                "!isQuantity(string(self)) || !isQuantity(string(oldSelf)) || \
                 quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",
                "storage.size can grow and never shrink; keep the present size or ask for more"
            ),
        ])
    )]
    pub size: Quantity,
    /// The StorageClass of the volumes; absent: the cluster's default class. Cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 253),
        extend("x-kubernetes-validations" = [schema::object_name("storage.storageClassName")])
    )]
    pub storage_class_name: Option<String>,
    /// What becomes of volumes that are not needed any more.
    pub retention_policy: VolumeRetention,
}

impl Storage {
    /// The size of a volume in bytes.
    ///
    /// # Errors
    /// If `size` is not a quantity.
    pub fn size_bytes(&self) -> Result<u64, InvalidField> {
        quantity::whole(&self.size, "spec.storage.size")
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            type_: StorageType::default(),
            size: Quantity("10Gi".to_owned()),
            storage_class_name: None,
            retention_policy: VolumeRetention::default(),
        }
    }
}

/// Whether messages outlive their pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageType {
    /// A PersistentVolumeClaim for each broker.
    #[default]
    Persistent,
    /// An emptyDir: what a pod had is gone when it is gone from its node.
    Ephemeral,
}

/// What becomes of volumes that are not needed any more.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeRetention {
    /// When the MessageBroker is deleted.
    pub when_deleted: VolumeFate,
    /// When a broker was removed, after everything that it held was moved away.
    pub when_scaled: VolumeFate,
}

impl Default for VolumeRetention {
    fn default() -> Self {
        Self {
            when_deleted: VolumeFate::Retain,
            when_scaled: VolumeFate::Delete,
        }
    }
}

/// Whether a volume is kept.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeFate {
    /// The claim stays.
    Retain,
    /// The claim is deleted.
    Delete,
}
