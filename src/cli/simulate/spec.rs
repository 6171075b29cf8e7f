//! A MessageBroker in a file, as the loops take it.

use serde::Deserialize as _;
use serde_json::Value;

use crate::api::MessageBroker;
use crate::operator::broker::validate::validate;
use crate::operator::scaling::policy::policy;
use crate::scaling::{Mode, Policy};

/// What counts where no spec is given: the defaults, with 2 to 30 brokers.
pub(super) fn default_policy() -> Policy {
    let mut policy = Policy::default();
    policy.autoscaling.mode = Mode::Auto;
    policy.autoscaling.min_replicas = 2;
    policy.autoscaling.max_replicas = 30;
    policy
}

/// Reads the MessageBroker of a file that may hold other objects too. Returns its policy and its `spec.replicas`.
pub(super) fn read(text: &str) -> Result<(Policy, u32), String> {
    let mut found = None;
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|error| error.to_string())?;
        if value.get("kind").and_then(Value::as_str) == Some("MessageBroker") {
            if found.is_some() {
                return Err("more than one MessageBroker; expected one".to_owned());
            }
            found = Some(value);
        }
    }
    let value = found.ok_or("no MessageBroker; expected an object with kind: MessageBroker")?;
    let given = value.get("spec").cloned().unwrap_or_default();
    // Through YAML, whose errors name the field.
    let yaml = serde_yaml::to_string(&value).map_err(|error| error.to_string())?;
    let broker: MessageBroker =
        serde_yaml::from_str(&yaml).map_err(|error| field_only(&error.to_string()))?;
    let spec = broker.spec;
    let known = serde_json::to_value(&spec).map_err(|error| error.to_string())?;
    for part in ["autoscaling", "channel"] {
        if let (Some(given), Some(known)) = (given.get(part), known.get(part)) {
            refuse_unknown(given, known, &format!("spec.{part}"))?;
        }
    }
    if let Some(invalid) = validate(&spec, None).invalid.first() {
        return Err(invalid.to_string());
    }
    let (min, max) = (spec.autoscaling.min_replicas, spec.autoscaling.max_replicas);
    if min > max || min == 0 {
        return Err(format!(
            "spec.autoscaling.minReplicas must be from 1 to maxReplicas ({max}), found {min}"
        ));
    }
    let mut policy = policy(&spec);
    if matches!(policy.autoscaling.mode, Mode::Off | Mode::Recommend) {
        policy.autoscaling.mode = Mode::Auto;
    }
    Ok((policy, spec.replicas))
}

/// Without the place in the text, which is not the file's.
fn field_only(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

/// Fields that nobody knows would be left out silently.
fn refuse_unknown(given: &Value, known: &Value, path: &str) -> Result<(), String> {
    let (Value::Object(given), Value::Object(known)) = (given, known) else {
        return Ok(());
    };
    for (name, value) in given {
        let Some(inner) = known.get(name) else {
            let expected: Vec<&str> = known.keys().map(String::as_str).collect();
            return Err(format!(
                "{path}.{name} is unknown; expected one of {}",
                expected.join(", ")
            ));
        };
        refuse_unknown(value, inner, &format!("{path}.{name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: &str = include_str!("../../../examples/demo/broker.yaml");

    #[test]
    fn the_broker_is_found_among_other_objects() {
        let (policy, replicas) = read(DEMO).unwrap();
        assert_eq!(replicas, 1);
        assert_eq!(
            (policy.autoscaling.mode, policy.autoscaling.max_replicas),
            (Mode::Auto, 4)
        );
        assert_eq!(
            policy.autoscaling.behavior.scale_down.stabilization_window,
            std::time::Duration::from_secs(30)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_field() {
        let spec = |spec: &str| {
            format!(
                "apiVersion: sluice.dev/v1alpha1\nkind: MessageBroker\nmetadata: {{name: a}}\nspec: {spec}"
            )
        };
        for (text, error) in [
            (
                "kind: Pod".to_owned(),
                "no MessageBroker; expected an object with kind: MessageBroker",
            ),
            (
                spec("{autoscaling: {maxReplica: 3}}"),
                "spec.autoscaling.maxReplica is unknown",
            ),
            (
                spec("{autoscaling: {behavior: {scaleUp: {window: 3}}}}"),
                "spec.autoscaling.behavior.scaleUp.window is unknown",
            ),
            (
                spec("{autoscaling: {maxReplicas: many}}"),
                "spec.autoscaling.maxReplicas: invalid type",
            ),
            (
                spec("{autoscaling: {mode: Sometimes}}"),
                "spec.autoscaling.mode: unknown variant `Sometimes`",
            ),
            (spec("{autoscaling: {catchUp: soon}}"), "spec.autoscaling.catchUp"),
            (
                spec("{autoscaling: {minReplicas: 5, maxReplicas: 2}}"),
                "spec.autoscaling.minReplicas must be from 1 to maxReplicas (2), found 5",
            ),
        ] {
            let message = read(&text).unwrap_err();
            assert!(message.contains(error), "{text}: {message}");
        }
    }
}
