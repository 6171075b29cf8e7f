//! What a command ends with: 0 if it did what it was asked, otherwise one of these.

use std::process::ExitCode;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It failed. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// It was asked for something that makes no sense. Exit code 2, as for arguments that cannot be read.
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// A failure that says what was tried, and why it failed.
    pub fn of(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
        }
    }
}
