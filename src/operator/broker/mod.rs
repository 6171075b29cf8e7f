//! The reconcile of a MessageBroker: observe, validate, build, plan, apply, status.
//!
//! `validate`, `build`, `plan`, `diff`, `health`, `rivals`, `findings` and `status` are pure.

pub mod apply;
pub mod build;
pub mod diff;
pub mod findings;
pub mod health;
pub mod observe;
pub mod plan;
pub mod reconcile;
pub mod rivals;
pub mod rollout;
pub mod status;
pub mod validate;
