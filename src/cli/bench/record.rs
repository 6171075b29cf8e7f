//! The list of acknowledged messages on disk: what must still be there, whatever happens to anybody.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use crate::cli::Failure;
use crate::client::Stored;

pub(super) struct Record {
    file: BufWriter<File>,
    error: Option<std::io::Error>,
}

impl Record {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| Failure::of(&path.display().to_string(), error))?;
        Ok(Self {
            file: BufWriter::with_capacity(256 << 10, file),
            error: None,
        })
    }

    pub(super) fn write(&mut self, producer: u32, number: u64, stored: &Stored) {
        let mark = if stored.exact { '=' } else { '<' };
        let line = writeln!(
            self.file,
            "{producer} {number} {} {} {mark}",
            stored.partition, stored.offset
        );
        self.keep(line);
    }

    pub(super) fn flush(&mut self) {
        let flushed = self.file.flush();
        self.keep(flushed);
    }

    /// The first error, if any.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.flush();
        self.error
            .take()
            .map_or(Ok(()), |error| Err(Failure::of("writing the record", error)))
    }

    fn keep(&mut self, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }
}
