//! What can go wrong, one type a step.

use std::time::Duration;

/// The operator cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No way to the API server.
    #[error("cannot find the Kubernetes API server: {0}")]
    Config(#[source] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("cannot make a Kubernetes client: {0}")]
    Client(#[source] kube::Error),
    /// The HTTP port cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// A request to the API server that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API server refused, or did not answer.
    #[error("{verb} {what}: {source}")]
    Kube {
        /// What was tried.
        verb: &'static str,
        /// On which object.
        what: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("{verb} {what}: no answer within {after:?}")]
    Timeout {
        /// What was tried.
        verb: &'static str,
        /// On which object.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// This operator is not the leader any more, so nothing was sent.
    #[error("{verb} {what}: not sent, since this operator does not lead any more")]
    NotLeader {
        /// What was to be tried.
        verb: &'static str,
        /// On which object.
        what: String,
    },
}

impl ApiError {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Kube { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// Somebody else changed the object first: read it again.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_conflict)
    }

    /// There is no such object.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_not_found)
    }

    /// There is one already.
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_already_exists)
    }

    /// The API server refuses the content: trying again as it is cannot help.
    pub fn is_refused(&self) -> bool {
        self.status()
            .is_some_and(|status| status.is_invalid() || status.is_forbidden() || status.code == 400)
    }

    /// What the API server said, where it said anything.
    pub fn message(&self) -> String {
        self.status()
            .map_or_else(|| self.to_string(), |status| status.message.clone())
    }
}

/// A reconcile that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Reading failed.
    #[error("observe: {0}")]
    Observe(#[source] ApiError),
    /// Writing a child failed.
    #[error("apply: {0}")]
    Apply(#[source] ApiError),
    /// Writing the status failed.
    #[error("status: {0}")]
    Status(#[source] ApiError),
}

impl ReconcileError {
    /// The step, as a metric label.
    pub fn step(&self) -> &'static str {
        match self {
            Self::Observe(_) => "observe",
            Self::Apply(_) => "apply",
            Self::Status(_) => "status",
        }
    }

    /// Somebody else changed the object first: trying again at once is right.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Observe(error) | Self::Apply(error) | Self::Status(error) => error.is_conflict(),
        }
    }
}
