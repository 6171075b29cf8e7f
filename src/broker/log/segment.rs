//! The segment files of a directory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::disk::{Disk, DiskFile};

/// Open segments by number. Readers take a file out of the map and read it without a lock.
#[derive(Debug)]
pub(crate) struct Segments {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    files: RwLock<BTreeMap<u32, Arc<dyn DiskFile>>>,
}

impl Segments {
    /// Opens every segment of the directory.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open(disk: &Arc<dyn Disk>, directory: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for path in disk.list(directory)? {
            if path.extension().is_some_and(|extension| extension == "log")
                && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
            {
                files.insert(number, disk.open(&path)?);
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            disk: Arc::clone(disk),
            files: RwLock::new(files),
        })
    }

    /// Numbers, ascending.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.files.read().keys().copied().collect()
    }

    /// The file of a segment.
    pub(crate) fn file(&self, number: u32) -> Option<Arc<dyn DiskFile>> {
        self.files.read().get(&number).cloned()
    }

    /// Makes an empty segment, durably.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn create(&self, number: u32) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(&self.path(number))?;
        self.files.write().insert(number, Arc::clone(&file));
        Ok(file)
    }

    /// Deletes a segment. A reader that has its file open can still finish.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn remove(&self, number: u32) -> io::Result<()> {
        self.files.write().remove(&number);
        self.disk.remove(&self.path(number))
    }

    fn path(&self, number: u32) -> PathBuf {
        self.directory.join(format!("{number:06}.log"))
    }
}
