//! The journal: one sequence of records for everything that a broker keeps, in segment files.
//!
//! Records of all partitions are interleaved, so that one `fdatasync` commits whatever arrived while the one before
//! it ran. What a record means is its submitter's business ([`Op`]); this module frames, writes, syncs, finds the
//! end after a crash and tells a torn write (cut away) from damage (kept, reported).

mod disk;
#[cfg(any(test, fuzzing))]
pub(crate) mod fault;
mod fill;
mod footer;
pub(crate) mod frame;
mod identity;
mod journal;
pub(crate) mod number;
mod pending;
mod piece;
mod scan;
mod segment;
#[cfg(test)]
mod stepped;
mod thread;
mod writer;

#[cfg(any(test, fuzzing))]
pub(crate) use disk::DiskFile;
pub(crate) use disk::{Disk, RealDisk};
pub(crate) use frame::{FrameAt, Frames, Header, Kind, Meta};
pub(crate) use journal::{Checkpoint, Journal, JournalOptions, Op, Recovered};
pub(crate) use piece::{Piece, Run, put_pieces, put_run};
pub(crate) use scan::{Damage, Visitor};
#[cfg(test)]
pub(crate) use stepped::Stepped;
