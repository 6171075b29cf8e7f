//! A rule of the API, and how it is tried.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]
#![allow(unreachable_pub, reason = "it is a module of a test")]
#![allow(clippy::needless_pass_by_value, reason = "the table of cases reads better so")]

use serde_json::{Value, json};

use crate::apiserver::{ApiServer, Kind, causes, merge};

/// A rule, and what it is tried with. Every object is laid over the smallest valid one of its kind.
pub struct Case {
    /// Of what.
    pub kind: Kind,
    /// What is there before, for a rule about changes.
    pub before: Option<Value>,
    /// What keeps the rule.
    pub accepted: Value,
    /// What breaks it.
    pub refused: Value,
    /// A part of the message that belongs to no other rule.
    pub message: &'static str,
}

/// A rule about an object.
pub fn holds(kind: Kind, accepted: Value, refused: Value, message: &'static str) -> Case {
    Case {
        kind,
        before: None,
        accepted,
        refused,
        message,
    }
}

/// A rule about the spec of an object.
pub fn spec(kind: Kind, accepted: Value, refused: Value, message: &'static str) -> Case {
    holds(
        kind,
        json!({ "spec": accepted }),
        json!({ "spec": refused }),
        message,
    )
}

/// A rule about a change of the spec.
pub fn change(kind: Kind, before: Value, accepted: Value, refused: Value, message: &'static str) -> Case {
    Case {
        before: Some(json!({ "spec": before })),
        ..spec(kind, accepted, refused, message)
    }
}

impl Case {
    /// Fails unless the API server accepts the one and refuses the other, for this rule alone.
    pub async fn check(&self) {
        let server = ApiServer::new().await;
        if let Some(before) = &self.before {
            server
                .create(self.kind, before, false)
                .await
                .expect("what is there before is valid");
        }
        let accepted = self.submit(&server, &self.accepted).await;
        assert!(
            accepted.is_ok(),
            "refused: {:#?}",
            accepted.map_err(|status| causes(&status))
        );
        let refused = self
            .submit(&server, &self.refused)
            .await
            .expect_err("must be refused");
        assert_eq!(refused.code, 422, "{refused:?}");
        let causes = causes(&refused);
        assert!(
            causes.len() == 1 && causes[0].contains(self.message),
            "must be refused for {:?} alone: {causes:#?}",
            self.message
        );
    }

    async fn submit(&self, server: &ApiServer, object: &Value) -> Result<(), kube::core::Status> {
        match &self.before {
            Some(before) => {
                let mut after = before.clone();
                merge(&mut after, object);
                server.replace(self.kind, &after, true).await.map(drop)
            }
            None => server.create(self.kind, object, true).await.map(drop),
        }
    }
}

/// The messages of every rule in `schema` and below.
pub fn messages(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                found.push(
                    rule["message"]
                        .as_str()
                        .expect("every rule has a message")
                        .to_owned(),
                );
            }
            fields.values().for_each(|field| messages(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| messages(item, found)),
        _ => {}
    }
}
