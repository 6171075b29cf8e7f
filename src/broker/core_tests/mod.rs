//! Tests of the core through the store, named by what they prove.

mod appends;
mod compaction;
mod dead_letters;
mod failed_sync;
mod faults;
mod forgetting;
mod groups;
mod index;
mod memory;
mod model;
mod moving;
mod ordered;
mod partitions;
mod recovery;
mod redelivery;
mod retention;
mod starting;
pub(super) mod support;
