//! Runs a plan: lives of the store, one after the other, each ended by a close, a crash or the plan's end.
//!
//! Between two boundaries the clients' operations run side by side on the seeded executor. At a boundary nothing is
//! under way: the history goes to the model, and where the plan says so everything is looked at.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use base::{ClusterId, DeviceId, SeededEntropy};
use disk::{AlignedBuf, BlockDevice};
use format::{Geometry, Label, ShardKey};
use futures::executor::block_on;
use shards::{FormatOptions, RecoveryReport, Store, StoreError, StoreHandle};
use simdisk::SimDisk;

use crate::client;
use crate::damage;
use crate::executor::{Executor, TaskId};
use crate::failure::{Failure, Law};
use crate::metered::Metered;
use crate::plan::{Op, Plan, Target};
use crate::shared::Shared;
use crate::tally::Tally;

/// Polls within which anything that a boundary waits for must end. The longest honest waves take a tenth of it: a
/// full device with pools of one and a checkpoint for every record.
const POLLS_MAX: u64 = 300_000;
/// Between the label and the first anchor ring: nothing of the store lies there.
const UNUSED_OFFSET: u64 = 8192;
/// Turns of a client in the scheduler's draw.
const CLIENT_WEIGHT: u64 = 4;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// What it did.
    pub tally: Tally,
    /// What it found.
    pub failure: Option<Failure>,
}

/// Runs `plan`; a panic inside is a failure like any other.
#[must_use]
pub fn run(plan: &Plan) -> Report {
    let mut world = World::new(plan);
    let shared = Rc::clone(&world.shared);
    let done = crate::guard::catch(AssertUnwindSafe(|| world.live(plan)));
    // A store in mid-panic may hold borrows: what is left of it is dropped under guard too.
    let dropped = crate::guard::catch(AssertUnwindSafe(|| drop(world)));
    let failure = match (done, dropped) {
        (Err(panic), _) | (_, Err(panic)) => Some(Failure::new(Law::Panic, panic)),
        (Ok(Err(failure)), Ok(())) => Some(failure),
        (Ok(Ok(())), Ok(())) => None,
    };
    let mut tally = shared.tally.try_borrow().map(|tally| tally.clone()).unwrap_or_default();
    tally.add("sequences", 1);
    tally.add("sequences on zoned devices", plan.config.zones.is_some().into());
    tally.add_faults(&shared.disk.borrow().injected());
    Report { tally, failure }
}

/// A store that is open.
pub(crate) struct Life {
    pub(crate) handle: StoreHandle,
    serve: TaskId,
}

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Down {
    Power,
    Process,
    /// Closed in order and well.
    Orderly,
}

pub(crate) struct World {
    pub(crate) shared: Rc<Shared>,
    pub(crate) exec: Executor,
    rng: SeededEntropy,
    pub(crate) label: Label,
    /// Keys to doubt at the next recovery, and those only if it does not start from the newest checkpoint.
    doubt_next: BTreeSet<ShardKey>,
    doubt_if_older: BTreeSet<ShardKey>,
    checkpoint_struck: bool,
    /// Failed flushes at the start of this life.
    flushes_failed: u64,
    /// The cut at a given operation has not come yet.
    cut_pending: bool,
    /// The next opening's first page is lost.
    lose_opening: bool,
    /// The last close went well and nothing was written since.
    closed_well: bool,
}

impl World {
    fn new(plan: &Plan) -> Self {
        let config = plan.config;
        let disk = crate::blank::device(&config, plan.seed ^ 0xd15c);
        let options = FormatOptions {
            cluster: ClusterId([1; 16]),
            device: DeviceId([2; 16]),
            salt: plan.seed as u32,
            now_ms: 0,
            extent_bytes: Some(config.extent_bytes),
        };
        let label = block_on(Store::format(&disk, &options)).expect("a fresh disk can be formatted");
        disk.set_faults(damage::usual_faults(config.slow_one_in));
        Self {
            shared: Rc::new(Shared::new(config, disk)),
            exec: Executor::new(plan.seed ^ 0xe8ec),
            rng: SeededEntropy::new(plan.seed ^ 0x4a11),
            label,
            doubt_next: BTreeSet::new(),
            doubt_if_older: BTreeSet::new(),
            checkpoint_struck: false,
            flushes_failed: 0,
            cut_pending: config.cut_at.is_some(),
            lose_opening: false,
            closed_well: false,
        }
    }

