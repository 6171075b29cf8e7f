//! What operator and broker share: the custom resources, names, labels and ports.

pub mod names;
