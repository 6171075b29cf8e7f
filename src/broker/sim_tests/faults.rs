//! What went wrong in a run, and what else there was in it, counted.

/// How often each thing happened.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) kills: u32,
    pub(super) power_cuts: u32,
    pub(super) failed_recoveries: u32,
    pub(super) failed_syncs: u32,
    pub(super) full_disks: u32,
    pub(super) segments: u32,
    /// Times that brokers did not reach each other.
    pub(super) partings: u32,
    pub(super) moves: u32,
    pub(super) copies: u32,
    /// Segments that compaction emptied.
    pub(super) emptied: u32,
    pub(super) letters: u32,
    /// Runs with durability in memory.
    pub(super) in_memory: u32,
    /// Runs in which what all groups have done is taken away, those in which it goes by size, and by age.
    pub(super) work_queues: u32,
    pub(super) bounded: u32,
    pub(super) aging: u32,
    /// Messages that retention took away.
    pub(super) removed: u64,
}

impl Faults {
    pub(super) fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.failed_recoveries += other.failed_recoveries;
        self.failed_syncs += other.failed_syncs;
        self.full_disks += other.full_disks;
        self.segments += other.segments;
        self.partings += other.partings;
        self.moves += other.moves;
        self.copies += other.copies;
        self.emptied += other.emptied;
        self.letters += other.letters;
        self.in_memory += other.in_memory;
        self.work_queues += other.work_queues;
        self.bounded += other.bounded;
        self.aging += other.aging;
        self.removed += other.removed;
    }
}
