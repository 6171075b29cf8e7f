//! The bodies of the fuzz targets, and a measurement. They take in the journal's source itself, so that private parts can be reached and
//! a build takes seconds.

#[allow(dead_code, unused_imports, missing_docs)]
#[path = "../../src/broker"]
mod broker {
    pub mod counters;
    pub mod log;
}

pub mod frames;
pub mod measure;
pub mod recovery;
