//! Every range, enum and length of both specs, at a real API server. What to try comes from the schemas themselves.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

#[path = "support/apiserver.rs"]
mod apiserver;

use apiserver::{ApiServer, Kind, causes};
use serde_json::{Value, json};

/// One place in a spec, and how to put a value there.
#[derive(Clone)]
struct Place {
    /// As the API server names it.
    path: String,
    schema: Value,
    /// From the spec down; a list is entered at its first item.
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    Field(String),
    /// The first item of a list, whose other fields are these.
    Item(Value),
}

/// Every place of a spec, the spec itself included.
fn places(kind: Kind) -> Vec<Place> {
    let root = Place {
        path: "spec".into(),
        schema: kind.schema()["properties"]["spec"].clone(),
        steps: Vec::new(),
    };
    let mut found = Vec::new();
    visit(root, &mut found);
    found
}

fn visit(place: Place, found: &mut Vec<Place>) {
    if let Some(properties) = place.schema.get("properties").and_then(Value::as_object) {
        for (name, schema) in properties {
            let mut steps = place.steps.clone();
            steps.push(Step::Field(name.clone()));
            visit(
                Place {
                    path: format!("{}.{name}", place.path),
                    schema: schema.clone(),
                    steps,
                },
                found,
            );
        }
    }
    if place.schema["type"] == "array" && !place.path.ends_with("tolerations") {
        let mut steps = place.steps.clone();
        steps.push(Step::Item(place.schema["default"][0].clone()));
        visit(
            Place {
                path: format!("{}[0]", place.path),
                schema: place.schema["items"].clone(),
                steps,
            },
            found,
        );
    }
    found.push(place);
}

impl Place {
    /// An object whose spec has `value` here.
    fn object(&self, value: Value) -> Value {
        let spec = self.steps.iter().rev().fold(value, |inner, step| match step {
            Step::Field(name) => json!({ name: inner }),
            Step::Item(rest) => {
                let mut item = rest.clone();
                if item.is_object() {
                    apiserver::merge(&mut item, &inner);
                } else {
                    item = inner;
                }
                json!([item])
            }
        });
        json!({ "spec": spec })
    }
}

/// What is wrong at `place` of an object with `value` there. Rules about several fields are not counted: they have
/// their own tests.
async fn problems(server: &ApiServer, kind: Kind, place: &Place, value: Value) -> Vec<String> {
    let result = server.create(kind, &place.object(value), true).await;
    let all = result.err().map(|refusal| causes(&refusal)).unwrap_or_default();
    all.into_iter()
        .filter(|cause| cause.starts_with(&format!("{}: ", place.path)))
        .collect()
}

#[tokio::test]
async fn every_integer_is_bounded_at_both_ends() {
    let server = ApiServer::new().await;
    let mut tried = 0;
    for kind in [Kind::Broker, Kind::Topic] {
        for place in places(kind)
            .into_iter()
            .filter(|place| place.schema["type"] == "integer")
        {
            let bound = |name: &str| {
                place.schema[name]
                    .as_f64()
                    .unwrap_or_else(|| panic!("{}", place.path)) as i64
            };
            for (value, message) in [
                (bound("minimum") - 1, "should be greater than or equal to"),
                (bound("maximum") + 1, "should be less than or equal to"),
                (5_000_000_000, "should be less than or equal to"),
            ] {
                let found = problems(&server, kind, &place, json!(value)).await;
                assert!(
                    found.iter().any(|one| one.contains(message)),
                    "{} = {value}: {found:?}",
                    place.path
                );
            }
            for value in [bound("minimum"), bound("maximum")] {
                let found = problems(&server, kind, &place, json!(value)).await;
                assert!(
                    !found.iter().any(|one| one.contains("should be")),
                    "{} = {value}: {found:?}",
                    place.path
                );
            }
            println!("{}: {} to {}", place.path, bound("minimum"), bound("maximum"));
            tried += 1;
        }
    }
    assert!(tried >= 23, "only {tried} integers found");
}

#[tokio::test]
async fn every_enum_takes_its_values_and_no_other() {
    let server = ApiServer::new().await;
    let mut tried = 0;
    for kind in [Kind::Broker, Kind::Topic] {
        for place in places(kind) {
            let Some(values) = place.schema["enum"].as_array() else {
                continue;
            };
            for value in values {
                let found = problems(&server, kind, &place, value.clone()).await;
                assert!(
                    !found.iter().any(|one| one.contains("Unsupported")),
                    "{} = {value}: {found:?}",
                    place.path
                );
            }
            for value in ["Nonsense", "", &values[0].as_str().expect("text").to_lowercase()] {
                let found = problems(&server, kind, &place, json!(value)).await;
                assert!(
                    found.iter().any(|one| one.contains("supported values")),
                    "{} = {value}: {found:?}",
                    place.path
                );
            }
            println!("{}: {values:?}", place.path);
            tried += 1;
        }
    }
    assert!(tried >= 11, "only {tried} enums found");
}

#[tokio::test]
async fn every_text_and_list_is_bounded() {
    let server = ApiServer::new().await;
    for kind in [Kind::Broker, Kind::Topic] {
        for place in places(kind) {
            let (value, message) = if let Some(length) = place.schema["maxLength"].as_u64() {
                (
                    json!("1".repeat(usize::try_from(length + 1).expect("small"))),
                    "Too long",
                )
            } else if let Some(count) = place.schema["maxItems"].as_u64() {
                let item = if place.schema["default"][0].is_null() {
                    json!({})
                } else {
                    place.schema["default"][0].clone()
                };
                (
                    json!(vec![item; usize::try_from(count + 1).expect("small")]),
                    "Too many",
                )
            } else if let Some(count) = place.schema["maxProperties"].as_u64() {
                let entries = (0..=count).map(|index| (format!("k{index}"), json!("1")));
                (Value::Object(entries.collect()), "Too many")
            } else {
                continue;
            };
            let found = problems(&server, kind, &place, value).await;
            assert!(
                found.iter().any(|one| one.contains(message)),
                "{}: {found:?}",
                place.path
            );
            println!("{}: {message}", place.path);
        }
    }
}

#[tokio::test]
async fn every_field_refuses_the_wrong_type_by_its_name() {
    let server = ApiServer::new().await;
    for kind in [Kind::Broker, Kind::Topic] {
        for place in places(kind) {
            let wrong = match place.schema["type"].as_str() {
                Some("boolean") => json!("yes"),
                _ => json!(true),
            };
            let found = problems(&server, kind, &place, wrong).await;
            assert!(!found.is_empty(), "{} takes the wrong type", place.path);
        }
    }
}

#[tokio::test]
async fn a_null_anywhere_is_refused_or_leaves_an_object_that_can_be_read() {
    let server = ApiServer::new().await;
    for kind in [Kind::Broker, Kind::Topic] {
        for place in places(kind) {
            let Ok(stored) = server.create(kind, &place.object(Value::Null), true).await else {
                continue;
            };
            let stored = serde_json::to_value(stored).expect("an object");
            let read = match kind {
                Kind::Broker => serde_json::from_value::<sluice::api::MessageBroker>(stored).map(drop),
                Kind::Topic => serde_json::from_value::<sluice::api::MessageTopic>(stored).map(drop),
            };
            assert!(
                read.is_ok(),
                "{} = null is stored and cannot be read: {read:?}",
                place.path
            );
        }
    }
}
