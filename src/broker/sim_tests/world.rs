//! The broker under simulation: the store of this boot, the disk under it, and its death and rebirth.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use futures::future::{Either, select};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use super::history::{History, Id};
use super::scheduler::turns;
use super::{GROUPS, PARTITIONS};
use crate::broker::core_tests::support::{chain_entry, configuration, options, topic};
use crate::broker::log::Stepped;
use crate::broker::log::fault::{Cut, FaultDisk};
use crate::broker::store::Store;

/// How often each thing happened.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) kills: u32,
    pub(super) power_cuts: u32,
    pub(super) failed_recoveries: u32,
    pub(super) failed_syncs: u32,
    pub(super) full_disks: u32,
    pub(super) segments: u32,
}

impl Faults {
    pub(super) fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.failed_recoveries += other.failed_recoveries;
        self.failed_syncs += other.failed_syncs;
        self.full_disks += other.full_disks;
        self.segments += other.segments;
    }
}

/// What part of the run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Publishing, consuming, and faults.
    Storm,
    /// No more new messages; what was begun is brought to its end.
    Settling,
    /// No more faults but those of the end; consumers acknowledge everything.
    Draining,
    /// Done.
    Over,
}

/// Everything that the tasks share.
pub(super) struct World {
    pub(super) history: Arc<History>,
    random: RefCell<StdRng>,
    /// The number of the boot; grows when the broker dies.
    boot: watch::Sender<u64>,
    store: RefCell<Option<Arc<Store>>>,
    stepped: RefCell<Option<Stepped>>,
    disk: RefCell<FaultDisk>,
    stage: watch::Sender<Stage>,
    /// Publishers that have not come to their end.
    pub(super) publishing: Cell<u32>,
    faults: Cell<Faults>,
}

impl World {
    pub(super) fn start(seed: u64) -> Rc<Self> {
        let world = Rc::new(Self {
            history: Arc::new(History::logical()),
            random: RefCell::new(StdRng::seed_from_u64(seed)),
            boot: watch::Sender::new(0),
            store: RefCell::new(None),
            stepped: RefCell::new(None),
            disk: RefCell::new(FaultDisk::default()),
            stage: watch::Sender::new(Stage::Storm),
            publishing: Cell::new(0),
            faults: Cell::new(Faults::default()),
        });
        world.open().unwrap();
        world
    }

    /// A number below this one.
    pub(super) fn below(&self, end: u32) -> u32 {
        self.random.borrow_mut().random_range(0..end)
    }

    /// Lets the others go first, at most so many times.
    pub(super) async fn pause(&self, most: u32) {
        turns(self.below(most + 1)).await;
    }

    pub(super) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    pub(super) fn is_over(&self) -> bool {
        self.stage() == Stage::Over
    }

    pub(super) fn faults(&self) -> Faults {
        self.faults.get()
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Faults)) {
        let mut faults = self.faults.get();
        count(&mut faults);
        self.faults.set(faults);
    }

    pub(super) fn disk(&self) -> FaultDisk {
        self.disk.borrow().clone()
    }

    /// The store and the number of its boot.
    pub(super) fn store(&self) -> (Arc<Store>, u64) {
        let store = self.store.borrow().clone().expect("it is opened again at once");
        (store, *self.boot.borrow())
    }

    pub(super) fn boots(&self) -> u64 {
        *self.boot.borrow()
    }

    /// The outcome, or `None` if the broker died before: nobody answers any more.
    pub(super) async fn alive<T>(&self, boot: u64, what: impl Future<Output = T>) -> Option<T> {
        let mut boots = self.boot.subscribe();
        let died = Box::pin(async move { _ = boots.wait_for(|now| *now != boot).await });
        match select(died, Box::pin(what)).await {
            Either::Left(_) => None,
            Either::Right((outcome, _)) => Some(outcome),
        }
    }

    fn open(&self) -> Result<(), String> {
        let mut options = options(Path::new("/sluice"), "a");
        options.segment_bytes = 16 << 10;
        let disk = Arc::new(self.disk());
        let opening = || Store::open_stepped(options, Arc::default(), disk);
        let opened = catch_unwind(AssertUnwindSafe(opening)).map_err(|_| "the disk failed".to_owned())?;
        let (store, stepped) = opened?;
        let chains = vec![vec![chain_entry(1, "a", None)]; PARTITIONS];
        store.configure(&configuration("a", 1, vec![topic("orders", chains)]))?;
        *self.store.borrow_mut() = Some(store);
        *self.stepped.borrow_mut() = Some(stepped);
        Ok(())
    }

    /// The process is gone, and its disk is found as `cut` says. It starts again, if need be several times.
    pub(super) fn die(&self, cut: Cut) {
        *self.stepped.borrow_mut() = None;
        *self.store.borrow_mut() = None;
        let mut cut = cut;
        loop {
            let disk = self.disk().restart(cut);
            disk.set_capacity(None);
            *self.disk.borrow_mut() = disk.clone();
            let in_storm = self.stage() < Stage::Draining;
            if in_storm && self.below(5) == 0 {
                disk.cut_power_after(u64::from(self.below(4)));
            }
            if self.open().is_ok() && !disk.is_off() {
                break;
            }
            assert!(in_storm, "it does not start: {:?}", disk.failures());
            self.count(|faults| faults.failed_recoveries += 1);
            cut = self.any_cut();
        }
        let boot = *self.boot.borrow() + 1;
        self.boot.send_replace(boot);
    }

    /// What a power cut leaves.
    pub(super) fn any_cut(&self) -> Cut {
        match self.below(8) {
            0 => Cut::Lost,
            1 => Cut::Kept,
            2 => Cut::Torn(self.below(600) as usize),
            _ => Cut::Random(self.random.borrow_mut().random()),
        }
    }

    /// Does a step of the journal's writer. Where the disk fails under it, the process ends, as it would.
    fn step(&self, step: impl FnOnce(&mut Stepped)) {
        let Some(mut stepped) = self.stepped.borrow_mut().take() else {
            return;
        };
        let done = catch_unwind(AssertUnwindSafe(|| step(&mut stepped)));
        // Without power nobody goes on, also where the writer could have lived with what the disk said.
        if done.is_ok() && !self.disk().is_off() {
            *self.stepped.borrow_mut() = Some(stepped);
            return;
        }
        drop(stepped);
        self.count(|faults| faults.power_cuts += 1);
        let cut = self.any_cut();
        self.die(cut);
    }

    /// Acknowledged messages that some group has not finished.
    pub(super) fn unfinished(&self) -> HashSet<Id> {
        GROUPS
            .iter()
            .flat_map(|group| self.history.unfinished(group))
            .collect()
    }

    pub(super) fn situation(&self) -> String {
        format!(
            "{:?}, boot {}, {} publishing, {} acknowledged, {} unfinished",
            self.stage(),
            self.boots(),
            self.publishing.get(),
            self.history.acked(),
            self.unfinished().len(),
        )
    }
}

/// The journal's writer: takes what waits, writes it, and some time later makes it durable and says so.
pub(super) async fn write_journal(world: Rc<World>) {
    loop {
        world.pause(6).await;
        world.step(Stepped::write);
        world.pause(6).await;
        world.step(Stepped::commit);
        if world.below(8) == 0 {
            world.step(Stepped::idle);
        }
        turns(1).await;
    }
}
