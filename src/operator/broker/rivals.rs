//! Other autoscalers of the same brokers: pure. One number must not have two masters.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use super::health::Problem;
use crate::api::autoscaling::AutoscalingMode;

/// What a HorizontalPodAutoscaler (also one that KEDA made) sets the number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `spec.replicas` of the MessageBroker, through its scale subresource.
    MessageBroker,
    /// `spec.replicas` of the StatefulSet, which is the operator's.
    StatefulSet,
}

/// A HorizontalPodAutoscaler that sets the number of a cluster's brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub name: String,
    /// What it writes to.
    pub target: Target,
}

/// What the autoscaler writes to, and the name of the MessageBroker if that is one of ours.
pub fn target(autoscaler: &HorizontalPodAutoscaler) -> Option<(Target, String)> {
    let reference = &autoscaler.spec.as_ref()?.scale_target_ref;
    let group = reference
        .api_version
        .as_deref()
        .unwrap_or_default()
        .split('/')
        .next()?;
    let target = match (group, reference.kind.as_str()) {
        ("sluice.dev", "MessageBroker") => Target::MessageBroker,
        ("apps", "StatefulSet") => Target::StatefulSet,
        _ => return None,
    };
    Some((target, reference.name.clone()))
}

/// Those that set the number of this cluster's brokers, by name.
pub fn of(autoscalers: &[HorizontalPodAutoscaler], cluster: &str) -> Vec<Rival> {
    let one = |autoscaler: &HorizontalPodAutoscaler| {
        let (target, name) = target(autoscaler)?;
        (name == cluster).then(|| Rival {
            name: autoscaler.metadata.name.clone().unwrap_or_default(),
            target,
        })
    };
    let mut rivals: Vec<Rival> = autoscalers.iter().filter_map(one).collect();
    rivals.sort_by(|a, b| a.name.cmp(&b.name));
    rivals
}

/// Whether what another autoscaler writes to `spec.replicas` is passed over.
pub fn is_overruled(rivals: &[Rival], mode: AutoscalingMode) -> bool {
    mode.acts() && rivals.iter().any(|rival| rival.target == Target::MessageBroker)
}

/// Whose number counts, in words that say what to do. `None`: nobody is in the way of anybody.
pub fn conflict(rivals: &[Rival], mode: AutoscalingMode) -> Option<Problem> {
    const REASON: &str = "AnotherAutoscaler";
    let find = |target| rivals.iter().find(|rival| rival.target == target);
    if let Some(rival) = find(Target::StatefulSet) {
        let message = format!(
            "HorizontalPodAutoscaler {} scales the StatefulSet, which the operator puts back each time; delete it, or let it target \
             the MessageBroker and set spec.autoscaling.mode to Off",
            rival.name
        );
        return Some(Problem::new(REASON, message));
    }
    let rival = find(Target::MessageBroker).filter(|_| mode.acts())?;
    let message = format!(
        "HorizontalPodAutoscaler {} changes spec.replicas, which is passed over while spec.autoscaling.mode is {mode:?}; delete it, or \
         set spec.autoscaling.mode to Off to let it decide",
        rival.name
    );
    Some(Problem::new(REASON, message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn autoscaler(name: &str, version: &str, kind: &str, of: &str) -> HorizontalPodAutoscaler {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"maxReplicas": 5, "scaleTargetRef": {"apiVersion": version, "kind": kind, "name": of}},
        }))
        .expect("valid")
    }

    #[test]
    fn only_what_writes_to_this_cluster_counts() {
        let all = [
            autoscaler("b", "sluice.dev/v1alpha1", "MessageBroker", "orders"),
            autoscaler("a", "apps/v1", "StatefulSet", "orders"),
            autoscaler("c", "sluice.dev/v1alpha1", "MessageBroker", "payments"),
            autoscaler("d", "apps/v1", "Deployment", "orders"),
            autoscaler("e", "example.com/v1", "StatefulSet", "orders"),
        ];
        let names: Vec<String> = of(&all, "orders").into_iter().map(|rival| rival.name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn with_scaling_off_another_autoscaler_may_set_the_number_but_never_that_of_the_stateful_set() {
        let on_broker = of(
            &[autoscaler(
                "web",
                "sluice.dev/v1alpha1",
                "MessageBroker",
                "orders",
            )],
            "orders",
        );
        for mode in [AutoscalingMode::Off, AutoscalingMode::Recommend] {
            assert_eq!(conflict(&on_broker, mode), None);
            assert!(!is_overruled(&on_broker, mode));
        }
        for mode in [AutoscalingMode::ScaleUpOnly, AutoscalingMode::Auto] {
            let said = conflict(&on_broker, mode).expect("a conflict").message;
            assert!(
                said.contains("web") && said.contains("spec.autoscaling.mode"),
                "{said}"
            );
            assert!(is_overruled(&on_broker, mode));
        }
        let on_set = of(&[autoscaler("web", "apps/v1", "StatefulSet", "orders")], "orders");
        let said = conflict(&on_set, AutoscalingMode::Off)
            .expect("a conflict")
            .message;
        assert!(said.contains("web") && said.contains("StatefulSet"), "{said}");
        assert!(!is_overruled(&on_set, AutoscalingMode::Auto));
    }
}
