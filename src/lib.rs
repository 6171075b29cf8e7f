//! Sluice: message brokers on Kubernetes that scale on backpressure.
//!
//! `ARCHITECTURE.md` says where things live and why.

pub mod api;
pub mod broker;
pub mod cli;
pub mod client;
pub mod codec;
pub mod http;
pub mod operator;
pub mod pb;
pub mod scaling;
pub mod shutdown;
pub mod telemetry;
