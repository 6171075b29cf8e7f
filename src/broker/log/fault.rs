//! A disk in memory whose power can be cut, that can be filled, damaged and made to fail.
//!
//! It keeps apart what was written and what was synced, as the page cache and the platter do. After
//! [`FaultDisk::restart`] only what was synced is certain to be there; of the rest, as much as the [`Cut`] says.
//! A disk whose power is off stays off, so that the threads of the store before the restart do no harm.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::disk::{Disk, DiskFile};

/// Bytes that a disk writes whole or not at all, unless it tears them.
const SECTOR: u64 = 512;

/// What becomes of unsynced writes when the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All of them are lost.
    Lost,
    /// None of them is: a kill, not a power cut.
    Kept,
    /// All are kept but the last one of each file, of which only so many bytes are.
    Torn(usize),
    /// Any sectors of any of them, and one sector torn at any byte.
    Random(u64),
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    /// By number; a removed file stays for those who have it open.
    files: Vec<Image>,
    off: bool,
    cut_after: Option<u64>,
    capacity: Option<u64>,
    failing_syncs: bool,
    zeroes_ahead: bool,
    syncs: u64,
    failed: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Image {
    written: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug, Clone)]
enum Pending {
    Write(u64, Vec<u8>),
    Resize(u64),
}

#[derive(Debug)]
struct OpenFile {
    disk: FaultDisk,
    number: usize,
}

impl FaultDisk {
    /// Zeros are written ahead, as on a real disk, from a thread of their own. Off by default.
    pub(crate) fn set_zeroes_ahead(&self, on: bool) {
        self.0.lock().zeroes_ahead = on;
    }

