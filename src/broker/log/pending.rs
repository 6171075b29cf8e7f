//! Records that were acknowledged from memory and are not in their segment's file yet.
//!
//! With durability in memory a record is acknowledged when it lies here, behind all before it; a thread writes what
//! has gathered every few milliseconds, with one call. Whoever reads a place finds it here until it is in the file.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::DiskFile;
use super::frame::FrameAt;

/// Buffers are kept up to this size.
const KEEP: usize = 256 << 10;

/// The newest bytes of the segment that is being written.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    state: Mutex<State>,
    /// Held by whoever writes to the file, so that it grows in order.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    segment: u32,
    file: Option<Arc<dyn DiskFile>>,
    /// The offset of the first byte that is not in the file.
    start: u64,
    /// On its way into the file, from `start` on.
    leaving: Arc<Vec<u8>>,
    /// Behind it.
    gathering: Vec<u8>,
    /// The last attempt to write found the disk full.
    is_stuck: bool,
}

/// What could not be written, and why.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) file: Arc<dyn DiskFile>,
    /// Where the file ends as it should be.
    pub(super) start: u64,
    pub(super) error: io::Error,
}

impl Pending {
    /// Adds records that belong at `end` of `segment`; what is here lies right before them.
    pub(super) fn add(&self, segment: u32, file: &Arc<dyn DiskFile>, end: u64, bytes: &[u8]) {
        let mut state = self.state.lock();
        if state.len() == 0 {
            state.segment = segment;
            state.start = end;
            state.file = Some(Arc::clone(file));
        }
        state.gathering.extend_from_slice(bytes);
    }

    /// Bytes that are not in the file yet.
    pub(super) fn len(&self) -> usize {
        self.state.lock().len()
    }

    /// The disk was full when they were to be written.
    pub(super) fn is_stuck(&self) -> bool {
        self.state.lock().is_stuck
    }

    /// Writes what is here now to the file; `before` is told how far, first. What cannot be written stays here.
    pub(super) fn write(&self, before: impl Fn(u64)) -> Result<(), Unwritten> {
        let _writing = self.writing.lock();
        let until = {
            let state = self.state.lock();
            state.start + state.len() as u64
        };
        // Twice, where an earlier attempt failed.
        loop {
            let (file, start, bytes) = {
                let mut state = self.state.lock();
                if state.leaving.is_empty() {
                    state.leaving = Arc::new(std::mem::take(&mut state.gathering));
                }
                match &state.file {
                    Some(file) if state.start < until && !state.leaving.is_empty() => {
                        (Arc::clone(file), state.start, Arc::clone(&state.leaving))
                    }
                    _ => return Ok(()),
                }
            };
            let end = start + bytes.len() as u64;
            before(end);
            let result = file.write(&bytes, start);
            drop(bytes);
            let mut state = self.state.lock();
            state.is_stuck = result.is_err();
            if let Err(error) = result {
                return Err(Unwritten { file, start, error });
            }
            state.start = end;
            let mut spare = Arc::try_unwrap(std::mem::take(&mut state.leaving)).unwrap_or_default();
            if state.gathering.is_empty() && spare.capacity() <= KEEP {
                spare.clear();
                state.gathering = spare;
            }
        }
    }

    /// Fills the end of `buffer`, which is to hold the place `at`, with what is here of it. Returns how many bytes of
    /// its beginning are in the file.
    pub(super) fn read(&self, at: FrameAt, buffer: &mut [u8]) -> usize {
        let state = self.state.lock();
        let end = u64::from(at.offset) + buffer.len() as u64;
        if state.segment != at.segment || state.len() == 0 || end <= state.start {
            return buffer.len();
        }
        let in_file = state.start.saturating_sub(u64::from(at.offset)) as usize;
        let mut skip = u64::from(at.offset).saturating_sub(state.start) as usize;
        let mut place = &mut buffer[in_file..];
        for part in [&state.leaving[..], &state.gathering[..]] {
            let (passed, part) = part.split_at(skip.min(part.len()));
            skip -= passed.len();
            let count = part.len().min(place.len());
            let (head, rest) = place.split_at_mut(count);
            head.copy_from_slice(&part[..count]);
            place = rest;
        }
        in_file
    }
}

impl State {
    fn len(&self) -> usize {
        self.leaving.len() + self.gathering.len()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::disk::Disk as _;
    use super::super::fault::FaultDisk;
    use super::*;

    #[test]
    fn every_place_reads_the_same_wherever_its_bytes_are() {
        let disk = FaultDisk::default();
        let file = disk.create(Path::new("/1")).unwrap();
        let all: Vec<u8> = (0..100).collect();
        file.write(&all[..30], 0).unwrap();
        let pending = Pending::default();
        let check = || {
            for from in 0..100u32 {
                for to in from..=100 {
                    let at = FrameAt {
                        segment: 1,
                        offset: from,
                        len: to - from,
                    };
                    let mut buffer = vec![0xff; at.len as usize];
                    let in_file = pending.read(at, &mut buffer);
                    if in_file > 0 {
                        file.read(&mut buffer[..in_file], u64::from(from)).unwrap();
                    }
                    assert_eq!(buffer, all[from as usize..to as usize], "{from}..{to}");
                }
            }
        };
        pending.add(1, &file, 30, &all[30..55]);
        disk.set_capacity(Some(30));
        let full = pending.write(|_| {}).unwrap_err();
        assert_eq!(full.start, 30);
        assert!(pending.is_stuck());
        pending.add(1, &file, 55, &all[55..]);
        assert_eq!(pending.len(), 70);
        check();
        disk.set_capacity(None);
        pending.write(|_| {}).unwrap();
        assert_eq!((pending.len(), pending.is_stuck()), (0, false));
        check();
    }

    #[test]
    fn another_segment_has_nothing_here() {
        let disk = FaultDisk::default();
        let file = disk.create(Path::new("/2")).unwrap();
        let pending = Pending::default();
        pending.add(2, &file, 0, &[7; 10]);
        let mut buffer = [0; 10];
        let at = FrameAt {
            segment: 1,
            offset: 0,
            len: 10,
        };
        assert_eq!(pending.read(at, &mut buffer), 10);
        assert_eq!(buffer, [0; 10]);
    }
}
