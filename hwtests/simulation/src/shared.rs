//! What the tasks of one run share: the disk, the model, the history of the operations under way, and which faults
//! explain which errors.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use disk::DiskError;
use format::ShardKey;
use shards::StoreError;
use simdisk::SimDisk;

use crate::content::Held;
use crate::failure::{Failure, Law};
use crate::model::Model;
use crate::plan::Config;
use crate::register::{Event, Kind};
use crate::tally::Tally;

/// Faults that may show in the present life of the store.
#[derive(Debug, Default)]
pub(crate) struct Armed {
    /// Reads may fail.
    pub(crate) reads: Cell<bool>,
    /// Writes or flushes may fail, and the store be poisoned.
    pub(crate) writes: Cell<bool>,
    /// A read may give another place's bytes.
    pub(crate) misdirected_reads: Cell<bool>,
    /// A write was lost or landed elsewhere: any record may be damaged.
    pub(crate) wild: Cell<bool>,
    /// So much was lost that it stays so until the run's end.
    pub(crate) wild_for_good: Cell<bool>,
    /// A flush lied: what it covered is lost if the power goes.
    pub(crate) lied: Cell<bool>,
    /// The store is being closed.
    pub(crate) closing: Cell<bool>,
}

/// Faults asked for so far in this run, struck or not.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) reads: Cell<u64>,
    pub(crate) writes: Cell<u64>,
    pub(crate) flushes: Cell<u64>,
    pub(crate) lies: Cell<u64>,
}

/// A write under way, in the history.
pub(crate) struct Ticket {
    key: ShardKey,
    index: usize,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) disk: RefCell<SimDisk>,
    pub(crate) model: RefCell<Model>,
    pub(crate) tally: RefCell<Tally>,
    pub(crate) armed: Armed,
    pub(crate) asked: Asked,
    /// The first law broken.
    pub(crate) failure: RefCell<Option<Failure>>,
    /// A put was refused since the last look at this.
    pub(crate) refused_full: Cell<bool>,
    pub(crate) reclaims_under_way: Cell<u32>,
    pub(crate) checkpoints_under_way: Cell<u32>,
    /// A client of this life was told that bytes could not be read: the store's record of faults says so too.
    pub(crate) fault_seen: Cell<bool>,
    /// Bytes of records were destroyed in this run.
    pub(crate) damaged: Cell<bool>,
    history: RefCell<BTreeMap<ShardKey, Vec<Option<Event>>>>,
    now: Cell<u64>,
}

impl Shared {
    pub(crate) fn new(config: Config, disk: SimDisk) -> Self {
        Self {
            config,
            disk: RefCell::new(disk),
            model: RefCell::default(),
            tally: RefCell::default(),
            armed: Armed::default(),
            asked: Asked::default(),
            failure: RefCell::default(),
            refused_full: Cell::new(false),
            reclaims_under_way: Cell::new(0),
            checkpoints_under_way: Cell::new(0),
            fault_seen: Cell::new(false),
            damaged: Cell::new(false),
            history: RefCell::default(),
            now: Cell::new(0),
        }
    }

    pub(crate) fn count(&self, name: &'static str) {
        self.tally.borrow_mut().add(name, 1);
    }

    pub(crate) fn fail(&self, law: Law, what: String) {
        self.failure.borrow_mut().get_or_insert_with(|| Failure::new(law, what));
    }

    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.failure.borrow().clone().map_or(Ok(()), Err)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.disk.borrow().is_gone()
    }

    /// Whether reclaim may meet a record that it cannot read.
    pub(crate) fn may_be_damaged(&self) -> bool {
        let armed = &self.armed;
        self.damaged.get() || armed.wild.get() || armed.reads.get() || armed.misdirected_reads.get()
    }

    /// A moment; each is later than the one before.
    pub(crate) fn tick(&self) -> u64 {
        self.now.set(self.now.get() + 1);
        self.now.get()
    }

    pub(crate) fn begin_write(&self, key: ShardKey, held: Held) -> Ticket {
        if let Some(value) = held {
            self.model.borrow_mut().announce(key, value);
        }
        let event = Event { call: self.tick(), ret: None, kind: Kind::Write(held) };
        let mut history = self.history.borrow_mut();
        let events = history.entry(key).or_default();
        events.push(Some(event));
        Ticket { key, index: events.len() - 1 }
    }

    pub(crate) fn acknowledged(&self, ticket: &Ticket) {
        let now = self.tick();
        self.event(ticket, |event| event.as_mut().expect("answered once").ret = Some(now));
    }

    /// The write was refused and has no effect.
    pub(crate) fn refused(&self, ticket: &Ticket) {
        self.event(ticket, |event| *event = None);
    }

    fn event(&self, ticket: &Ticket, change: impl FnOnce(&mut Option<Event>)) {
        let mut history = self.history.borrow_mut();
        change(&mut history.get_mut(&ticket.key).expect("begun")[ticket.index]);
    }

    pub(crate) fn saw(&self, key: ShardKey, call: u64, may: Vec<Held>) {
        let event = Event { call, ret: Some(self.tick()), kind: Kind::Read(may) };
        self.history.borrow_mut().entry(key).or_default().push(Some(event));
    }

    /// Hands the history to the model, now that nothing is under way (or will ever be answered).
    pub(crate) fn settle(&self, law: Law) {
        for (key, events) in std::mem::take(&mut *self.history.borrow_mut()) {
            let events: Vec<Event> = events.into_iter().flatten().collect();
            if let Err(unexplained) = self.model.borrow_mut().settle(key, events) {
                self.fail(law, unexplained.to_string());
            }
        }
    }

    /// Whether a fault explains that a read of `key` failed so; else a law is broken.
    pub(crate) fn judge_read(&self, key: ShardKey, error: &StoreError) {
        let damaged = self.model.borrow().may_fail(key) || self.armed.wild.get();
        let explained = match error {
            StoreError::Disk(DiskError::Medium { .. }) => damaged || self.armed.reads.get(),
            StoreError::Disk(DiskError::Gone { .. }) => self.is_gone(),
            StoreError::Corrupt { .. } => damaged || self.armed.misdirected_reads.get(),
            StoreError::Closed => self.armed.closing.get() || self.is_gone(),
            _ => false,
        };
        if matches!(error, StoreError::Corrupt { .. } | StoreError::Disk(DiskError::Medium { .. })) {
            self.fault_seen.set(true);
        }
        if matches!(error, StoreError::Corrupt { .. }) {
            self.count("probe: corrupt record refused");
        }
        if !explained {
            self.fail(Law::UnexpectedError, format!("reading {key:?}: {error}"));
        }
    }

    /// Whether a fault explains that a write failed so; else a law is broken. Its effect is open.
    pub(crate) fn judge_write(&self, what: &str, error: &StoreError) {
        let explained = match error {
            StoreError::Disk(DiskError::Medium { .. }) | StoreError::Poisoned { .. } => {
                self.armed.writes.get() || self.is_gone()
            }
            StoreError::Disk(DiskError::Gone { .. }) => self.is_gone(),
            StoreError::Closed => self.armed.closing.get() || self.is_gone(),
            _ => false,
        };
        if matches!(error, StoreError::Poisoned { .. }) && !self.is_gone() {
            self.count("probe: poisoned store refused a write");
        }
        if !explained {
            self.fail(Law::UnexpectedError, format!("{what}: {error}"));
        }
    }
}
