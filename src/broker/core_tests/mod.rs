//! Tests of the core through the store, named by what they prove.

mod appends;
mod compaction;
mod faults;
mod groups;
mod model;
mod moving;
mod recovery;
mod retention;
mod support;