    fn live(&mut self, plan: &Plan) -> Result<(), Failure> {
        if let Some(cut) = plan.config.cut_at {
            self.disk().power_cut_after(cut);
        }
        let Some(mut life) = self.open(None)? else { return Ok(()) };
        let mut rest = plan.ops.as_slice();
        while !rest.is_empty() {
            let end = rest.iter().position(|(_, op)| op.is_boundary()).map_or(rest.len(), |at| at + 1);
            let (wave, after) = rest.split_at(end);
            rest = after;
            let Some(next) = self.wave(life, wave)? else { return Ok(()) };
            life = next;
        }
        crate::epilogue::finish(self, life)
    }

    pub(crate) fn disk(&self) -> SimDisk {
        self.shared.disk.borrow().clone()
    }

    /// One wave of operations and the boundary that ends it; gives the life that goes on, if one can.
    fn wave(&mut self, life: Life, wave: &[(u8, Op)]) -> Result<Option<Life>, Failure> {
        let boundary = wave.last().map(|(_, op)| *op).filter(Op::is_boundary);
        if let Some(Op::Crash(after, _)) = boundary
            && after < u8::MAX
        {
            self.disk().power_cut_after(u64::from(after));
        }
        let closing = matches!(boundary, Some(Op::Retire(_)));
        self.shared.armed.closing.set(closing);
        let ops = wave.iter().filter(|(_, op)| !op.is_boundary());
        let mut tasks: Vec<TaskId> = (0..self.shared.config.clients)
            .filter_map(|client| {
                let own: Vec<Op> = ops.clone().filter(|(of, _)| *of == client).map(|(_, op)| *op).collect();
                let task = client::run(Rc::clone(&self.shared), life.handle.clone(), own.clone());
                (!own.is_empty()).then(|| self.exec.spawn(&format!("client {client}"), CLIENT_WEIGHT, task))
            })
            .collect();
        let closed: Rc<RefCell<Option<Result<(), StoreError>>>> = Rc::default();
        if closing {
            let (handle, slot) = (life.handle.clone(), Rc::clone(&closed));
            // Light: most closes come when much of the wave is done.
            tasks.push(self.exec.spawn("close", 1, async move {
                let done = handle.close().await;
                *slot.borrow_mut() = Some(done);
            }));
        }
        let (shared, sudden) = (Rc::clone(&self.shared), self.shared.config.sudden);
        let ran = self.exec.run_until(&tasks, POLLS_MAX, || sudden && shared.is_gone());
        tasks.iter().for_each(|task| self.exec.kill(*task));
        self.shared.check()?;
        ran?;
        if self.shared.is_gone() {
            let given = self.shared.config.recovery_cut.filter(|_| self.cut_pending);
            return self.go_down(life, Down::Power, given.or(recovery_cut(boundary)));
        }
        self.shared.settle(Law::Linearizability);
        self.shared.check()?;
        match boundary {
            Some(Op::Retire(power)) => {
                let done = closed.borrow_mut().take().expect("the close was waited for");
                self.retired(life, power, done)
            }
            Some(Op::Crash(_, cut)) => self.go_down(life, Down::Power, cut),
            Some(Op::LoseOpening) => {
                self.lose_opening = true;
                self.go_down(life, Down::Power, None)
            }
            Some(Op::Kill) => self.go_down(life, Down::Process, None),
            _ => self.boundary_in_life(life, boundary),
        }
    }

