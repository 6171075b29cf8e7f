//! Which pods run with the newest template, and which one is to restart: pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::health;
use super::observe::is_ready;
use super::plan::{self, PodView};
use crate::operator::cluster::Facts;

/// The label that a StatefulSet's controller puts on its pods.
const REVISION_LABEL: &str = "controller-revision-hash";

/// The newest template, and how the pods stand to it.
pub struct Rollout<'a> {
    /// The pods, by ordinal.
    pub pods: &'a [(u32, Pod)],
    /// The revision of the newest template; `None`: the StatefulSet's controller has not seen it yet.
    pub newest: Option<String>,
}

impl<'a> Rollout<'a> {
    /// How `pods` stand to the newest template of `set`.
    pub fn new(set: Option<&StatefulSet>, pods: &'a [(u32, Pod)]) -> Self {
        Self {
            pods,
            newest: newest(set),
        }
    }

    /// Names of the pods with the newest template; all of them while it is not known.
    pub fn updated(&self) -> Vec<String> {
        let updated = self.pods.iter().filter(|(_, pod)| self.is_updated(pod));
        updated.filter_map(|(_, pod)| pod.metadata.name.clone()).collect()
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        let labels = pod.metadata.labels.as_ref();
        let revision = labels.and_then(|labels| labels.get(REVISION_LABEL));
        self.newest.as_ref().is_none_or(|newest| revision == Some(newest))
    }

    /// The pod to restart now. `only_broken`: it is not known yet whether all others serve.
    pub fn restart(
        &self,
        facts: &Facts,
        (size, draining): (u32, bool),
        only_broken: bool,
        now: &Time,
    ) -> Option<&'a Pod> {
        self.newest.as_ref()?;
        let view = |(ordinal, pod): &(u32, Pod)| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let connected = facts.links.get(name).is_some_and(|link| link.connected);
            let updated = self.is_updated(pod);
            PodView {
                ordinal: *ordinal,
                updated,
                // A ready pod that the operator cannot reach is not restarted as a broken one.
                serving: is_ready(pod) && (connected || !updated),
                broken: health::is_broken(pod, now),
                ending: pod.metadata.deletion_timestamp.is_some(),
            }
        };
        let views: Vec<PodView> = self.pods.iter().map(view).collect();
        let ordinal = plan::restart(&views, size, draining)?;
        let broken = views.iter().any(|view| view.ordinal == ordinal && view.broken);
        let pod = self.pods.iter().find(|(of, _)| *of == ordinal);
        pod.map(|(_, pod)| pod).filter(|_| broken || !only_broken)
    }
}

fn newest(set: Option<&StatefulSet>) -> Option<String> {
    let set = set?;
    let status = set.status.as_ref()?;
    let seen = status.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0);
    status.update_revision.clone().filter(|_| seen)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(observed: i64) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"generation": 2},
            "status": {"replicas": 1, "observedGeneration": observed, "updateRevision": "new"}
        }))
        .expect("a StatefulSet")
    }

    #[test]
    fn nothing_restarts_before_the_newest_template_is_known() {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "orders-0", "labels": {REVISION_LABEL: "old"}}}),
        )
        .expect("a pod");
        let pods = [(0, pod)];
        assert_eq!(Rollout::new(Some(&set(1)), &pods).updated(), ["orders-0"]);
        assert_eq!(Rollout::new(Some(&set(2)), &pods).updated(), Vec::<String>::new());
    }
}
