//! The reference model: a map from each key to what it may hold.
//!
//! - Answered operations narrow what a key may hold; unanswered ones widen it, until a recovery decides.
//! - What was seen once is fixed: a later recovery may not bring another value back.
//! - Reclaim, checkpoint, sync, an orderly close and a reopening change nothing.
//! - A crash decides each unanswered write; the model learns which way by looking.
//! - Where a fault has destroyed bytes, a key is in *doubt*: a read may fail by name, or give any value that the
//!   key ever had, never anything else. An acknowledged put ends the doubt.
//!
//! Left out on purpose: time, space, and everything about how the store works.

use std::collections::{BTreeMap, BTreeSet};

use format::ShardKey;

use crate::content::{Held, Value};
use crate::register::{Event, Kind, finals};

/// One key.
#[derive(Debug, Clone)]
struct Cell {
    may: BTreeSet<Held>,
    /// A read may fail: bytes were destroyed.
    may_fail: bool,
    /// Every value that was ever written here.
    ever: BTreeSet<Value>,
    /// Writes of this life whose effect is open.
    open: Vec<Event>,
}

impl Cell {
    fn new() -> Self {
        Self { may: BTreeSet::from([None]), may_fail: false, ever: BTreeSet::new(), open: Vec::new() }
    }
}

/// A way in which the model itself can be wrong; its own tests must find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelBug {
    /// A crash while a reclaim is under way leaves the model as it was before the crash.
    ForgetsCrashDuringReclaim,
}

/// No order of a key's operations explains what was seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key:?} held one of {initial:?} and then saw {events:?}")]
pub struct Unexplained {
    /// The key.
    pub key: ShardKey,
    /// What it may have held before.
    pub initial: Vec<Held>,
    /// What happened to it, by time of call.
    pub events: Vec<Event>,
}

/// The map.
#[derive(Debug, Clone, Default)]
pub struct Model {
    cells: BTreeMap<ShardKey, Cell>,
    bug: Option<ModelBug>,
}

impl Model {
    /// A model that is wrong on purpose.
    #[must_use]
    pub fn with_bug(bug: ModelBug) -> Self {
        Self { cells: BTreeMap::new(), bug: Some(bug) }
    }

    fn cell(&mut self, key: ShardKey) -> &mut Cell {
        self.cells.entry(key).or_insert_with(Cell::new)
    }

    /// A value that is about to be written: reads may give it from now on, if an order explains them.
    pub fn announce(&mut self, key: ShardKey, value: Value) {
        self.cell(key).ever.insert(value);
    }

    /// Keys ever written, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<ShardKey> {
        self.cells.keys().copied().collect()
    }

    /// The values of `key`, ever, that satisfy `fits`.
    pub fn candidates(&self, key: ShardKey, fits: impl Fn(&Value) -> bool) -> Vec<Held> {
        let ever = self.cells.get(&key).into_iter().flat_map(|cell| &cell.ever);
        ever.filter(|value| fits(value)).map(|value| Some(*value)).collect()
    }

    /// What `key` may hold when nothing is under way.
    #[must_use]
    pub fn may(&self, key: ShardKey) -> BTreeSet<Held> {
        self.cells.get(&key).map_or_else(|| BTreeSet::from([None]), |cell| cell.may.clone())
    }

    /// Whether reads of `key` may fail.
    #[must_use]
    pub fn may_fail(&self, key: ShardKey) -> bool {
        self.cells.get(&key).is_some_and(|cell| cell.may_fail)
    }

    /// Whether any key is in doubt or undecided.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.cells.values().all(|cell| cell.may.len() == 1 && !cell.may_fail && cell.open.is_empty())
    }

    /// What is held for certain, by key; keys that may hold several things are left out.
    #[must_use]
    pub fn held(&self) -> Vec<(ShardKey, Value)> {
        let certain = self.cells.iter().filter(|(_, cell)| cell.may.len() == 1);
        certain.filter_map(|(key, cell)| Some((*key, cell.may.first().copied()??))).collect()
    }

    /// Takes what happened to `key` while operations were under way, now that none is.
    ///
    /// # Errors
    /// [`Unexplained`].
    pub fn settle(&mut self, key: ShardKey, events: Vec<Event>) -> Result<(), Box<Unexplained>> {
        let cell = self.cell(key);
        let (open, answered): (Vec<Event>, Vec<Event>) = events.into_iter().partition(|event| event.ret.is_none());
        cell.open.extend(open);
        let mut all = [answered, cell.open.clone()].concat();
        all.sort_by_key(|event| event.call);
        let ends = finals(&cell.may, &all);
        if ends.is_empty() {
            return Err(Box::new(Unexplained { key, initial: cell.may.iter().copied().collect(), events: all }));
        }
        let is_put = |event: &Event| event.ret.is_some() && matches!(event.kind, Kind::Write(Some(_)));
        if all.iter().any(is_put) {
            cell.may_fail = false;
        }
        // Writes still open may come into effect later: that is the crash's business, or a later read's.
        let closed: Vec<Event> = all.iter().filter(|event| event.ret.is_some()).cloned().collect();
        let without = finals(&cell.may, &closed);
        cell.may = if without.is_empty() { ends } else { without };
        Ok(())
    }

    /// The device, or the process, has gone down: every open write is now in effect for good, or not.
    pub fn crash(&mut self, reclaim_under_way: bool) {
        let forgets = reclaim_under_way && self.bug == Some(ModelBug::ForgetsCrashDuringReclaim);
        for cell in self.cells.values_mut() {
            let open = std::mem::take(&mut cell.open);
            if forgets {
                continue;
            }
            cell.may.extend(open.iter().filter_map(|event| match &event.kind {
                Kind::Write(held) => Some(*held),
                Kind::Read(_) => None,
            }));
        }
    }

    /// Bytes of `key`'s record were destroyed: reads may fail, but give nothing else.
    pub fn damage(&mut self, key: ShardKey) {
        self.cell(key).may_fail = true;
    }

    /// Bytes that decide what `key` holds were destroyed before a recovery: it may hold any of its values.
    pub fn doubt(&mut self, key: ShardKey) {
        let cell = self.cell(key);
        cell.may_fail = true;
        cell.may = cell.ever.iter().map(|value| Some(*value)).chain([None]).collect();
    }
}