    /// Looks and strikes; a poisoned store is then taken down.
    fn boundary_in_life(&mut self, life: Life, boundary: Option<Op>) -> Result<Option<Life>, Failure> {
        match boundary {
            Some(Op::Look) => self.look(&life, Law::Linearizability)?,
            Some(Op::Flip(target, settled)) => self.strike(&life, target, settled, false)?,
            Some(Op::BadSector(target, settled)) => self.strike(&life, target, settled, true)?,
            _ => {}
        }
        if self.shared.is_gone() {
            return self.go_down(life, Down::Power, None);
        }
        let stats = self.ask(&life, |store| async move { store.stats().await })?;
        match stats {
            // A cut that was pending came meanwhile.
            _ if self.shared.is_gone() => self.go_down(life, Down::Power, None),
            Ok(stats) if !stats.poisoned => Ok(Some(life)),
            Ok(_) if self.shared.armed.writes.get() => {
                let down = if self.rng.one_in(2) { Down::Power } else { Down::Process };
                self.go_down(life, down, None)
            }
            Ok(_) => Err(Failure::new(Law::UnexpectedError, "the store is poisoned and no write has failed")),
            Err(error) => Err(Failure::new(Law::UnexpectedError, format!("stats: {error}"))),
        }
    }

    /// Runs one request beside the store.
    pub(crate) fn ask<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        life: &Life,
        request: impl FnOnce(StoreHandle) -> F,
    ) -> Result<T, Failure> {
        let future = request(life.handle.clone());
        Ok(self.exec.block_on("request", POLLS_MAX, future)?)
    }

    fn retired(&mut self, life: Life, power: bool, done: Result<(), StoreError>) -> Result<Option<Life>, Failure> {
        match done {
            Ok(()) => {
                self.exec.run_until(&[life.serve], POLLS_MAX, || false)?;
                if power {
                    self.disk().crash();
                }
                self.shared.count("orderly closes");
                self.go_down(life, Down::Orderly, None)
            }
            Err(error) => {
                self.shared.judge_write("close", &error);
                self.shared.check()?;
                self.go_down(life, Down::Process, None)
            }
        }
    }

    /// Ends a life and begins the next.
    fn go_down(&mut self, life: Life, how: Down, cut: Option<u8>) -> Result<Option<Life>, Failure> {
        // After a failed flush the cache shows what the medium will never hold: the device is reset with its host.
        let flush_failed = self.disk().injected().failed_flushes > self.flushes_failed;
        let flush_pending = self.disk().injected().failed_flushes < self.shared.asked.flushes.get();
        let how = if flush_failed || flush_pending { Down::Power } else { how };
        let shared = Rc::clone(&self.shared);
        let cut_now = std::mem::take(&mut self.cut_pending) && shared.is_gone();
        cut_now.then(|| shared.count("cuts at a given operation"));
        // What was answered before the end is judged as usual; what was not is open.
        shared.settle(Law::Linearizability);
        shared.check()?;
        self.exec.kill(life.serve);
        drop(life);
        let (reclaiming, dumping) = (shared.reclaims_under_way.take() > 0, shared.checkpoints_under_way.take() > 0);
        if how == Down::Power {
            self.disk().crash();
            reclaiming.then(|| shared.count("probe: crash with reclaim under way"));
            dumping.then(|| shared.count("probe: crash with checkpoint under way"));
        }
        shared.model.borrow_mut().crash(reclaiming);
        self.closed_well = how == Down::Orderly && !shared.armed.wild.get() && !shared.armed.writes.get();
        shared.fault_seen.set(false);
        let power_gone = shared.is_gone();
        let lost = shared.armed.wild.get() || (shared.armed.lied.get() && power_gone);
        if lost {
            shared.damaged.set(true);
            let keys = shared.model.borrow().keys();
            self.doubt_next.extend(keys);
        }
        let next = self.disk().reopen();
        next.set_faults(damage::usual_faults(shared.config.slow_one_in));
        *shared.disk.borrow_mut() = next;
        let armed = &shared.armed;
        [&armed.writes, &armed.misdirected_reads, &armed.wild, &armed.closing].iter().for_each(|flag| flag.set(false));
        if !self.rng.one_in(3) {
            self.disarm_reads();
        }
        self.disarm_writes();
        self.flushes_failed = self.disk().injected().failed_flushes;
        if std::mem::take(&mut self.lose_opening) {
            damage::lose_writes(&shared, 2);
        }
        let Some(life) = self.open(cut)? else { return Ok(None) };
        self.disk().set_faults(damage::usual_faults(shared.config.slow_one_in));
        shared.armed.wild.set(shared.armed.wild_for_good.get());
        if !self.rng.one_in(4) {
            self.look(&life, Law::Persistence)?;
            if self.shared.is_gone() {
                return self.go_down(life, Down::Power, None);
            }
        }
        Ok(Some(life))
    }

    /// Takes read errors that were asked for and did not strike out of the way.
    pub(crate) fn disarm_reads(&mut self) {
        let disk = self.disk();
        while disk.injected().read_errors < self.shared.asked.reads.get() {
            let _ = block_on(disk.read(0, AlignedBuf::zeroed(4096)));
        }
        self.shared.armed.reads.set(false);
    }

    /// Write and flush errors die with the life they were asked for in; sectors gone bad are remapped.
    pub(crate) fn disarm_writes(&mut self) {
        let disk = self.disk();
        disk.set_good(0..self.label.geometry.size_bytes);
        if self.shared.config.zones.is_some() {
            // Every byte of a zone has its turn: there is none to write in vain.
            disk.call_off_failing_writes();
            self.shared.asked.writes.set(disk.injected().write_errors);
        }
        while disk.injected().write_errors < self.shared.asked.writes.get() {
            let page = AlignedBuf::zeroed(Geometry::LABEL_BYTES).freeze();
            let _ = block_on(disk.write(UNUSED_OFFSET, vec![page]));
        }
        while disk.injected().failed_flushes < self.shared.asked.flushes.get() {
            let _ = block_on(disk.flush());
        }
        self.shared.armed.writes.set(false);
    }

    /// Opens the store, again and again while the power is cut; nothing when the device is legitimately lost.
    fn open(&mut self, cut: Option<u8>) -> Result<Option<Life>, Failure> {
        if let Some(cut) = cut {
            self.disk().power_cut_after(u64::from(cut));
        }
        loop {
            let disk = self.disk();
            let opening =
                Store::open_with(Metered::new(disk.clone(), self.exec.turn()), false, self.shared.config.limits);
            match self.exec.block_on("open", POLLS_MAX, opening)? {
                Ok(store) => {
                    let report = store.report().clone();
                    self.judge_report(&report)?;
                    return Ok(Some(self.serve(store)));
                }
                Err(_) if disk.is_gone() => {
                    std::mem::take(&mut self.cut_pending).then(|| self.shared.count("cuts at a given operation"));
                    self.shared.count("probe: crash during recovery");
                    if self.shared.armed.lied.get() {
                        let keys = self.shared.model.borrow().keys();
                        self.doubt_next.extend(keys);
                    }
                    *self.shared.disk.borrow_mut() = disk.reopen();
                }
                Err(StoreError::Disk(error)) if error.is_media_fault() && self.shared.armed.reads.get() => {
                    self.shared.count("probe: opening failed and was tried again");
                    self.disarm_reads();
                    *self.shared.disk.borrow_mut() = disk.reopen();
                }
                Err(StoreError::Lost { .. } | StoreError::Unusable(_)) if self.shared.asked.lies.get() > 1 => {
                    self.shared.count("device lost to several lies");
                    return Ok(None);
                }
                Err(error) => {
                    return Err(Failure::new(Law::Recovery, format!("the device does not open: {error}")));
                }
            }
        }
    }

    fn judge_report(&mut self, report: &RecoveryReport) -> Result<(), Failure> {
        let shared = &self.shared;
        let probes = [
            ("probe: checkpoint fell back", report.fell_back),
            ("probe: every extent probed", report.probed),
            ("probe: torn tail", report.torn_bytes > 0),
            ("probe: damage reported", !report.damage.is_empty()),
        ];
        probes.iter().filter(|(_, reached)| *reached).for_each(|(name, _)| shared.count(name));
        let explained = shared.damaged.get() || shared.armed.reads.get() || self.shared.asked.lies.get() > 0;
        if !explained && (!report.damage.is_empty() || report.fell_back) {
            return Err(Failure::new(Law::Recovery, format!("damage where there is none: {report:?}")));
        }
        (self.closed_well && report.rolled_forward > 0).then(|| shared.count("rolled forward after a close"));
        self.closed_well = false;
        let mut model = shared.model.borrow_mut();
        for key in std::mem::take(&mut self.doubt_next) {
            model.doubt(key);
        }
        if report.fell_back || report.probed {
            for key in std::mem::take(&mut self.doubt_if_older) {
                model.doubt(key);
            }
        }
        // The new life's first page was flushed, and with it everything that a lying flush left behind.
        shared.armed.lied.set(false);
        Ok(())
    }

    fn serve(&mut self, store: Store<Metered>) -> Life {
        let slot: Rc<RefCell<Option<StoreHandle>>> = Rc::default();
        let handle = Rc::clone(&slot);
        let serving = async move { store.serve(|handle| *slot.borrow_mut() = Some(handle)).await };
        let serve = self.exec.spawn("store", self.shared.config.store_weight, serving);
        // The handle comes with the first poll.
        let ready = Rc::clone(&handle);
        let _ = self.exec.run_until(&[serve], POLLS_MAX, || ready.borrow().is_some());
        let handle = handle.borrow_mut().take().expect("the store passes its handle first");
        Life { handle, serve }
    }

    /// Looks at everything while nothing else is under way.
    pub(crate) fn look(&mut self, life: &Life, law: Law) -> Result<(), Failure> {
        let thorough = self.rng.one_in(3);
        let task = crate::look::look(Rc::clone(&self.shared), life.handle.clone(), thorough);
        self.exec.block_on("look", POLLS_MAX, task)?;
        self.shared.count("looks");
        self.shared.check()?;
        self.shared.settle(law);
        self.shared.check()?;
        if self.shared.is_gone() {
            return Ok(());
        }
        let stats = self.ask(life, |store| async move { store.stats().await })?;
        if let Ok(stats) = stats {
            if stats.moved_bytes > 0 {
                self.shared.count("probe: reclaim moved records");
            }
            crate::look::account(&self.shared, &stats);
        }
        self.shared.check()
    }

    /// Damages a structure.
    fn strike(&mut self, life: &Life, target: Target, settled: bool, bad: bool) -> Result<(), Failure> {
        if target == Target::Checkpoint && std::mem::replace(&mut self.checkpoint_struck, true) {
            return Ok(());
        }
        if settled {
            let done = self.ask(life, |store| async move { store.checkpoint().await })?;
            if let Err(error) = done {
                self.shared.judge_write("checkpoint", &error);
                return self.shared.check();
            }
        }
        let disk = self.disk();
        if disk.is_gone() {
            return Ok(());
        }
        let blast = damage::aim(&disk, &self.label, target, self.shared.config.copy, &self.rng);
        let Some(at) = blast.at else { return Ok(()) };
        self.shared.damaged.set(true);
        // A larger sector would take records along that are not aimed at.
        if bad && disk.facts().sector_bytes == 512 {
            disk.set_bad(at..at + 1);
            self.shared.armed.writes.set(true);
        } else {
            disk.flip_bit(at, self.rng.below(8) as u8);
        }
        let mut model = self.shared.model.borrow_mut();
        blast.hit.iter().for_each(|key| model.damage(*key));
        if settled {
            self.doubt_if_older.extend(blast.beyond);
        } else {
            self.doubt_next.extend(blast.beyond);
        }
        Ok(())
    }

    /// Ends the last life of a run in the way that is asked for.
    pub(crate) fn last_turn(&mut self, life: Life, power: bool) -> Result<Option<Life>, Failure> {
        self.go_down(life, if power { Down::Power } else { Down::Process }, None)
    }

    /// Closes the store in order, which must work, and opens it again.
    pub(crate) fn close_well(&mut self, life: Life, power: bool) -> Result<Option<Life>, Failure> {
        self.shared.armed.closing.set(true);
        let done = self.ask(&life, |store| async move { store.close().await })?;
        if let Err(error) = &done {
            return Err(Failure::new(Law::ForwardProgress, format!("an orderly close failed: {error}")));
        }
        self.retired(life, power, done)
    }
}

fn recovery_cut(boundary: Option<Op>) -> Option<u8> {
    match boundary {
        Some(Op::Crash(_, cut)) => cut,
        _ => None,
    }
}
