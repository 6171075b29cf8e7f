//! The brokers under simulation: the store of each one's boot, the disk under it, and its death and rebirth; and what
//! the operator wants of them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use futures::future::{Either, select};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::faults::Faults;
use super::history::{History, Id};
use super::scheduler::turns;
use super::{GROUPS, PARTITIONS, PLACES};
use crate::broker::clock;
use crate::broker::core_tests::support::{Wire, chain_entry, configuration, entry, options, topic};
use crate::broker::log::Stepped;
use crate::broker::log::fault::{Cut, FaultDisk};
use crate::broker::store::{Dead, EntryId, Partition, Store};
use crate::pb;

/// The brokers' names.
pub(super) const BROKERS: [&str; 2] = ["a", "b"];

/// The broker that has an entry.
pub(super) fn holder(link: &pb::ChainEntry) -> usize {
    let broker = BROKERS.iter().position(|name| *name == link.brokers[0]);
    broker.unwrap()
}

/// An entry of a place: of the topic's partitions, or after them of the dead-letter topic's only one.
pub(super) fn entry_id(place: usize, epoch: u64) -> EntryId {
    if place < PARTITIONS {
        return entry(place as u32, epoch);
    }
    EntryId {
        topic: DEAD.to_owned(),
        ..entry((place - PARTITIONS) as u32, epoch)
    }
}

/// The partition of a place at a broker.
pub(super) fn partition(store: &Store, place: usize) -> Arc<Partition> {
    let id = entry_id(place, 0);
    store.topic(&id.topic).unwrap().partitions[id.partition as usize].clone()
}

/// The dead-letter topic.
pub(super) const DEAD: &str = "dead";

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

/// One broker.
struct Broker {
    /// The number of the boot; grows when it dies.
    boot: watch::Sender<u64>,
    store: RefCell<Option<Arc<Store>>>,
    stepped: RefCell<Option<Stepped>>,
    /// What is to be buried.
    dying: RefCell<Option<UnboundedReceiver<Dead>>>,
    disk: RefCell<FaultDisk>,
}

/// What the operator wants: it never dies here, and what it knows is durable.
pub(super) struct Plan {
    pub(super) generation: u64,
    chains: Vec<Vec<pb::ChainEntry>>,
    pub(super) retention: pb::Retention,
}

/// Everything that the tasks share.
pub(super) struct World {
    pub(super) history: Arc<History>,
    random: RefCell<StdRng>,
    brokers: [Broker; BROKERS.len()],
    pub(super) plan: RefCell<Plan>,
    /// With `Memory` the power is never cut: what then is lost is as promised.
    durability: pb::Durability,
    max_deliveries: u32,
    /// How far entries were taken away, by place and epoch.
    pub(super) gone: RefCell<BTreeMap<(usize, u64), u64>>,
    /// When the publishing of what lies at an offset of a partition began.
    pub(super) published: RefCell<HashMap<(u32, u64), u64>>,
    /// What went by its age, and was not so old.
    pub(super) too_young: RefCell<Vec<(u32, u64)>>,
    /// How the brokers reach each other.
    pub(super) wire: Arc<Wire>,
    stage: watch::Sender<Stage>,
    /// Publishers and moves that have not come to their end.
    pub(super) working: Cell<u32>,
    faults: Cell<Faults>,
}

impl World {
    pub(super) fn start(seed: u64) -> Rc<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let durability = match random.random_range(0..4) {
            0 => pb::Durability::Memory,
            _ => pb::Durability::Fsync,
        };
        let max_deliveries = random.random_range(2..6);
        let broker = |_| Broker {
            boot: watch::Sender::new(0),
            store: RefCell::new(None),
            stepped: RefCell::new(None),
            dying: RefCell::new(None),
            disk: RefCell::new(FaultDisk::default()),
        };
        let world = Rc::new(Self {
            history: Arc::new(History::logical()),
            random: RefCell::new(random),
            brokers: BROKERS.map(broker),
            plan: RefCell::new(Plan {
                generation: 1,
                chains: vec![vec![chain_entry(1, BROKERS[0], None)]; PLACES],
                retention: pb::Retention::default(),
            }),
            durability,
            max_deliveries,
            gone: RefCell::default(),
            published: RefCell::default(),
            too_young: RefCell::default(),
            wire: Arc::default(),
            stage: watch::Sender::new(Stage::Storm),
            working: Cell::new(0),
            faults: Cell::new(Faults::default()),
        });
        for broker in 0..BROKERS.len() {
            world.open(broker).unwrap();
        }
        world.count(|faults| faults.in_memory = u32::from(durability == pb::Durability::Memory));
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

