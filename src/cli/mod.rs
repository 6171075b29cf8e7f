//! The commands that people type.

pub mod bench;
pub mod broker;
pub mod command;
pub mod crd;
mod failure;
pub mod operator;
mod options;
pub mod publish;
pub mod record;
pub mod runtime;
pub mod simulate;
pub mod subscribe;

pub use command::{Cli, Command};
pub use failure::Failure;
pub use options::{Connection, Output};
