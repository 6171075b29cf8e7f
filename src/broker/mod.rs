//! The embedded broker: connection → service → channel → partition → log → ack.
//!
//! `log`, `partition`, `group`, `channel` and `store` know nothing of gRPC; `service` translates.

pub mod channel;
pub mod config;
pub mod counters;
pub mod cpu;
pub mod group;
pub mod metrics;
pub mod pressure;
pub mod run;
pub mod server;
pub mod service;
pub mod standalone;
pub mod store;

pub use run::{Listeners, RunError, run};
