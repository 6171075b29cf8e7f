//! Whether a live object is as it is wanted: pure.

use serde::Serialize;
use serde_json::Value;

use crate::api::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A short hash of a value's JSON form; the same for the same value in every run and version.
pub fn hash<T: Serialize + ?Sized>(value: &T) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    // FNV-1a, 64 bits: it only tells versions of one object apart.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Whether everything that `wanted` names is in `live` with the same value. What `live` has beyond that is others'.
pub fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (_, Value::Null) => true,
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, wanted)| covers(live.get(name).unwrap_or(&Value::Null), wanted)),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| covers(live, wanted))
        }
        // Nothing and an empty thing are the same to the API server.
        (Value::Null, Value::Object(wanted)) => wanted.values().all(|wanted| covers(&Value::Null, wanted)),
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (live, wanted) => live == wanted || same_quantity(live, wanted),
    }
}

/// The API server writes quantities in its own way: `1000m` becomes `1`.
fn same_quantity(live: &Value, wanted: &Value) -> bool {
    let milli = |value: &Value| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        quantity::milli(&Quantity(text), "").ok()
    };
    milli(live).is_some_and(|live| milli(wanted) == Some(live))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_add_is_theirs_and_what_is_ours_is_seen() {
        let live = json!({"a": {"b": 1, "theirs": 2}, "list": [{"name": "x", "default": true}], "cpu": "1"});
        for wanted in [
            json!({"a": {"b": 1}}),
            json!({"list": [{"name": "x"}]}),
            json!({"cpu": "1000m"}),
            json!({"none": {}}),
            json!({"none": []}),
            json!({"none": null}),
        ] {
            assert!(covers(&live, &wanted), "{wanted}");
        }
        for wanted in [
            json!({"a": {"b": 2}}),
            json!({"a": {"c": 1}}),
            json!({"list": []}),
            json!({"list": [{"name": "y"}]}),
            json!({"cpu": "2"}),
            json!({"none": {"x": 1}}),
        ] {
            assert!(!covers(&live, &wanted), "{wanted}");
        }
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(&json!({"a": 1})), hash(&json!({"a": 1})));
        assert_ne!(hash(&json!({"a": 1})), hash(&json!({"a": 2})));
        assert_eq!(hash("sluice"), "6d5b8dbdaccb071e");
    }
}
