//! Kubernetes' own types inside a spec, without their schema.

use std::{borrow::Cow, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::InvalidField;

/// A `T` of Kubernetes' API whose schema would be too large to embed: the API server takes any object here, and
/// [`Embedded::parse`] says what is wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Embedded<T> {
    value: Value,
    kind: PhantomData<T>,
}

impl<T> Embedded<T> {
    /// An object that was not looked at yet.
    pub fn new(value: Value) -> Self {
        Self {
            value,
            kind: PhantomData,
        }
    }
}

impl<T: DeserializeOwned + Serialize> Embedded<T> {
    /// The typed content.
    ///
    /// # Errors
    /// If it is not a `T`, or has a field that `T` does not know: a misspelt field is never ignored.
    pub fn parse(&self, field: &str) -> Result<T, InvalidField> {
        let typed: T = serde_json::from_value(self.value.clone())
            .map_err(|error| InvalidField::new(field, error.to_string()))?;
        let known =
            serde_json::to_value(&typed).map_err(|error| InvalidField::new(field, error.to_string()))?;
        match unknown_field(&self.value, &known, field) {
            Some(path) => Err(InvalidField::new(
                path,
                "there is no such field; remove it or correct its name",
            )),
            None => Ok(typed),
        }
    }
}

impl<T> JsonSchema for Embedded<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Embedded".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// The path of the first field of `given` that `known` lacks.
fn unknown_field(given: &Value, known: &Value, path: &str) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match known.get(name) {
                Some(known) => unknown_field(value, known, &path),
                None if value.is_null() => None,
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(index, (given, known))| unknown_field(given, known, &format!("{path}[{index}]"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Affinity;
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<Affinity, InvalidField> {
        Embedded::<Affinity>::new(value).parse("spec.podTemplate.affinity")
    }

    #[test]
    fn good_content_is_typed() {
        let affinity = parse(json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}, "namespaces": null}
        ]}}))
        .expect("valid");
        assert!(affinity.pod_anti_affinity.is_some());
    }

    #[test]
    fn bad_content_is_named() {
        let wrong_type =
            parse(json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": 5}}));
        assert_eq!(
            wrong_type.expect_err("a number").field,
            "spec.podTemplate.affinity"
        );
        let misspelt = parse(json!({"podAntiAfinity": {}})).expect_err("misspelt");
        assert_eq!(misspelt.field, "spec.podTemplate.affinity.podAntiAfinity");
        let deep = parse(
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "a"}, {"topologyKey": "a", "lableSelector": {}}
            ]}}),
        )
        .expect_err("misspelt");
        assert!(deep.field.ends_with("Execution[1].lableSelector"), "{deep}");
    }
}
