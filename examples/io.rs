//! Compares ways to make a group commit durable, on the disk that it is pointed at.
//!
//! `cargo run --release --example io -- DIRECTORY [SECONDS]` writes at most 256 MiB there, in turn with each way and
//! size, for so long each (default 1), and prints a table. Commits are written one after the other by one thread, as
//! the journal's writer does.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

const FILE: u64 = 64 << 20;
const SIZES: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// How the file was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// Empty: each commit makes it longer.
    Empty,
    /// `fallocate`: its blocks are there and were never written.
    Fallocated,
    /// Zeros were written and synced, as ahead of the journal's end or in a recycled segment.
    Written,
}

/// How a commit is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `pwrite`, then `fdatasync`.
    Fdatasync,
    /// `pwrite` to a file opened with `O_DIRECT | O_DSYNC`.
    Direct,
    /// `io_uring`: a write and a linked `fdatasync`, one system call.
    Ring,
}

/// Memory that `O_DIRECT` takes.
struct Aligned {
    at: *mut u8,
    layout: Layout,
}

impl Aligned {
    #[allow(unsafe_code)]
    fn new(size: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(size, 4096).map_err(io::Error::other)?;
        // SAFETY: the size of the layout is not zero.
        let at = unsafe { alloc_zeroed(layout) };
        if at.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Self { at, layout })
    }

    #[allow(unsafe_code)]
    fn bytes(&self) -> &[u8] {
        // SAFETY: it was allocated with this size, is initialised, and nobody writes to it.
        unsafe { std::slice::from_raw_parts(self.at, self.layout.size()) }
    }
}

impl Drop for Aligned {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout.
        unsafe { dealloc(self.at, self.layout) }
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments
        .next()
        .ok_or_else(|| io::Error::other("name the directory to write in"))?;
    let seconds = arguments.next().map_or(Ok(1.0), |text| text.parse::<f64>());
    let time = Duration::from_secs_f64(seconds.map_err(io::Error::other)?.clamp(0.1, 60.0));
    println!("| way | file | size | commits | MB/s | p50 µs | p99 µs |\n|---|---|---|---|---|---|---|");
    for size in SIZES {
        for (way, made) in [
            (Way::Fdatasync, Made::Empty),
            (Way::Fdatasync, Made::Fallocated),
            (Way::Fdatasync, Made::Written),
            (Way::Direct, Made::Fallocated),
            (Way::Direct, Made::Written),
            (Way::Ring, Made::Written),
        ] {
            let path = Path::new(&directory).join("sluice-io.tmp");
            let result = measure(&path, way, made, size, time);
            std::fs::remove_file(&path)?;
            match result {
                Ok(mut took) => print(way, made, size, &mut took),
                Err(error) => println!("| {way:?} | {made:?} | {} K | {error} | | | |", size >> 10),
            }
        }
    }
    Ok(())
}

fn print(way: Way, made: Made, size: usize, took: &mut [Duration]) {
    took.sort_unstable();
    let total: Duration = took.iter().sum();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "| {way:?} | {made:?} | {} K | {} | {:.0} | {} | {} |",
        size >> 10,
        took.len(),
        (took.len() * size) as f64 / 1e6 / total.as_secs_f64(),
        at(0.5),
        at(0.99)
    );
}

fn measure(path: &Path, way: Way, made: Made, size: usize, time: Duration) -> io::Result<Vec<Duration>> {
    let file = make(path, made)?;
    let buffer = Aligned::new(size)?;
    let direct = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(path)?;
    let mut ring = (way == Way::Ring)
        .then(|| io_uring::IoUring::new(4))
        .transpose()?;
    let mut took = Vec::new();
    let began = Instant::now();
    let mut at = 0;
    while began.elapsed() < time {
        if at + size as u64 > FILE {
            if made != Made::Written {
                // Anything else would write where was written before.
                break;
            }
            at = 0;
        }
        let start = Instant::now();
        match (way, &mut ring) {
            (Way::Direct, _) => direct.write_all_at(buffer.bytes(), at)?,
            (Way::Ring, Some(ring)) => commit(ring, &file, buffer.bytes(), at)?,
            _ => {
                file.write_all_at(buffer.bytes(), at)?;
                file.sync_data()?;
            }
        }
        took.push(start.elapsed());
        at += size as u64;
    }
    Ok(took)
}

fn make(path: &Path, made: Made) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    match made {
        Made::Empty => {}
        Made::Fallocated => {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, FILE)?;
        }
        Made::Written => {
            for at in (0..FILE).step_by(1 << 20) {
                file.write_all_at(&vec![0; 1 << 20], at)?;
            }
        }
    }
    file.sync_all()?;
    Ok(file)
}

#[allow(unsafe_code)]
fn commit(ring: &mut io_uring::IoUring, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    use io_uring::{opcode, squeue, types};

    let fd = types::Fd(file.as_raw_fd());
    let write = opcode::Write::new(fd, bytes.as_ptr(), bytes.len() as u32)
        .offset(at)
        .build()
        .flags(squeue::Flags::IO_LINK);
    let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
    // SAFETY: file and bytes outlive both operations, which are waited for below.
    unsafe {
        ring.submission().push(&write).map_err(io::Error::other)?;
        ring.submission().push(&sync).map_err(io::Error::other)?;
    }
    ring.submit_and_wait(2)?;
    for done in ring.completion() {
        if done.result() < 0 {
            return Err(io::Error::from_raw_os_error(-done.result()));
        }
    }
    Ok(())
}
