//! Requests to the API server: each with a time limit, and each write only while this operator leads.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
    PropagationPolicy,
};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::fault;
use super::lease::Term;
use super::metrics::Metrics;
use crate::api::names::FIELD_MANAGER;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Requests of one term.
#[derive(Clone)]
pub struct Kube {
    /// The plain client.
    pub client: Client,
    /// While this lasts, writes are sent.
    pub term: Term,
    metrics: Metrics,
}

/// A namespaced object of Kubernetes' own API or one of ours.
pub trait Object:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
{
}

impl<K> Object for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
{
}

impl Kube {
    /// Requests of this term.
    pub fn new(client: Client, term: Term, metrics: Metrics) -> Self {
        Self {
            client,
            term,
            metrics,
        }
    }

    /// Objects of a namespace.
    pub fn api<K: Object>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The object, if it is there.
    ///
    /// # Errors
    /// The API server did not answer, or refused.
    pub async fn get<K: Object>(&self, namespace: &str, name: &str) -> Result<Option<K>, ApiError> {
        let api = self.api::<K>(namespace);
        timed("get", what::<K>(namespace, name), api.get_opt(name)).await
    }

    /// The objects with these labels.
    ///
    /// # Errors
    /// The API server did not answer, or refused.
    pub async fn list<K: Object>(&self, namespace: &str, selector: &str) -> Result<Vec<K>, ApiError> {
        let api = self.api::<K>(namespace);
        let params = ListParams::default().labels(selector);
        let list = timed("list", what::<K>(namespace, selector), api.list(&params)).await?;
        Ok(list.items)
    }

    /// Makes the object be as `object` says in the fields that it names; fields named before and not any more go.
    ///
    /// # Errors
    /// The API server did not answer, or refused; or this operator does not lead any more.
    pub async fn apply<K: Object>(&self, namespace: &str, object: &K) -> Result<K, ApiError> {
        let name = object.meta().name.clone().unwrap_or_default();
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.api::<K>(namespace);
        let patch = Patch::Apply(object);
        self.write::<K, _>("apply", (namespace, &name), api.patch(&name, &params, &patch))
            .await
    }

    /// Changes some fields of the object, by a merge patch.
    ///
    /// # Errors
    /// As [`Kube::apply`].
    pub async fn merge<K: Object>(
        &self,
        namespace: &str,
        name: &str,
        patch: serde_json::Value,
    ) -> Result<K, ApiError> {
        let api = self.api::<K>(namespace);
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(patch);
        self.write::<K, _>("patch", (namespace, name), api.patch(name, &params, &patch))
            .await
    }

    /// Creates the object.
    ///
    /// # Errors
    /// As [`Kube::apply`].
    pub async fn create<K: Object>(&self, namespace: &str, object: &K) -> Result<K, ApiError> {
        let name = object.meta().name.clone().unwrap_or_default();
        let api = self.api::<K>(namespace);
        let params = params();
        self.write::<K, _>("create", (namespace, &name), api.create(&params, object))
            .await
    }

    /// Replaces the object's status, if the object is still the one that was read: its resourceVersion says so.
    ///
    /// # Errors
    /// As [`Kube::apply`]; a conflict where somebody changed the object meanwhile.
    pub async fn replace_status<K: Object>(&self, object: &K) -> Result<K, ApiError> {
        let ObjectMeta { name, namespace, .. } = object.meta().clone();
        let (name, namespace) = (name.unwrap_or_default(), namespace.unwrap_or_default());
        let api = self.api::<K>(&namespace);
        let params = params();
        self.write::<K, _>(
            "replace status of",
            (&namespace, &name),
            api.replace_status(&name, &params, object),
        )
        .await
    }

    /// As [`Kube::replace_status`], of an object whose type is only known by `resource`.
    ///
    /// # Errors
    /// As [`Kube::replace_status`].
    pub async fn replace_dynamic_status(
        &self,
        resource: &ApiResource,
        object: &DynamicObject,
    ) -> Result<DynamicObject, ApiError> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, resource);
        let what = format!("{} {namespace}/{name}", resource.kind);
        let params = params();
        self.guarded(
            ("replace status of", &resource.kind),
            what,
            api.replace_status(&name, &params, object),
        )
        .await
    }

    /// Deletes exactly the object that was read: by uid and resourceVersion. One that is gone or another by now is
    /// left alone, which is not an error.
    ///
    /// # Errors
    /// As [`Kube::apply`].
    pub async fn delete<K: Object>(&self, object: &K) -> Result<(), ApiError> {
        let meta = object.meta().clone();
        let name = meta.name.unwrap_or_default();
        let namespace = meta.namespace.unwrap_or_default();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: meta.uid,
                resource_version: meta.resource_version,
            }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        let api = self.api::<K>(&namespace);
        match self
            .write::<K, _>("delete", (&namespace, &name), api.delete(&name, &params))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn write<K: Object, T>(
        &self,
        verb: &'static str,
        place: (&str, &str),
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApiError> {
        self.guarded((verb, &K::kind(&())), what::<K>(place.0, place.1), request)
            .await
    }

    async fn guarded<T>(
        &self,
        (verb, kind): (&'static str, &str),
        what: String,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApiError> {
        if self.term.remaining().is_none() {
            return Err(ApiError::NotLeader { verb, what });
        }
        tracing::debug!(verb, what, "write");
        let answer = timed(verb, what, request).await;
        if answer.is_ok() {
            self.metrics.wrote(kind, verb);
            fault::done("Write");
        }
        answer
    }
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn what<K: Object>(namespace: &str, name: &str) -> String {
    format!("{} {namespace}/{name}", K::kind(&()))
}

/// `request` with a time limit, and an error that says what was tried.
///
/// # Errors
/// The request's own, or that there was no answer in time.
pub async fn timed<T>(
    verb: &'static str,
    what: String,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(LIMIT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(ApiError::Kube {
            verb,
            what,
            source: Box::new(source),
        }),
        Err(_) => Err(ApiError::Timeout {
            verb,
            what,
            after: LIMIT,
        }),
    }
}
