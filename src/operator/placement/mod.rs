//! Where partitions live, and how they move.
//!
//! Pure: `model`, `chain`, `balance`, `plan`, `report`, `tell`, `assemble`. With brokers and API server: `topics`, `disks`,
//! `execute`, `carry`, `autocreate`, and the loop over all of it, `engine`.

pub mod assemble;
pub mod autocreate;
pub mod balance;
pub mod carry;
pub mod chain;
pub mod disks;
pub mod engine;
pub mod execute;
pub mod model;
pub mod plan;
pub mod report;
pub mod tell;
pub mod topics;
