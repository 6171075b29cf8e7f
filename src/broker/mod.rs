//! The embedded broker: connection → service → channel → partition → log → ack.
//!
//! `log`, `partition`, `group`, `channel` and `store` know nothing of gRPC; `service` translates.

pub mod channel;
pub mod counters;
pub mod group;
pub mod store;
