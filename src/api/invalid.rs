//! A field whose content the operator cannot use.

/// One field of a spec that cannot be used as it is, and why: the text of a condition or an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidField {
    /// The path of the field, for example `spec.channel.burstWindow`.
    pub field: String,
    /// What is wrong and what to do.
    pub problem: String,
}

impl InvalidField {
    /// `field` has this `problem`.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}
