//! What clients asked and saw, in the order in which it happened.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

/// A key of a harness; see [`crate::client::shard_key`].
pub type Key = u8;
/// What was written: unique in a history.
pub type Value = u32;

/// What an operation does to the keys, or saw of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The key has this value from now on.
    Put(Key, Value),
    /// The keys are absent from now on, all at once.
    Delete(Vec<Key>),
    /// The keys had these values, all at once.
    See(Vec<(Key, Option<Value>)>),
}

/// One operation. Times are positions in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Who asked.
    pub client: &'static str,
    /// When.
    pub call: u64,
    /// When the answer was seen; `None` when none told whether it took effect: it may have, or may yet.
    pub back: Option<u64>,
    /// What.
    pub what: What,
}

#[derive(Debug, Default)]
struct Log {
    now: u64,
    newest: Value,
    ops: Vec<Op>,
}

/// A history under way; clones share it.
#[derive(Debug, Clone, Default)]
pub struct History {
    log: Arc<Mutex<Log>>,
}

/// An operation of a history that waits for its answer.
#[derive(Debug)]
#[must_use]
pub struct Asked(usize);

impl History {
    // No scheduling point is inside, so nobody ever waits for it.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A value that no other write has.
    #[must_use]
    pub fn fresh(&self) -> Value {
        let mut log = self.log();
        log.newest += 1;
        log.newest
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> u64 {
        let mut log = self.log();
        log.now += 1;
        log.now
    }

    /// Records a change that is asked for now.
    pub fn ask(&self, client: &'static str, what: What) -> Asked {
        let call = self.now();
        let mut log = self.log();
        log.ops.push(Op { client, call, back: None, what });
        Asked(log.ops.len() - 1)
    }

    /// Records that the change was acknowledged.
    pub fn acknowledge(&self, asked: &Asked) {
        let back = self.now();
        self.log().ops[asked.0].back = Some(back);
    }

    /// Records what was seen now, asked for at `call`.
    pub fn see(&self, client: &'static str, call: u64, seen: Vec<(Key, Option<Value>)>) {
        let back = Some(self.now());
        self.log().ops.push(Op { client, call, back, what: What::See(seen) });
    }

    /// All of it.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.log().ops.clone()
    }
}

impl Op {
    /// The operation as far as `key` is concerned.
    #[must_use]
    pub fn about(&self, key: Key) -> Option<Self> {
        let what = match &self.what {
            What::Put(of, _) if *of == key => self.what.clone(),
            What::Delete(keys) if keys.contains(&key) => What::Delete(vec![key]),
            What::See(seen) => What::See(vec![*seen.iter().find(|(of, _)| *of == key)?]),
            What::Put(..) | What::Delete(_) => return None,
        };
        Some(Self { what, ..self.clone() })
    }

    /// The keys it is about.
    pub fn keys(&self) -> BTreeSet<Key> {
        match &self.what {
            What::Put(key, _) => BTreeSet::from([*key]),
            What::Delete(keys) => keys.iter().copied().collect(),
            What::See(seen) => seen.iter().map(|(key, _)| *key).collect(),
        }
    }
}
