//! Makes the children as they are wanted, and writes nothing where nothing differs.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::json;

use super::build::{APPLIED, Children, REPLICAS};
use super::diff;
use super::health::Problem;
use super::observe::Observed;
use crate::api::{InvalidField, quantity};
use crate::operator::error::ApiError;
use crate::operator::kube_io::{Kube, Object};

/// What came of applying.
#[derive(Debug, Default)]
pub struct Applied {
    /// The StatefulSet as it is now.
    pub stateful_set: Option<StatefulSet>,
    /// What could not be done and needs a person.
    pub problems: Vec<Problem>,
    /// Something was written.
    pub wrote: bool,
}

/// Applies one cluster's children.
pub struct Applier<'a> {
    kube: &'a Kube,
    namespace: &'a str,
    uid: &'a str,
    applied: Applied,
}

impl<'a> Applier<'a> {
    /// Applies children of the MessageBroker with this uid.
    pub fn new(kube: &'a Kube, namespace: &'a str, uid: &'a str) -> Self {
        Self {
            kube,
            namespace,
            uid,
            applied: Applied::default(),
        }
    }

    /// Applies all children, with so many brokers. What the API server refuses becomes a problem and does not stop
    /// the rest.
    ///
    /// # Errors
    /// The API server did not answer, or this operator does not lead any more.
    pub async fn all(
        mut self,
        children: Children,
        replicas: u32,
        observed: &Observed,
    ) -> Result<Applied, ApiError> {
        self.one(observed.service_account.as_ref(), children.service_account)
            .await?;
        self.one(observed.config_map.as_ref(), children.config_map)
            .await?;
        self.one(observed.headless.as_ref(), children.headless).await?;
        self.one(observed.client.as_ref(), children.client).await?;
        self.optional(observed.pdb.as_ref(), children.pdb).await?;
        self.optional(observed.network_policy.as_ref(), children.network_policy)
            .await?;
        let stateful_set = with_replicas(children.stateful_set, replicas);
        self.applied.stateful_set = self.one(observed.stateful_set.as_ref(), stateful_set).await?;
        self.grow_volumes(observed).await?;
        Ok(self.applied)
    }

    /// The child as it is now; `None`: it could not be made.
    async fn one<K: Object>(&mut self, live: Option<&K>, wanted: K) -> Result<Option<K>, ApiError> {
        let name = wanted.meta().name.clone().unwrap_or_default();
        let kind = K::kind(&());
        if let Some(live) = live {
            if let Some(owner) = foreign_owner(live, self.uid) {
                let message = format!(
                    "{kind} {name} belongs to {owner}; delete it, or give the MessageBroker another name"
                );
                self.applied.problems.push(Problem::new("NameTaken", message));
                return Ok(None);
            }
            if live.meta().deletion_timestamp.is_some() {
                // It is made again when it is gone.
                return Ok(None);
            }
        }
        let wanted = with_hash(wanted);
        if live.is_some_and(|live| is_as(live, &wanted)) {
            return Ok(live.cloned());
        }
        match self.kube.apply(self.namespace, &wanted).await {
            Ok(now) => {
                tracing::info!(kind = %kind, name, "applied");
                self.applied.wrote = true;
                Ok(Some(now))
            }
            Err(error) if error.is_refused() => {
                let message = format!("{kind} {name} is refused: {}", error.message());
                self.applied.problems.push(Problem::new("Refused", message));
                Ok(live.cloned())
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Self::one`]; a child that is not wanted goes, if it is ours.
    async fn optional<K: Object>(&mut self, live: Option<&K>, wanted: Option<K>) -> Result<(), ApiError> {
        match (live, wanted) {
            (live, Some(wanted)) => self.one(live, wanted).await.map(|_| ()),
            (Some(live), None) if is_owned(live, self.uid) && live.meta().deletion_timestamp.is_none() => {
                self.applied.wrote = true;
                self.kube.delete(live).await
            }
            _ => Ok(()),
        }
    }

    /// Grows the volumes that are smaller than the spec says.
    async fn grow_volumes(&mut self, observed: &Observed) -> Result<(), ApiError> {
        let storage = &observed.broker.spec.storage;
        let Ok(size) = storage.size_bytes() else {
            return Ok(());
        };
        for (_, claim) in &observed.claims {
            if claim.metadata.deletion_timestamp.is_some()
                || requested(claim).is_none_or(|present| present >= size)
            {
                continue;
            }
            let name = claim.metadata.name.clone().unwrap_or_default();
            let patch = json!({"spec": {"resources": {"requests": {"storage": storage.size}}}});
            match self
                .kube
                .merge::<PersistentVolumeClaim>(self.namespace, &name, patch)
                .await
            {
                Ok(_) => self.applied.wrote = true,
                Err(error) if error.is_refused() => {
                    let message = format!(
                        "spec.storage.size: {name} cannot grow to {}: {}",
                        storage.size.0,
                        error.message()
                    );
                    self.applied
                        .problems
                        .push(Problem::new("VolumeExpansionRefused", message));
                    // The others are of the same class.
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The number of brokers, and that it is the operator that set it.
fn with_replicas(mut stateful_set: StatefulSet, replicas: u32) -> StatefulSet {
    if let Some(spec) = &mut stateful_set.spec {
        spec.replicas = Some(i32::try_from(replicas).unwrap_or(i32::MAX));
    }
    let annotations = stateful_set.metadata.annotations.get_or_insert_default();
    annotations.insert(REPLICAS.to_owned(), replicas.to_string());
    stateful_set
}

fn with_hash<K: Object>(mut wanted: K) -> K {
    let hash = diff::hash(&wanted);
    let annotations = wanted.meta_mut().annotations.get_or_insert_default();
    annotations.insert(APPLIED.to_owned(), hash);
    wanted
}

/// Whether `live` has all that `wanted` says, and was last applied from the very same.
fn is_as<K: Object>(live: &K, wanted: &K) -> bool {
    match (serde_json::to_value(live), serde_json::to_value(wanted)) {
        (Ok(live), Ok(wanted)) => diff::covers(&live, &wanted),
        _ => false,
    }
}

fn is_owned<K: Object>(live: &K, uid: &str) -> bool {
    let owners = live.meta().owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.uid == uid)
}

/// Whoever else controls the object.
fn foreign_owner<K: Object>(live: &K, uid: &str) -> Option<String> {
    let mut owners = live.meta().owner_references.iter().flatten();
    let foreign = owners.find(|owner| owner.controller == Some(true) && owner.uid != uid)?;
    Some(format!("{} {} ({})", foreign.kind, foreign.name, foreign.uid))
}

fn requested(claim: &PersistentVolumeClaim) -> Option<u64> {
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    let storage = resources.requests.as_ref()?.get("storage")?;
    quantity::whole(storage, "").ok()
}

/// The fields of a spec that cannot be used, as a problem.
pub fn invalid(fields: &[InvalidField]) -> Option<Problem> {
    let first = fields.first()?;
    let more = fields.len() - 1;
    let message = if more == 0 {
        first.to_string()
    } else {
        format!("{first} (and {more} more)")
    };
    Some(Problem::new("InvalidSpec", message))
}
