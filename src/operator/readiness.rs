//! Whether the operator does its work, or why not yet.

use std::sync::Arc;

use parking_lot::Mutex;

/// Whether the operator does its work, or why not yet. A standby is ready: it waits as it should.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Option<String>>>);

impl Readiness {
    /// Not ready for this reason.
    pub fn waiting(reason: impl Into<String>) -> Self {
        Self(Arc::new(Mutex::new(Some(reason.into()))))
    }

    /// Sets why it is not ready; `None`: it is.
    pub fn set(&self, reason: Option<String>) {
        *self.0.lock() = reason;
    }

    /// Nothing, or why it is not ready.
    ///
    /// # Errors
    /// Why it is not ready.
    pub fn check(&self) -> Result<(), String> {
        self.0.lock().clone().map_or(Ok(()), Err)
    }
}
