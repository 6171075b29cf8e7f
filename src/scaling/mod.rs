//! Both scaling loops, as pure functions: `policy, observed, state, now -> decision`, and the state after it.
//!
//! The slow loop ([`decide`]) sizes the cluster, the fast one ([`decide_channel`]) the channel in each broker.
//! Nothing here has a clock, a client or any I/O, so that the operator, the simulator and the tests run the very
//! same code. Both loops share one [`State`] and may be called in any order; of it, [`Durable`] must outlive the
//! operator and everything else is rebuilt from reports.
//!
//! Rates and fractions of time decide, never lengths: how long a queue is depends on how much room it has.

pub mod behavior;
pub mod capacity;
pub mod channel;
pub mod counters;
pub mod decision;
pub mod demand;
mod guards;
mod jump;
mod observed;
mod outcome;
pub mod policy;
pub mod processor;
mod proposal;
mod replicas;
mod seen;
pub mod simulation;
mod state;
mod time;
mod trend;
mod view;
pub mod window;

pub use channel::{ChannelDecision, ChannelReason, decide_channel};
pub use counters::{BrokerCounters, BrokerGauges};
pub use decision::{Decision, Inputs, LimitedBy, Reason};
pub use jump::Jump;
pub use observed::{HotPartition, Observed, ObservedBroker, Report};
pub use policy::{AutoscalingPolicy, ChannelMode, ChannelPolicy, Fallback, FallbackBehavior, Mode, Policy};
pub use replicas::decide;
pub use state::{Durable, State};
pub use time::Time;

#[cfg(test)]
mod tests;
