//! The schemas as they are, without an API server.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

use kube::CustomResourceExt;
use serde_json::{Value, json};
use sluice::api::{MessageBroker, MessageBrokerSpec, MessageTopic, MessageTopicSpec};

/// Every schema of `crd`, with its path.
fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, schema) in properties {
            walk(schema, &format!("{path}.{name}"), visit);
        }
    }
    for part in ["items", "additionalProperties"] {
        if let Some(schema) = schema.get(part).filter(|part| part.is_object()) {
            walk(schema, &format!("{path}[]"), visit);
        }
    }
}

fn schemas() -> Vec<Value> {
    [MessageBroker::crd(), MessageTopic::crd()]
        .into_iter()
        .map(|crd| json!(crd)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
        .collect()
}

#[test]
fn an_empty_spec_reads_as_the_defaults() {
    let broker: MessageBrokerSpec = serde_json::from_value(json!({})).expect("every field has a default");
    assert_eq!(broker, MessageBrokerSpec::default());
    let topic: MessageTopicSpec =
        serde_json::from_value(json!({"brokerRef": {"name": "orders"}})).expect("valid");
    assert_eq!(topic, MessageTopicSpec::new("orders"));
}

#[test]
fn every_integer_of_a_spec_has_a_range_and_a_format_that_the_api_server_knows() {
    for schema in schemas() {
        walk(&schema, "", &mut |path, schema| {
            if schema["type"] != "integer" {
                return;
            }
            assert!(
                matches!(schema["format"].as_str(), Some("int32" | "int64")),
                "{path}: {}",
                schema["format"]
            );
            if path.starts_with(".spec") && !path.contains("tolerations") {
                assert!(
                    schema.get("minimum").is_some() && schema.get("maximum").is_some(),
                    "{path} has no range"
                );
            }
        });
    }
}

#[test]
fn every_string_and_list_of_a_spec_is_bounded() {
    for schema in schemas() {
        walk(&schema, "", &mut |path, schema| {
            if !path.starts_with(".spec") || path.contains("tolerations") {
                return;
            }
            let string = schema["type"] == "string" && schema.get("enum").is_none();
            if string || schema.get("x-kubernetes-int-or-string").is_some() {
                assert!(schema.get("maxLength").is_some(), "{path} has no maxLength");
            }
            if schema["type"] == "array" {
                assert!(schema.get("maxItems").is_some(), "{path} has no maxItems");
            }
        });
    }
}

#[test]
fn every_field_has_a_description_and_every_rule_a_message() {
    for schema in schemas() {
        walk(&schema, "", &mut |path, schema| {
            let named = path.starts_with('.') && !path.ends_with("[]");
            assert!(
                !named || path == ".metadata" || schema.get("description").is_some(),
                "{path} is not described"
            );
            for rule in schema
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                assert!(
                    rule["message"].as_str().is_some_and(|text| !text.is_empty()),
                    "{path}: {rule}"
                );
            }
        });
    }
}

#[test]
fn no_field_with_a_default_may_be_stored_as_null() {
    for schema in schemas() {
        walk(&schema, "", &mut |path, schema| {
            if schema.get("default").is_some() {
                assert_ne!(
                    schema["nullable"],
                    json!(true),
                    "{path} has a default and is nullable"
                );
            }
        });
    }
}

#[test]
fn both_definitions_are_small_enough_for_client_side_apply() {
    for crd in [MessageBroker::crd(), MessageTopic::crd()] {
        assert!(json!(crd).to_string().len() < 200_000);
    }
}