    pub(super) fn disk(&self, broker: usize) -> FaultDisk {
        self.brokers[broker].disk.borrow().clone()
    }

    /// A broker's store and the number of its boot.
    pub(super) fn store(&self, broker: usize) -> (Arc<Store>, u64) {
        let store = self.brokers[broker].store.borrow().clone();
        let store = store.expect("it is opened again at once");
        (store, self.boots(broker))
    }

    pub(super) fn stores(&self) -> Vec<Arc<Store>> {
        (0..BROKERS.len()).map(|broker| self.store(broker).0).collect()
    }

    pub(super) fn boots(&self, broker: usize) -> u64 {
        *self.brokers[broker].boot.borrow()
    }

    /// Any broker.
    pub(super) fn some_broker(&self) -> usize {
        self.below(BROKERS.len() as u32) as usize
    }

    /// The outcome, or `None` if the broker died before: nobody answers any more.
    pub(super) async fn alive<T>(
        &self,
        broker: usize,
        boot: u64,
        what: impl Future<Output = T>,
    ) -> Option<T> {
        let mut boots = self.brokers[broker].boot.subscribe();
        let died = Box::pin(async move { _ = boots.wait_for(|now| *now != boot).await });
        match select(died, Box::pin(what)).await {
            Either::Left(_) => None,
            Either::Right((outcome, _)) => Some(outcome),
        }
    }

    /// A partition's chain, as the operator wants it.
    pub(super) fn chain(&self, partition: usize) -> Vec<pb::ChainEntry> {
        self.plan.borrow().chains[partition].clone()
    }

    /// Whoever takes messages of a partition.
    pub(super) fn owner(&self, partition: usize) -> usize {
        let plan = self.plan.borrow();
        holder(plan.chains[partition].last().unwrap())
    }

    /// The operator wants another chain.
    pub(super) fn want(&self, partition: usize, change: impl FnOnce(&mut Vec<pb::ChainEntry>)) {
        let mut plan = self.plan.borrow_mut();
        plan.generation += 1;
        change(&mut plan.chains[partition]);
    }

    /// A broker hears what is wanted now.
    pub(super) fn configure(&self, broker: usize) {
        let (store, _) = self.store(broker);
        store.configure(&self.wanted(broker)).unwrap();
    }

    fn wanted(&self, broker: usize) -> pb::Configuration {
        let plan = self.plan.borrow();
        let (orders, dead) = plan.chains.split_at(PARTITIONS);
        let mut orders = topic("orders", orders.to_vec());
        orders.max_deliveries = self.max_deliveries;
        orders.dead_letter_topic = DEAD.to_owned();
        orders.retention = Some(plan.retention);
        let topics = vec![orders, topic(DEAD, dead.to_vec())];
        pb::Configuration {
            durability: self.durability as i32,
            ..configuration(BROKERS[broker], plan.generation, topics)
        }
    }

    fn open(&self, broker: usize) -> Result<(), String> {
        let mut options = options(Path::new("/sluice"), BROKERS[broker]);
        options.segment_bytes = 16 << 10;
        let disk = Arc::new(self.disk(broker));
        let opening = || Store::open_stepped(options, Arc::default(), disk);
        let opened = catch_unwind(AssertUnwindSafe(opening)).map_err(|_| "the disk failed".to_owned())?;
        let (store, stepped, dying) = opened?;
        self.wire.join(BROKERS[broker], &store);
        store.configure(&self.wanted(broker))?;
        let broker = &self.brokers[broker];
        *broker.store.borrow_mut() = Some(store);
        *broker.stepped.borrow_mut() = Some(stepped);
        *broker.dying.borrow_mut() = Some(dying);
        Ok(())
    }

