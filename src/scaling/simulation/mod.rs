//! What the decisions would do, before the fact: a model of brokers and publishers, loads, and the very decision code of the
//! operator between them, beside the usual formulas.
//!
//! Everything here is a function of its arguments: the same load, seed and policy give the same result.

pub mod broker;
pub mod cluster;
mod figures;
mod load;
mod noise;
pub mod policies;
mod run;
mod trace;
mod work;

pub use broker::{BrokerModel, Publishers};
pub use cluster::Cluster;
pub use figures::{Figures, mean};
pub use load::{Builtin, Event, Load};
pub use policies::PolicyKind;
pub use run::{Act, Moment, Outcome, Scenario, simulate};
pub use trace::{Trace, TraceError};
pub use work::Work;

#[cfg(test)]
mod tests;
