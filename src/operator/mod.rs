//! The operator: makes what the custom resources ask for, and keeps it so.
//!
//! Only the holder of the Lease does anything. Each MessageBroker has two loops: the *reconcile* of its Kubernetes
//! objects (`broker`), and its *cluster*, which speaks to the brokers: configures them, places partitions and
//! measures pressure (`cluster`, `placement`, `pressure`, `scaling`).

pub mod backoff;
pub mod broker;
pub mod cluster;
pub mod config;
pub mod context;
pub mod controllers;
pub mod error;
pub mod events;
pub mod fault;
pub mod kube_io;
pub mod lease;
pub mod metrics;
pub mod placement;
pub mod pressure;
pub mod readiness;
pub mod run;
pub mod scaling;
pub mod topic;

pub use config::OperatorArgs;
pub use run::run;
