//! Reading a journal back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::broker::log::fault::{Cut, FaultDisk};
use crate::broker::log::{
    Damage, Disk, FrameAt, Frames, Header, Journal, JournalOptions, Kind, Meta, Piece, Run, Visitor,
    put_pieces, put_run,
};

/// Nothing panics; nothing is invented; what was synced and is not damaged is found; a second time finds the same.
pub fn run(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else {
        return;
    };
    let mut script = Script::default();
    if mode % 4 == 0 {
        script.raw(rest);
    } else {
        script.play(rest);
    }
    let found = recover(&script.disk);
    for (base, payload) in &found.batches {
        if mode % 4 != 0 {
            assert_eq!(script.written.get(base), Some(payload), "invented: {base}");
        }
    }
    for base in &script.certain {
        assert!(found.holds(*base), "lost: {base}");
    }
    if script.certain.is_empty() {
        // Of a segment that is damaged, and whose successor is damaged, nobody knows that it was finished.
        return;
    }
    let again = recover(&script.disk);
    assert_eq!(found.batches, again.batches, "not the same a second time");
    assert_eq!(found.runs, again.runs, "not the same a second time");
}

fn recover(disk: &FaultDisk) -> Found {
    let options = JournalOptions {
        directory: PathBuf::from("/d"),
        broker: "a".to_owned(),
        segment_bytes: 64 << 10,
        disk: Arc::new(disk.clone()),
        counters: Arc::default(),
    };
    let mut found = Found::default();
    Journal::recover(options, &mut found).expect("a disk that works can be read");
    found
}

#[derive(Debug, Default)]
struct Found {
    batches: BTreeMap<u64, Vec<u8>>,
    runs: Vec<Run>,
}

impl Found {
    fn holds(&self, base: u64) -> bool {
        self.batches.contains_key(&base) || self.runs.iter().any(|run| run.base <= base && base < run.end())
    }
}

impl Visitor for Found {
    fn record(&mut self, _at: FrameAt, header: &Header, payload: &[u8]) {
        if header.meta.kind == Kind::Batch {
            self.batches.insert(header.meta.base, payload.to_vec());
        }
    }

    fn runs(&mut self, runs: Vec<(u32, Run)>) {
        self.runs.extend(runs.into_iter().map(|(_, run)| run));
    }

    fn damage(&mut self, _damage: &Damage) {}
}

/// A journal that is written as the input says.
#[derive(Default)]
struct Script {
    disk: FaultDisk,
    written: BTreeMap<u64, Vec<u8>>,
    /// Batches that must be found.
    certain: Vec<u64>,
    pieces: Vec<Piece>,
}

impl Script {
    /// The input is a segment; a second one where it is long.
    fn raw(&mut self, data: &[u8]) {
        for (number, part) in data.chunks(4096).take(3).enumerate() {
            let file = self.disk.create(&path(number as u32 + 1)).expect("it works");
            file.write(part, 0).expect("it works");
        }
        self.disk = self.disk.restart(Cut::Kept);
    }

    fn play(&mut self, data: &[u8]) {
        let (mut segment, mut end, mut durable) = (0, 0u64, 0u64);
        let mut next = 0u64;
        let mut frames = Frames::default();
        let mut damaged = false;
        let mut bytes = data.iter().copied();
        let mut file = None;
        for _ in 0..60 {
            let (Some(what), Some(size)) = (bytes.next(), bytes.next()) else {
                break;
            };
            if file.is_none() || what % 8 == 6 {
                // The segment is finished: its index, its end, and a sync.
                if let Some(file) = file.take() {
                    let file: &Arc<dyn crate::broker::log::DiskFile> = &file;
                    end = self.footer(&mut frames, &**file, (segment, end, durable));
                    file.resize(end).expect("it works");
                    file.sync_all().expect("it works");
                }
                self.pieces.clear();
                let (before, before_end) = (segment, end);
                segment += 1;
                let new = self.disk.create(&path(segment)).expect("it works");
                frames.begin(segment, 0, 0, 1);
                frames.push(meta(Kind::Checkpoint, before_end, before), |_| {});
                new.write(frames.bytes(), 0).expect("it works");
                (end, durable) = (frames.bytes().len() as u64, 0);
                file = Some(new);
            }
            let Some(file) = &file else { break };
            match what % 8 {
                0..=5 => {
                    // A group of batches; then a sync, which only the next group's headers know of.
                    frames.begin(segment, end as u32, durable as u32, 1);
                    for _ in 0..=what / 64 {
                        let payload = vec![next as u8; usize::from(size) * 3];
                        let at =
                            frames.push(meta(Kind::Batch, next, 1), |out| out.extend_from_slice(&payload));
                        self.pieces.push(Piece {
                            base: next,
                            count: 1,
                            at,
                            timestamp: 1,
                        });
                        self.written.insert(next, payload);
                        next += 1;
                    }
                    file.write(frames.bytes(), end).expect("it works");
                    end += frames.bytes().len() as u64;
                    if what % 8 < 5 {
                        file.sync().expect("it works");
                        durable = end;
                        self.certain = self.written.keys().copied().collect();
                    }
                }
                7 => {
                    let contents = self.disk.contents();
                    let paths: Vec<_> = contents.keys().collect();
                    let path = paths[usize::from(size) % paths.len()];
                    let place = usize::from(bytes.next().unwrap_or(0)) * 31;
                    if let Some(byte) = contents[path].len().checked_sub(1).map(|last| place % (last + 1)) {
                        self.disk.flip(path, byte, what / 8);
                        damaged = true;
                    }
                }
                _ => {}
            }
        }
        if damaged {
            self.certain.clear();
        }
        let seed = u64::from(bytes.next().unwrap_or(0));
        let cut = match seed % 4 {
            0 => Cut::Lost,
            1 => Cut::Kept,
            2 => Cut::Torn(usize::from(bytes.next().unwrap_or(0)) * 7),
            _ => Cut::Random(seed),
        };
        self.disk = self.disk.restart(cut);
    }

    fn footer(
        &self,
        frames: &mut Frames,
        file: &dyn crate::broker::log::DiskFile,
        (segment, end, durable): (u32, u64, u64),
    ) -> u64 {
        frames.begin(segment, end as u32, durable as u32, 1);
        let at = frames.push(meta(Kind::Pieces, 0, 0), |out| put_pieces(out, &self.pieces));
        let run = Run::of(&self.pieces, at);
        let list = frames.push(meta(Kind::Runs, 0, 0), |out| {
            if let Some(run) = run {
                put_run(out, 1, &run);
            }
        });
        frames.push(meta(Kind::Footer, u64::from(list.offset), 0), |_| {});
        file.write(frames.bytes(), end).expect("it works");
        end + frames.bytes().len() as u64
    }
}

fn meta(kind: Kind, base: u64, count: u32) -> Meta {
    Meta {
        kind,
        entry: 1,
        base,
        count,
        timestamp: 1,
    }
}

fn path(number: u32) -> PathBuf {
    Path::new("/d").join(format!("{number:06}.log"))
}
