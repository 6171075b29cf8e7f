//! The embedded broker: connection → service → channel → partition → log → ack.
//!
//! `log`, `partition`, `group`, `channel` and `store` know nothing of gRPC; `service` translates.

pub mod channel;
mod clock;
pub mod config;
pub mod counters;
pub mod cpu;
pub mod group;
mod http2;
mod log;
pub mod metrics;
pub mod pace;
mod partition;
pub mod peer;
pub mod pressure;
pub mod refusals;
pub mod run;
pub mod server;
pub mod service;
pub mod standalone;
pub mod store;

#[cfg(test)]
mod core_tests;
#[cfg(test)]
mod sim_tests;

pub use run::{Listeners, RunError, run};
