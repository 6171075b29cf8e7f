//! What is wrong with pods and volumes, in words that name the field to look at: pure.

use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observe::{Observed, is_ready};

/// Something that only a person can put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One word from a closed set.
    pub reason: &'static str,
    /// What is wrong, and the field to look at.
    pub message: String,
}

impl Problem {
    /// A problem.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// A pod that has not been ready for so long is broken.
const PATIENCE_SECONDS: i64 = 20;
/// The marker of the default class.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Everything wrong with volumes and pods; volumes first, since pods wait for them.
pub fn problems(observed: &Observed) -> Vec<Problem> {
    let volumes = observed
        .claims
        .iter()
        .filter_map(|(_, claim)| volume(claim, observed.classes.as_deref()));
    let mut problems: Vec<Problem> = volumes.take(1).collect();
    problems.extend(observed.pods.iter().filter_map(|(_, pod)| pod_problem(pod)));
    problems
}

fn volume(claim: &PersistentVolumeClaim, classes: Option<&[StorageClass]>) -> Option<Problem> {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    match phase {
        None | Some("Pending") => {}
        Some("Lost") => {
            let message =
                format!("{name} lost its PersistentVolume; restore it, or delete the claim to start empty");
            return Some(Problem::new("VolumeLost", message));
        }
        Some(_) => return None,
    }
    let classes = classes?;
    match claim
        .spec
        .as_ref()
        .and_then(|spec| spec.storage_class_name.as_deref())
    {
        Some("") => None,
        Some(wanted) => {
            let known = classes
                .iter()
                .any(|class| class.metadata.name.as_deref() == Some(wanted));
            (!known).then(|| {
                let message = format!(
                    "spec.storage.storageClassName: there is no StorageClass {wanted:?}, so {name} stays pending; \
                     create it, or make a MessageBroker with one of {}",
                    list(classes)
                );
                Problem::new("StorageClassNotFound", message)
            })
        }
        None => {
            let is_default = |class: &StorageClass| {
                let annotations = class.metadata.annotations.as_ref();
                annotations
                    .and_then(|all| all.get(DEFAULT_CLASS))
                    .is_some_and(|value| value == "true")
            };
            (!classes.iter().any(is_default)).then(|| {
                let message = format!(
                    "spec.storage.storageClassName is not set and no StorageClass is the default one, so {name} stays \
                     pending; mark one as default, or make a MessageBroker with one of {}",
                    list(classes)
                );
                Problem::new("StorageClassNotFound", message)
            })
        }
    }
}

fn list(classes: &[StorageClass]) -> String {
    let names: Vec<&str> = classes
        .iter()
        .filter_map(|class| class.metadata.name.as_deref())
        .collect();
    if names.is_empty() {
        "(there are none)".to_owned()
    } else {
        names.join(", ")
    }
}

/// Whether the pod does not serve and, by what is known, will not by itself: it has a problem, or was not ready for
/// long.
pub fn is_broken(pod: &Pod, now: &Time) -> bool {
    if is_ready(pod) {
        return false;
    }
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    let ready = conditions
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == "Ready");
    let since = ready
        .and_then(|condition| condition.last_transition_time.as_ref())
        .or(pod.metadata.creation_timestamp.as_ref());
    let long = since.is_some_and(|since| now.0.duration_since(since.0).as_secs() >= PATIENCE_SECONDS);
    long || pod_problem(pod).is_some()
}

fn pod_problem(pod: &Pod) -> Option<Problem> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let unschedulable = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unschedulable {
        let why = condition.message.as_deref().unwrap_or_default();
        let field = if why.contains("ersistentVolume")
            || why.contains("ersistentvolume")
            || why.contains("volume node affinity")
        {
            "spec.storage"
        } else if why.contains("Insufficient") {
            "spec.resources"
        } else {
            "spec.resources, spec.podTemplate"
        };
        let message = format!("{name} fits on no node: {why}; look at {field}");
        return Some(Problem::new("Unschedulable", message));
    }
    status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|container| stuck(name, container))
}

fn stuck(pod: &str, container: &ContainerStatus) -> Option<Problem> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let why = waiting.reason.as_deref()?;
    let image = &container.image;
    match why {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "ImageInspectError"
        | "RegistryUnavailable" => {
            let message = format!("{pod}: image {image:?} cannot be pulled; look at spec.image");
            Some(Problem::new("ImageUnavailable", message))
        }
        "CrashLoopBackOff" => {
            let last = container
                .last_state
                .as_ref()
                .and_then(|state| state.terminated.as_ref());
            if last.and_then(|last| last.reason.as_deref()) == Some("OOMKilled") {
                let message =
                    format!("{pod} ran out of memory again and again; look at spec.resources.limits.memory");
                return Some(Problem::new("OutOfMemory", message));
            }
            let code = last.map_or(0, |last| last.exit_code);
            let message = format!(
                "{pod} ends again and again with exit code {code}; look at its log (kubectl logs --previous {pod}), and at \
                 spec.image and spec.resources"
            );
            Some(Problem::new("CrashLooping", message))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            let detail = waiting.message.as_deref().unwrap_or(why);
            let message =
                format!("{pod} cannot be started: {detail}; look at spec.image and spec.podTemplate");
            Some(Problem::new("ContainerCannotStart", message))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "reads better with json! in place")]
    fn pod(status: Value) -> Option<Problem> {
        let pod = json!({"metadata": {"name": "orders-0"}, "status": status});
        pod_problem(&serde_json::from_value(pod).expect("a pod"))
    }

    fn waiting(reason: &str) -> Value {
        json!({"containerStatuses": [{
            "name": "broker", "image": "x:1", "imageID": "", "ready": false, "restartCount": 1,
            "state": {"waiting": {"reason": reason}},
            "lastState": {"terminated": {"exitCode": 3}}
        }]})
    }

    #[test]
    fn each_problem_names_the_field_to_look_at() {
        let unschedulable = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient cpu."}]});
        for (status, reason, field) in [
            (unschedulable, "Unschedulable", "spec.resources"),
            (waiting("ErrImagePull"), "ImageUnavailable", "spec.image"),
            (waiting("InvalidImageName"), "ImageUnavailable", "spec.image"),
            (waiting("CrashLoopBackOff"), "CrashLooping", "exit code 3"),
            (
                waiting("CreateContainerConfigError"),
                "ContainerCannotStart",
                "spec.podTemplate",
            ),
        ] {
            let problem = pod(status).expect(reason);
            assert_eq!(problem.reason, reason);
            assert!(problem.message.contains(field), "{}", problem.message);
        }
        assert_eq!(pod(waiting("ContainerCreating")), None);
    }

    #[test]
    fn an_unknown_storage_class_is_named_with_the_known_ones() {
        let claim = serde_json::from_value(json!({
            "metadata": {"name": "data-orders-0"}, "spec": {"storageClassName": "fast"}, "status": {"phase": "Pending"}
        }))
        .expect("a claim");
        let class: StorageClass =
            serde_json::from_value(json!({"metadata": {"name": "local"}, "provisioner": "x"}))
                .expect("a class");
        let problem = volume(&claim, Some(&[class])).expect("a problem");
        assert_eq!(problem.reason, "StorageClassNotFound");
        assert!(problem.message.contains("\"fast\"") && problem.message.contains("local"));
    }
}
