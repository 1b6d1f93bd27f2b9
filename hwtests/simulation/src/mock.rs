//! The simplest store that keeps the promises: a map. It stands in for a store where the model itself is tested.
//!
//! Writes are under way until they are finished; a crash keeps each of them or not. A reclaim rewrites records and
//! changes nothing that can be read.

use std::collections::BTreeMap;

use base::SeededEntropy;
use format::ShardKey;

use crate::content::{Held, Value};

/// A map that crashes.
#[derive(Debug, Default)]
pub struct MockStore {
    map: BTreeMap<ShardKey, Value>,
    under_way: Vec<(ShardKey, Held)>,
    reclaiming: bool,
}

impl MockStore {
    /// Begins a put (or, with `None`, a delete).
    pub fn begin(&mut self, key: ShardKey, held: Held) {
        self.under_way.push((key, held));
    }

    /// Finishes the oldest write under way.
    pub fn finish_one(&mut self) -> Option<(ShardKey, Held)> {
        if self.under_way.is_empty() {
            return None;
        }
        let (key, held) = self.under_way.remove(0);
        self.apply(key, held);
        Some((key, held))
    }

    /// Begins a reclaim, which ends at the next crash or [`Self::end_reclaim`].
    pub fn begin_reclaim(&mut self) {
        self.reclaiming = true;
    }

    /// Ends a reclaim.
    pub fn end_reclaim(&mut self) {
        self.reclaiming = false;
    }

    /// Whether a reclaim is under way.
    #[must_use]
    pub fn is_reclaiming(&self) -> bool {
        self.reclaiming
    }

    /// What a key holds.
    #[must_use]
    pub fn get(&self, key: ShardKey) -> Held {
        self.map.get(&key).copied()
    }

    /// Goes down: each write under way is kept or lost.
    pub fn crash(&mut self, entropy: &SeededEntropy) {
        for (key, held) in std::mem::take(&mut self.under_way) {
            if entropy.one_in(2) {
                self.apply(key, held);
            }
        }
        self.reclaiming = false;
    }

    fn apply(&mut self, key: ShardKey, held: Held) {
        match held {
            Some(value) => _ = self.map.insert(key, value),
            None => _ = self.map.remove(&key),
        }
    }
}
