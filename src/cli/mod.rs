//! The commands that people type.

pub mod crd;
