//! The journal's writer one step at a time, for simulations that repeat themselves exactly.

use super::journal::Op;
use super::writer::Writer;

/// The writer, which does nothing by itself.
pub(crate) struct Stepped {
    writer: Writer,
    /// Written and not yet durable.
    written: Option<Vec<Box<dyn Op>>>,
}

impl Stepped {
    pub(super) fn new(writer: Writer) -> Self {
        Self {
            writer,
            written: None,
        }
    }

    /// Writes what is queued, if nothing is on its way.
    pub(crate) fn write(&mut self) {
        if self.written.is_none()
            && let Some(ops) = self.writer.take_queued()
        {
            self.written = self.writer.write_group(ops);
        }
    }

    /// Makes what was written durable, and says so.
    pub(crate) fn commit(&mut self) {
        if let Some(ops) = self.written.take() {
            self.writer.commit_group(ops);
        }
    }

    /// What the writer does when nothing has come for a while.
    pub(crate) fn idle(&mut self) {
        if self.written.is_none() {
            self.writer.idle();
        }
    }
}