    /// A broker's process is gone, and its disk is found as `cut` says. It starts again, if need be several times.
    pub(super) fn die(&self, broker: usize, cut: Cut) {
        *self.brokers[broker].stepped.borrow_mut() = None;
        *self.brokers[broker].store.borrow_mut() = None;
        let mut cut = cut;
        loop {
            let disk = self.disk(broker).restart(cut);
            disk.set_capacity(None);
            *self.brokers[broker].disk.borrow_mut() = disk.clone();
            let in_storm = self.stage() < Stage::Draining;
            if in_storm && self.below(5) == 0 {
                disk.cut_power_after(u64::from(self.below(4)));
            }
            if self.open(broker).is_ok() && !disk.is_off() {
                break;
            }
            assert!(in_storm, "it does not start: {:?}", disk.failures());
            self.count(|faults| faults.failed_recoveries += 1);
            cut = self.any_cut();
        }
        let boot = self.boots(broker) + 1;
        self.brokers[broker].boot.send_replace(boot);
    }

    /// What is lost at the worst.
    pub(super) fn worst_cut(&self) -> Cut {
        match self.durability {
            pb::Durability::Memory => Cut::Kept,
            _ => Cut::Lost,
        }
    }

    /// What the broker is to bury that it has not begun with.
    pub(super) fn take_dying(&self, broker: usize) -> Vec<Dead> {
        let mut dying = self.brokers[broker].dying.borrow_mut();
        let next = || dying.as_mut().and_then(|dying| dying.try_recv().ok());
        std::iter::from_fn(next).collect()
    }

    /// What a power cut leaves.
    pub(super) fn any_cut(&self) -> Cut {
        if self.durability == pb::Durability::Memory {
            return Cut::Kept;
        }
        match self.below(8) {
            0 => Cut::Lost,
            1 => Cut::Kept,
            2 => Cut::Torn(self.below(600) as usize),
            _ => Cut::Random(self.random.borrow_mut().random()),
        }
    }

    /// Does a step of a journal's writer.
    fn step(&self, broker: usize, step: impl FnOnce(&mut Stepped)) {
        let Some(mut stepped) = self.brokers[broker].stepped.borrow_mut().take() else {
            return;
        };
        let outlived = self.outlives(broker, || {
            step(&mut stepped);
            self.look_what_is_gone(broker);
        });
        if outlived {
            *self.brokers[broker].stepped.borrow_mut() = Some(stepped);
        }
    }

    /// What a broker does every few seconds, but for compaction, which takes a while.
    pub(super) fn retain(&self, broker: usize) {
        let (store, _) = self.store(broker);
        self.outlives(broker, || {
            store.trim_all();
            store.delete_segments();
            store.scrub();
        });
    }

    /// False where the disk fails under it: then the process ends, as it would.
    fn outlives(&self, broker: usize, what: impl FnOnce()) -> bool {
        let done = catch_unwind(AssertUnwindSafe(what));
        // Without power nobody goes on, also where the broker could have lived with what the disk said.
        if done.is_ok() && !self.disk(broker).is_off() {
            return true;
        }
        self.count(|faults| faults.power_cuts += 1);
        let cut = self.any_cut();
        self.die(broker, cut);
        false
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
            "{:?}, boots {:?}, {} at work, {} acknowledged, {} unfinished, {:?}; {:?}",
            self.stage(),
            [0, 1].map(|broker| self.boots(broker)),
            self.working.get(),
            self.history.acked(),
            self.unfinished().len(),
            self.plan.borrow().chains,
            self.stores()
                .iter()
                .flat_map(|store| store.topic("orders").unwrap().partitions)
                .map(|partition| partition.view().problem.clone())
                .collect::<Vec<_>>(),
        )
    }
}

/// Empties segments in which little is left, again and again.
pub(super) async fn compact(world: Rc<World>, broker: usize) {
    loop {
        world.pause(300).await;
        turns(1).await;
        let (store, boot) = world.store(broker);
        let emptied = world.alive(broker, boot, store.compact()).await;
        world.count(|faults| faults.emptied += emptied.unwrap_or(0));
    }
}

/// A journal's writer: takes what waits, writes it, and some time later makes it durable and says so. And what the broker
/// looks after every few seconds.
pub(super) async fn write_journal(world: Rc<World>, broker: usize) {
    loop {
        world.pause(6).await;
        world.step(broker, Stepped::write);
        world.pause(6).await;
        world.step(broker, Stepped::commit);
        if world.below(8) == 0 {
            world.step(broker, Stepped::idle);
        }
        if world.below(40) == 0 {
            world.retain(broker);
        }
        clock::stopped::advance(u64::from(world.below(4)));
        turns(1).await;
    }
}