    /// From now on so many bytes fit; `None`: as many as you like.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Bytes in all files.
    pub(crate) fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// From now on every sync fails, and what it should have made durable is lost.
    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.0.lock().failing_syncs = fail;
    }

    /// The power goes off when so many more writes, resizes, syncs, creations and removals were done. 0: now.
    pub(crate) fn cut_power_after(&self, operations: u64) {
        let mut state = self.0.lock();
        state.cut_after = Some(operations);
        state.off = operations == 0;
    }

    /// Whether the power is off.
    pub(crate) fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// Syncs that succeeded.
    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// Why the process would have ended, for each thread that ended it.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.0.lock().failed.clone()
    }

    /// Cuts this disk's power, if it is not off yet, and returns it as it is found after the restart.
    pub(crate) fn restart(&self, cut: Cut) -> Self {
        let mut state = self.0.lock();
        state.off = true;
        let mut files = Vec::new();
        let mut random = StdRng::seed_from_u64(match cut {
            Cut::Random(seed) => seed,
            _ => 0,
        });
        let names = state.names.iter().enumerate().map(|(number, (path, &old))| {
            // After a kill the page cache goes on: what was not synced is there, and still not durable.
            files.push(if cut == Cut::Kept {
                state.files[old].clone()
            } else {
                let found = state.files[old].after(cut, &mut random);
                Image {
                    written: found.clone(),
                    durable: found,
                    pending: Vec::new(),
                }
            });
            (path.clone(), number)
        });
        let names = names.collect();
        Self(Arc::new(Mutex::new(State {
            names,
            files,
            capacity: state.capacity,
            zeroes_ahead: state.zeroes_ahead,
            ..State::default()
        })))
    }

    /// The files and what is in them.
    pub(crate) fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.0.lock();
        let files = state.names.iter();
        files
            .map(|(path, &number)| (path.clone(), state.files[number].written.clone()))
            .collect()
    }

    /// Flips a bit of a file's byte.
    pub(crate) fn flip(&self, path: &Path, byte: usize, bit: u8) {
        let mut state = self.0.lock();
        let number = state.names[path];
        let image = &mut state.files[number];
        image.written[byte] ^= 1 << (bit % 8);
        if let Some(durable) = image.durable.get_mut(byte) {
            *durable ^= 1 << (bit % 8);
        }
    }

    /// Counts an operation that changes something.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.0.lock();
        if let Some(left) = &mut state.cut_after {
            let off = *left == 0;
            *left = left.saturating_sub(1);
            state.off |= off;
        }
        if state.off {
            return Err(no_power());
        }
        Ok(state)
    }

    fn file(&self, number: usize) -> Arc<dyn DiskFile> {
        Arc::new(OpenFile {
            disk: self.clone(),
            number,
        })
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

impl State {
    fn used(&self) -> u64 {
        let sizes = self
            .names
            .values()
            .map(|&number| self.files[number].written.len());
        sizes.sum::<usize>() as u64
    }
}

impl Image {
    fn after(&self, cut: Cut, random: &mut StdRng) -> Vec<u8> {
        let mut found = self.durable.clone();
        let torn = random.random_range(0..=self.pending.len());
        let keep: f64 = random.random();
        for (index, change) in self.pending.iter().enumerate() {
            let (at, bytes) = match change {
                Pending::Resize(size) => {
                    if match cut {
                        Cut::Lost => false,
                        Cut::Kept | Cut::Torn(_) => true,
                        Cut::Random(_) => random.random(),
                    } {
                        found.resize(*size as usize, 0);
                    }
                    continue;
                }
                Pending::Write(at, bytes) => (*at, bytes),
            };
            match cut {
                Cut::Lost => {}
                Cut::Kept => put(&mut found, at, bytes),
                Cut::Torn(most) if index + 1 == self.pending.len() => {
                    put(&mut found, at, &bytes[..most.min(bytes.len())]);
                }
                Cut::Torn(_) => put(&mut found, at, bytes),
                Cut::Random(_) => {
                    let mut rest = &bytes[..];
                    let mut at = at;
                    while !rest.is_empty() {
                        let whole = ((SECTOR - at % SECTOR) as usize).min(rest.len());
                        if index == torn && random.random_ratio(1, 4) {
                            put(&mut found, at, &rest[..random.random_range(0..=whole)]);
                        } else if random.random_bool(keep) {
                            put(&mut found, at, &rest[..whole]);
                        }
                        rest = &rest[whole..];
                        at += whole as u64;
                    }
                }
            }
        }
        found
    }
}

fn put(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let at = at as usize;
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Disk for FaultDisk {
    fn claim(&self, _directory: &Path, _broker: &str) -> Result<Box<dyn Any + Send + Sync>, String> {
        Ok(Box::new(()))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.0.lock();
        let paths = state.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(paths.cloned().collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let number = self.0.lock().names.get(path).copied();
        Ok(self.file(number.ok_or(io::ErrorKind::NotFound)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.change()?;
        if state.capacity.is_some_and(|capacity| state.used() >= capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let number = state.files.len();
        state.files.push(Image::default());
        state.names.insert(path.to_owned(), number);
        drop(state);
        Ok(self.file(number))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn fail(&self, why: &str) -> ! {
        let mut state = self.0.lock();
        state.off = true;
        state.failed.push(why.to_owned());
        drop(state);
        // Ends this thread, as all would end, without a word on the terminal.
        std::panic::resume_unwind(Box::new("the disk failed"))
    }

    fn zeroes_ahead(&self) -> bool {
        self.0.lock().zeroes_ahead
    }
}

impl DiskFile for OpenFile {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.0.lock();
        if state.off {
            return Err(no_power());
        }
        let at = offset as usize;
        let found = state.files[self.number].written.get(at..at + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let was_off = self.disk.is_off();
        let counted = self.disk.change();
        let failed = counted.is_err();
        if was_off {
            return Err(no_power());
        }
        let mut state = counted.unwrap_or_else(|_| self.disk.0.lock());
        let used = state.used();
        let capacity = state.capacity.unwrap_or(u64::MAX);
        let image = &mut state.files[self.number];
        let grows = (offset + bytes.len() as u64).saturating_sub(image.written.len() as u64);
        let missing = (used + grows).saturating_sub(capacity.max(used));
        let fits = &bytes[..bytes.len() - (missing as usize).min(bytes.len())];
        // What is being written when the power goes may be there as well.
        put(&mut image.written, offset, fits);
        image.pending.push(Pending::Write(offset, fits.to_vec()));
        if failed {
            return Err(no_power());
        }
        if missing > 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.number].written.len() as u64)
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        let mut state = self.disk.change()?;
        let image = &mut state.files[self.number];
        image.written.resize(size as usize, 0);
        image.pending.push(Pending::Resize(size));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.change()?;
        let failing = state.failing_syncs;
        let image = &mut state.files[self.number];
        let pending = std::mem::take(&mut image.pending);
        if failing {
            return Err(io::Error::other("the device reports an error"));
        }
        for change in pending {
            match change {
                Pending::Write(at, bytes) => put(&mut image.durable, at, &bytes),
                Pending::Resize(size) => image.durable.resize(size as usize, 0),
            }
        }
        state.syncs += 1;
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (FaultDisk, Arc<dyn DiskFile>, &'static Path) {
        let disk = FaultDisk::default();
        let path = Path::new("/d/1.log");
        let file = disk.create(path).unwrap();
        file.write(b"synced--", 0).unwrap();
        file.sync().unwrap();
        file.write(b"first", 8).unwrap();
        file.write(b"last", 13).unwrap();
        (disk, file, path)
    }

    #[test]
    fn only_what_was_synced_is_sure_to_survive() {
        let found = |cut| {
            let (disk, _file, path) = disk();
            disk.restart(cut).contents().remove(path).unwrap()
        };
        assert_eq!(found(Cut::Lost), b"synced--");
        assert_eq!(found(Cut::Kept), b"synced--firstlast");
        assert_eq!(found(Cut::Torn(1)), b"synced--firstl");
        for seed in 0..100 {
            assert!(found(Cut::Random(seed)).starts_with(b"synced--"), "{seed}");
        }
    }

    #[test]
    fn a_disk_without_power_stays_off() {
        let (disk, file, path) = disk();
        disk.cut_power_after(1);
        file.write(b"done", 17).unwrap();
        assert!(file.sync().is_err(), "the power is off");
        let again = disk.restart(Cut::Lost);
        assert!(file.write(b"x", 0).is_err() && file.sync().is_err());
        assert_eq!(again.contents()[path], b"synced--");
        assert!(disk.is_off() && !again.is_off());
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_rewrites_what_is_there() {
        let (disk, file, path) = disk();
        disk.set_capacity(Some(19));
        let full = file.write(b"four", 17).unwrap_err();
        assert!(crate::broker::log::disk::is_full(&full));
        assert_eq!(disk.used(), 19);
        file.write(b"SYNCED", 0).unwrap();
        disk.set_capacity(None);
        file.write(b"four", 17).unwrap();
        assert_eq!(disk.contents()[path], b"SYNCED--firstlastfour");
    }
}
