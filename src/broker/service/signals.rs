//! What a session must hear of, in one watch: one registration a session, not three.

use super::credit::Grant;

/// The newest of everything that sessions react to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signals {
    /// Each publish stream's credit.
    pub grant: Grant,
    /// Grows whenever the store was configured anew.
    pub configuration: u64,
    /// The broker is stopping: finish what was accepted, and end.
    pub draining: bool,
}
