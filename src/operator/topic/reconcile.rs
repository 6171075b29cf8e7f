//! A topic that changed wakes its cluster's placement; one without a cluster says so.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::status;
use crate::api::{MessageBroker, MessageTopic};
use crate::operator::context::Context;
use crate::operator::error::ReconcileError;
use crate::operator::kube_io::Kube;

/// How soon to look again for a MessageBroker that is not there.
const MISSING: Duration = Duration::from_secs(30);
/// How soon to look again at rest.
const LATER: Duration = Duration::from_secs(60 * 60);

/// Looks after one MessageTopic. The answer: when to look again if nothing happens.
///
/// # Errors
/// A step did not come to its end; trying again is right.
pub async fn reconcile(context: &Arc<Context>, topic: &MessageTopic) -> Result<Duration, ReconcileError> {
    let namespace = topic.metadata.namespace.as_deref().unwrap_or_default();
    let broker = &topic.spec.broker_ref.name;
    if context.clusters.get(namespace, broker).is_some() {
        context.clusters.poke(Some(namespace), Some(broker));
        return Ok(LATER);
    }
    let kube: &Kube = &context.kube;
    let found = kube
        .get::<MessageBroker>(namespace, broker)
        .await
        .map_err(ReconcileError::Observe)?;
    if found.is_some() {
        // Its own reconcile is about to start its placement, which looks at every topic.
        return Ok(LATER);
    }
    let name = topic.metadata.name.as_deref().unwrap_or_default();
    let present = kube
        .get::<MessageTopic>(namespace, name)
        .await
        .map_err(ReconcileError::Observe)?;
    let Some(present) = present.filter(|present| present.metadata.uid == topic.metadata.uid) else {
        return Ok(LATER);
    };
    let status = status::without_broker(&present, &Time(Timestamp::now()));
    if present.status.as_ref() != Some(&status) {
        let wanted = MessageTopic {
            status: Some(status),
            ..present
        };
        kube.replace_status(&wanted)
            .await
            .map_err(ReconcileError::Status)?;
    }
    Ok(MISSING)
}
