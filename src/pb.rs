//! The generated wire types of `proto/sluice/v1`.

#![allow(missing_docs, clippy::all, unreachable_pub)]

tonic::include_proto!("sluice.v1");

/// The descriptor set, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sluice.v1.bin"));
