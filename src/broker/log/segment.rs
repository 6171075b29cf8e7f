//! The segment files of a directory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::frame::FrameAt;
use super::identity::sync_directory;

/// Open segments by number. Readers take a file out of the map and read it without a lock.
#[derive(Debug)]
pub(crate) struct Segments {
    directory: PathBuf,
    files: RwLock<BTreeMap<u32, Arc<File>>>,
}

impl Segments {
    /// Opens every segment of the directory.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for item in fs::read_dir(directory)? {
            let path = item?.path();
            if path.extension().is_some_and(|extension| extension == "log")
                && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
            {
                let file = OpenOptions::new().read(true).write(true).open(&path)?;
                files.insert(number, Arc::new(file));
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            files: RwLock::new(files),
        })
    }

    /// Numbers, ascending.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.files.read().keys().copied().collect()
    }

    /// The file of a segment.
    pub(crate) fn file(&self, number: u32) -> Option<Arc<File>> {
        self.files.read().get(&number).cloned()
    }

    /// Makes an empty segment, durably.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn create(&self, number: u32) -> io::Result<Arc<File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path(number))?;
        sync_directory(&self.directory)?;
        let file = Arc::new(file);
        self.files.write().insert(number, Arc::clone(&file));
        Ok(file)
    }

    /// Deletes a segment. A reader that has its file open can still finish.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn remove(&self, number: u32) -> io::Result<()> {
        self.files.write().remove(&number);
        fs::remove_file(self.path(number))?;
        sync_directory(&self.directory)
    }

    /// Reads a place. Blocking.
    ///
    /// # Errors
    /// What the system says; `NotFound` for a segment that is gone.
    pub(crate) fn read(&self, at: FrameAt) -> io::Result<Bytes> {
        let file = self.file(at.segment).ok_or(io::ErrorKind::NotFound)?;
        let mut buffer = vec![0; at.len as usize];
        file.read_exact_at(&mut buffer, u64::from(at.offset))?;
        Ok(Bytes::from(buffer))
    }

    fn path(&self, number: u32) -> PathBuf {
        self.directory.join(format!("{number:06}.log"))
    }
}
