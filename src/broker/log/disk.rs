//! The disk under the journal, behind two small traits, so that tests can fill it, damage it and cut its power.

use std::any::Any;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::identity;

/// Files in directories.
pub(crate) trait Disk: Send + Sync + std::fmt::Debug {
    /// Takes a directory for this broker and makes it where it is new. It is held as long as what is returned lives.
    ///
    /// # Errors
    /// It cannot be used, is in use, is another broker's or has another format.
    fn claim(&self, directory: &Path, broker: &str) -> Result<Box<dyn Any + Send + Sync>, String>;

    /// The paths in a directory.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Opens a file that exists.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes an empty file. Its name is durable before this returns.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Deletes a file. Whoever has it open can still read it. It is durably gone before this returns.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Ends the process: after a failed write or sync nobody knows what is on the disk, and trying again would lie.
    fn fail(&self, why: &str) -> !;

    /// Whether zeros are written ahead of the journal's end. They come from a thread of their own, so a simulation
    /// that is to repeat itself exactly does without.
    fn zeroes_ahead(&self) -> bool {
        true
    }
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync + std::fmt::Debug {
    /// Fills the buffer from `offset` on.
    ///
    /// # Errors
    /// What the system says; `UnexpectedEof` where the file ends before.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system says. A part may have been written.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Its size in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;

    /// Makes it so many bytes long.
    ///
    /// # Errors
    /// What the system says.
    fn resize(&self, size: u64) -> io::Result<()>;

    /// `fdatasync`: what was written is durable.
    ///
    /// # Errors
    /// What the system says. What was written may be lost, and asking again proves nothing.
    fn sync(&self) -> io::Result<()>;

    /// `fsync`: what was written, and the size where it became smaller, is durable.
    ///
    /// # Errors
    /// As [`DiskFile::sync`].
    fn sync_all(&self) -> io::Result<()>;
}

/// The machine's disk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn claim(&self, directory: &Path, broker: &str) -> Result<Box<dyn Any + Send + Sync>, String> {
        let lock = identity::claim(directory, broker)?;
        Ok(Box::new(lock))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?
            .map(|item| item.map(|item| item.path()))
            .collect()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        sync_parent(path)?;
        Ok(Arc::new(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        sync_parent(path)
    }

    fn fail(&self, why: &str) -> ! {
        tracing::error!(
            why,
            "the journal failed; the process ends so that recovery can find out what is durable"
        );
        eprintln!("sluice: the journal failed: {why}");
        std::process::abort()
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), identity::sync_directory)
}

impl DiskFile for File {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }
}

/// Whether the error says that there is no room, which may pass.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
