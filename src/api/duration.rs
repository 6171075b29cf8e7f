//! Durations as people write them in a spec: `100ms`, `30s`, `1h30m`.

use std::{borrow::Cow, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{InvalidField, schema};

/// A duration in a spec, as text: digits and a unit (`ms`, `s`, `m` or `h`), as often as wanted.
///
/// It is kept as text so that an object with a bad one can still be read; the API server refuses bad ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationString(pub String);

impl DurationString {
    /// The duration, or an error that names `field`.
    ///
    /// # Errors
    /// If the text is not a duration.
    pub fn parse(&self, field: &str) -> Result<Duration, InvalidField> {
        parse(&self.0).ok_or_else(|| {
            InvalidField::new(
                field,
                format!(
                    "{:?} is not a duration; write it with the units ms, s, m and h, such as 1h30m",
                    self.0
                ),
            )
        })
    }

    /// The shortest text for `duration`, in whole milliseconds (rounded down).
    pub fn from_duration(duration: Duration) -> Self {
        let millis = duration.as_millis();
        let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        let mut rest = millis;
        let mut text = String::new();
        for (unit, name) in units {
            if rest / unit > 0 {
                text.push_str(&format!("{}{name}", rest / unit));
                rest %= unit;
            }
        }
        if text.is_empty() {
            Self("0s".to_owned())
        } else {
            Self(text)
        }
    }
}

impl From<&str> for DurationString {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl JsonSchema for DurationString {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema::duration()
    }
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let part = match &rest[..unit] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        };
        sum = sum.checked_add(part)?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_and_their_sums_are_understood() {
        for (text, millis) in [
            ("0s", 0),
            ("100ms", 100),
            ("2s", 2_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
        ] {
            assert_eq!(
                DurationString::from(text).parse("x"),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_by_the_name_of_its_field() {
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "1.5s",
            "5d",
            "5sm",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            let error = DurationString::from(text).parse("spec.catchUp").expect_err(text);
            assert_eq!(error.field, "spec.catchUp");
            assert!(error.to_string().contains("is not a duration"), "{error}");
        }
    }

    #[test]
    fn text_of_a_duration_reads_back_as_the_same() {
        for millis in [0, 1, 100, 1_000, 61_001, 3_600_000, 90_061_001] {
            let duration = Duration::from_millis(millis);
            assert_eq!(DurationString::from_duration(duration).parse("x"), Ok(duration));
        }
    }
}
