//! What the schemas of both kinds are made of: CEL rules, bounded quantities, lists with keys.

use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema, transform::transform_subschemas};

/// The longest duration string: two units at least, and no sum that CEL cannot hold.
const DURATION_MAX_LENGTH: u32 = 16;
/// What a duration looks like. Six digits at most, so that no sum overflows.
const DURATION_PATTERN: &str = "^([0-9]{1,6}(ms|s|m|h))+$";
/// The longest quantity; CEL's cost estimate needs a bound.
const QUANTITY_MAX_LENGTH: u32 = 20;
/// A DNS subdomain, which is what most Kubernetes objects are named by.
const SUBDOMAIN_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A rule of the API server, with the message that whoever breaks it reads.
pub(crate) fn rule(cel: &str, message: &str) -> Rule {
    Rule::new(cel).message(message)
}

/// As [`rule`], reported at a field below the one that carries it.
pub(crate) fn rule_at(field: &str, cel: &str, message: &str) -> Rule {
    rule(cel, message).field_path(format!(".{field}"))
}

/// The schema of a duration string.
pub(crate) fn duration() -> Schema {
    json_schema!({ "type": "string", "maxLength": DURATION_MAX_LENGTH })
}

/// The rule of a duration from `min` to `max`, both included.
pub(crate) fn duration_between(field: &str, min: &str, max: &str) -> [Rule; 1] {
    [Rule::new(format!(
        "self.matches('{DURATION_PATTERN}') && duration(self) >= duration('{min}') && duration(self) <= duration('{max}')"
    ))
    .message(format!("{field} must be a duration from {min} to {max}, written with the units ms, s, m and h, such as {max}").as_str())]
}

/// The rule of a duration from `min` to `max`, or `0s` for "no limit".
pub(crate) fn duration_between_or_zero(field: &str, min: &str, max: &str) -> [Rule; 1] {
    [Rule::new(format!(
        "self.matches('{DURATION_PATTERN}') && (duration(self) == duration('0s') || \
         duration(self) >= duration('{min}') && duration(self) <= duration('{max}'))"
    ))
    .message(
        format!(
            "{field} must be 0s (no limit) or a duration from {min} to {max}, written with the units ms, s, m and h, \
             such as {max}"
        )
        .as_str(),
    )]
}

/// The condition, within a rule, that both expressions are durations: what is none has a rule of its own.
pub(crate) fn both_durations(one: &str, other: &str) -> String {
    format!("{one}.matches('{DURATION_PATTERN}') && {other}.matches('{DURATION_PATTERN}')")
}

/// The schema of a quantity. Not nullable: a stored `null` could not be read again.
pub(crate) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "nullable": false, "maxLength": QUANTITY_MAX_LENGTH })
}

/// The schema of a quantity that may be left out.
pub(crate) fn optional_quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "nullable": true, "maxLength": QUANTITY_MAX_LENGTH })
}

/// The rule of a quantity of bytes from `min` to `max`, both included.
pub(crate) fn bytes_between(field: &str, min: &str, max: &str) -> Rule {
    Rule::new(format!(
        "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('{min}')) >= 0 && \
         quantity(string(self)).compareTo(quantity('{max}')) <= 0"
    ))
    .message(format!("{field} must be a quantity of bytes from {min} to {max}, such as {max}").as_str())
}

/// The schema of quantities by name, eight at most.
pub(crate) fn quantities(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "maxProperties": 8, "additionalProperties": quantity(generator) })
}

/// The schema of labels, 32 at most.
pub(crate) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 32, "additionalProperties": { "type": "string", "maxLength": 63 }
    })
}

/// The schema of annotations, 32 at most.
pub(crate) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 32, "additionalProperties": { "type": "string", "maxLength": 4096 }
    })
}

/// The rule of the keys of labels and annotations.
pub(crate) fn qualified_keys(field: &str) -> Rule {
    Rule::new(
        "self.all(k, size(k) <= 317 && \
         k.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
    )
    .message(
        format!(
            "{field}: every key must be a qualified name, such as example.com/team or team: letters, digits, '-', '_' \
             and '.', at most 63, after an optional DNS name and '/'"
        )
        .as_str(),
    )
}

/// The rule of the values of labels.
pub(crate) fn label_values(field: &str) -> Rule {
    Rule::new("self.all(k, self[k].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))").message(
        format!(
            "{field}: every value must be empty or letters, digits, '-', '_' and '.', beginning and ending with a letter \
             or digit"
        )
        .as_str(),
    )
}

/// The rule of a field that names another object.
pub(crate) fn object_name(field: &str) -> Rule {
    Rule::new(format!("self.matches('{SUBDOMAIN_PATTERN}')")).message(
        format!(
            "{field} must be the name of an object: lower-case letters, digits, '-' and '.', such as fast-ssd"
        )
        .as_str(),
    )
}

/// The integer formats that the API server knows: it warns of the unsigned ones. The ranges are in the schema anyway.
pub(crate) fn known_formats(schema: &mut Schema) {
    if let Some(format) = schema.get_mut("format") {
        match format.as_str() {
            Some("uint8" | "uint16" | "uint32") => *format = "int32".into(),
            Some("uint64" | "uint") => *format = "int64".into(),
            _ => {}
        }
    }
    transform_subschemas(&mut known_formats, schema);
}
