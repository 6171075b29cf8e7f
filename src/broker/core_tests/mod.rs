//! Tests of the core through the store, named by what they prove.

mod appends;
mod recovery;
mod support;
