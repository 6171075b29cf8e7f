//! How long recovery takes, by the size of the journal, with and without the indexes of its segments.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::broker::log::{
    Checkpoint, Damage, FrameAt, Frames, Header, Journal, JournalOptions, Kind, Meta, Op, Piece, RealDisk,
    Run, Visitor, put_pieces, put_run,
};

const SEGMENT: u64 = 64 << 20;
const PAYLOAD: usize = 4 << 10;
const ENTRIES: u32 = 64;

/// Writes journals of these sizes in MiB into a new directory there, one after the other, and opens each of them twice.
///
/// # Errors
/// What the system says.
pub fn recovery(directory: &Path, sizes: &[u64]) -> Result<(), String> {
    println!("| MiB | segments | records | with indexes, ms | scanned, ms |\n|---|---|---|---|---|");
    for &size in sizes {
        let path = directory.join("sluice-recovery.tmp");
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let result = one(&path, size);
        std::fs::remove_dir_all(&path).map_err(|error| error.to_string())?;
        result?;
    }
    Ok(())
}

fn one(path: &Path, size: u64) -> Result<(), String> {
    let state = Arc::new(State::default());
    let journal =
        Journal::recover(options(path), &mut Seen::default())?.start(Arc::<State>::clone(&state))?;
    journal.set_fsync(false);
    let records = (size << 20) / (PAYLOAD as u64 + 56);
    for n in 0..records {
        let batch = Batch {
            base: n / u64::from(ENTRIES),
            entry: (n % u64::from(ENTRIES)) as u32,
            state: Arc::clone(&state),
            piece: None,
        };
        journal.submit(Box::new(batch));
        if n % 4096 == 0 {
            // So that not all of it waits in memory.
            while *state.committed.lock() + 8192 < n {
                std::thread::yield_now();
            }
        }
    }
    journal.close();
    drop(journal);
    let (indexed, segments) = open(path, records)?;
    cut_indexes(path).map_err(|error| error.to_string())?;
    let (scanned, _) = open(path, records)?;
    println!("| {size} | {segments} | {records} | {indexed:.1} | {scanned:.1} |");
    Ok(())
}

/// Milliseconds, and segments.
fn open(path: &Path, records: u64) -> Result<(f64, usize), String> {
    let began = Instant::now();
    let mut seen = Seen::default();
    let recovered = Journal::recover(options(path), &mut seen)?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    drop(recovered);
    if seen.0 != records {
        return Err(format!("{} of {records} records were found", seen.0));
    }
    let segments = std::fs::read_dir(path).map_err(|error| error.to_string())?;
    Ok((took, segments.count() - 2))
}

/// Takes the last record of each finished segment away, so that it has no index.
fn cut_indexes(path: &Path) -> std::io::Result<()> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(path)?
        .filter_map(|item| Some(item.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    paths.pop();
    for path in paths {
        let file: File = OpenOptions::new().write(true).open(path)?;
        file.set_len(file.metadata()?.len() - 56)?;
    }
    Ok(())
}

fn options(path: &Path) -> JournalOptions {
    JournalOptions {
        directory: path.to_owned(),
        broker: "a".to_owned(),
        segment_bytes: SEGMENT,
        disk: Arc::new(RealDisk),
        counters: Arc::default(),
    }
}

#[derive(Default)]
struct State {
    pieces: Mutex<Vec<(u32, Piece)>>,
    committed: Mutex<u64>,
}

impl Checkpoint for State {
    fn write(&self, _out: &mut Vec<u8>) {}

    fn index(&self, _segment: u32, frames: &mut Frames) -> u32 {
        let all = std::mem::take(&mut *self.pieces.lock());
        let mut list = Vec::new();
        for entry in 0..ENTRIES {
            let pieces: Vec<_> = all
                .iter()
                .filter(|(of, _)| *of == entry)
                .map(|(_, piece)| *piece)
                .collect();
            let at = frames.push(meta(Kind::Pieces, entry, 0), |out| put_pieces(out, &pieces));
            if let Some(run) = Run::of(&pieces, at) {
                put_run(&mut list, entry, &run);
            }
        }
        frames
            .push(meta(Kind::Runs, 0, 0), |out| out.extend_from_slice(&list))
            .offset
    }

    fn indexed(&self) {}
}

fn meta(kind: Kind, entry: u32, base: u64) -> Meta {
    Meta {
        kind,
        entry,
        base,
        count: 1,
        timestamp: 1,
    }
}

struct Batch {
    base: u64,
    entry: u32,
    state: Arc<State>,
    piece: Option<Piece>,
}

impl Op for Batch {
    fn size(&self) -> usize {
        PAYLOAD + 64
    }

    fn prepare(&mut self, frames: &mut Frames) {
        let at = frames.push(meta(Kind::Batch, self.entry, self.base), |out| {
            out.resize(out.len() + PAYLOAD, self.base as u8);
        });
        self.piece = Some(Piece {
            base: self.base,
            count: 1,
            at,
            timestamp: 1,
        });
    }

    fn commit(self: Box<Self>) {
        self.state
            .pieces
            .lock()
            .extend(self.piece.map(|piece| (self.entry, piece)));
        *self.state.committed.lock() += 1;
    }

    fn abort(self: Box<Self>, _prepared: bool, why: &str) {
        eprintln!("not written: {why}");
    }
}

/// Records that were found.
#[derive(Default)]
struct Seen(u64);

impl Visitor for Seen {
    fn record(&mut self, _at: FrameAt, header: &Header, _payload: &[u8]) {
        self.0 += u64::from(header.meta.kind == Kind::Batch);
    }

    fn runs(&mut self, runs: Vec<(u32, Run)>) {
        self.0 += runs.iter().map(|(_, run)| u64::from(run.count)).sum::<u64>();
    }

    fn damage(&mut self, damage: &Damage) {
        eprintln!("damaged: {damage:?}");
    }
}
