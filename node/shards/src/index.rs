//! Where every live record is: key -> location, in memory only.
//!
//! Leaves are sorted arrays of packed entries of 24 bytes, none longer than [`LEAF_MAX`], each for records of
//! one space and owner; an ordered map finds the leaf by the lower end of its keys. A leaf's allocation follows
//! its length closely, so that a record costs about 25 bytes all in (`storebench memory` measures it).
//!
//! Leaves are shared with snapshots and copied only when they are changed while one exists: a checkpoint
//! neither stops the store nor doubles its index.
//!
//! Invariants: leaves are not empty; a leaf holds the keys from its own lower end up to the next leaf's.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;
use std::rc::Rc;

use format::{CheckpointShard, RecordLayout, ShardKey, UNIT_BYTES};

use crate::extent::Location;

/// Entries of one leaf at most: 6 KiB to move or copy at worst.
const LEAF_MAX: usize = 256;
/// Below so many entries a leaf joins its neighbour.
const LEAF_MIN: usize = LEAF_MAX / 4;

/// One record, without the space and owner of its leaf.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Number, as two halves so that the entry needs no padding.
    id: [u32; 2],
    /// Units from the start of the first extent: the low 32 bits.
    place_low: u32,
    payload_bytes: u32,
    proof: u32,
    place_high: u8,
    slot: u8,
    head_units: u8,
}

const _: () = assert!(size_of::<Entry>() == 24);

impl Entry {
    fn order(&self) -> (u64, u8) {
        (u64::from(self.id[0]) << 32 | u64::from(self.id[1]), self.slot)
    }

    fn place_units(&self) -> u64 {
        u64::from(self.place_high) << 32 | u64::from(self.place_low)
    }
}

/// Entries of one space and owner, in key order.
#[derive(Debug, Clone)]
struct Leaf {
    entries: Vec<Entry>,
}

impl Leaf {
    /// Room for one more: a sixteenth more than before, so that little is idle.
    fn make_room(&mut self) {
        let len = self.entries.len();
        if len == self.entries.capacity() {
            self.entries.reserve_exact((len / 16 + 2).min(LEAF_MAX.saturating_sub(len)).max(1));
        }
    }

    fn give_back_room(&mut self) {
        if self.entries.capacity() > self.entries.len() + self.entries.len() / 8 + 8 {
            self.entries.shrink_to_fit();
        }
    }
}

/// See the file's header.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    leaves: BTreeMap<ShardKey, Rc<Leaf>>,
    len: u64,
    extent_units: u32,
}

/// The least key of its space and owner.
const fn floor(key: &ShardKey) -> ShardKey {
    ShardKey { id: 0, slot: 0, ..*key }
}

const fn akin(a: &ShardKey, b: &ShardKey) -> bool {
    a.space as u8 == b.space as u8 && a.owner == b.owner
}

impl Index {
    /// An empty index of a device whose extents have `extent_units` units.
    pub(crate) fn new(extent_units: u32) -> Self {
        Self { leaves: BTreeMap::new(), len: 0, extent_units }
    }

    /// Number of records.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Number of leaves.
    pub(crate) fn leaves(&self) -> usize {
        self.leaves.len()
    }

    /// The same index as of now; neither sees what is done to the other.
    pub(crate) fn snapshot(&self) -> Self {
        self.clone()
    }

    fn entry(&self, key: &ShardKey, location: &Location) -> Entry {
        let place = u64::from(location.extent) * u64::from(self.extent_units) + u64::from(location.offset_units);
        let head_units = location.record_units - payload_units(location.payload_bytes);
        Entry {
            id: [(key.id >> 32) as u32, key.id as u32],
            place_low: place as u32,
            payload_bytes: location.payload_bytes,
            proof: location.proof,
            place_high: u8::try_from(place >> 32).expect("a device has fewer than 2^40 units"),
            slot: key.slot,
            head_units: u8::try_from(head_units).expect("a head has fewer than 256 units"),
        }
    }

    fn location(&self, entry: &Entry) -> Location {
        self.locate(entry.place_units(), entry.head_units, entry.payload_bytes, entry.proof)
    }

    /// The location that a checkpoint's numbers stand for.
    pub(crate) fn locate(&self, place_units: u64, head_units: u8, payload_bytes: u32, proof: u32) -> Location {
        Location {
            extent: u32::try_from(place_units / u64::from(self.extent_units)).unwrap_or(u32::MAX),
            offset_units: (place_units % u64::from(self.extent_units)) as u32,
            record_units: u32::from(head_units) + payload_units(payload_bytes),
            payload_bytes,
            proof,
        }
    }

    /// The leaf that holds `key` or would; `None` when no leaf reaches down to it.
    fn leaf_of(&self, key: &ShardKey) -> Option<(&ShardKey, &Rc<Leaf>)> {
        self.leaves.range(..=key).next_back().filter(|(low, _)| akin(low, key))
    }

    /// Where the record of `key` is.
    pub(crate) fn get(&self, key: &ShardKey) -> Option<Location> {
        let (_, leaf) = self.leaf_of(key)?;
        let at = leaf.entries.binary_search_by_key(&(key.id, key.slot), Entry::order).ok()?;
        Some(self.location(&leaf.entries[at]))
    }

    /// Whether there is a record of `key`.
    pub(crate) fn contains(&self, key: &ShardKey) -> bool {
        self.get(key).is_some()
    }

    /// The record of `key` is at `location` now; gives where it was.
    pub(crate) fn insert(&mut self, key: ShardKey, location: Location) -> Option<Location> {
        let entry = self.entry(&key, &location);
        let found = self.leaves.range_mut(..=key).next_back().filter(|(low, _)| akin(low, &key));
        let Some((_, leaf)) = found else {
            self.leaves.insert(floor(&key), Rc::new(Leaf { entries: vec![entry] }));
            self.len += 1;
            return None;
        };
        let at = match leaf.entries.binary_search_by_key(&entry.order(), Entry::order) {
            Ok(at) => {
                let old = std::mem::replace(&mut Rc::make_mut(leaf).entries[at], entry);
                return Some(self.location(&old));
            }
            Err(at) => at,
        };
        self.len += 1;
        if leaf.entries.len() < LEAF_MAX {
            let leaf = Rc::make_mut(leaf);
            leaf.make_room();
            leaf.entries.insert(at, entry);
            return None;
        }
        // Full. In ascending order the leaf stays full and a new one begins; otherwise it is halved.
        let upper = if at == LEAF_MAX {
            vec![entry]
        } else {
            let leaf = Rc::make_mut(leaf);
            let mut upper = leaf.entries.split_off(LEAF_MAX / 2);
            if at <= LEAF_MAX / 2 {
                leaf.entries.insert(at, entry)
            } else {
                upper.insert(at - LEAF_MAX / 2, entry)
            }
            leaf.entries.shrink_to_fit();
            upper.shrink_to_fit();
            upper
        };
        let (id, slot) = upper[0].order();
        let before = self.leaves.insert(ShardKey { id, slot, ..key }, Rc::new(Leaf { entries: upper }));
        assert!(before.is_none(), "a new leaf begins where none began");
        None
    }

    /// The record of `key` is gone; gives where it was.
    pub(crate) fn remove(&mut self, key: &ShardKey) -> Option<Location> {
        let (low, leaf) = self.leaves.range_mut(..=*key).next_back().filter(|(low, _)| akin(low, key))?;
        let at = leaf.entries.binary_search_by_key(&(key.id, key.slot), Entry::order).ok()?;
        let (low, len) = (*low, leaf.entries.len() - 1);
        self.len -= 1;
        if len == 0 {
            let leaf = self.leaves.remove(&low).expect("just seen");
            return Some(self.location(&leaf.entries[0]));
        }
        let leaf = Rc::make_mut(leaf);
        let old = leaf.entries.remove(at);
        leaf.give_back_room();
        if len < LEAF_MIN {
            self.join(low);
        }
        Some(self.location(&old))
    }

    /// Takes the next leaf of the same owner into the one at `low`, when both together leave room to grow.
    fn join(&mut self, low: ShardKey) {
        let len = self.leaves[&low].entries.len();
        let next = self.leaves.range((Bound::Excluded(low), Bound::Unbounded)).next();
        let next = next.filter(|(key, leaf)| akin(key, &low) && len + leaf.entries.len() <= LEAF_MAX * 3 / 4);
        let Some(next) = next.map(|(key, _)| *key) else { return };
        let upper = self.leaves.remove(&next).expect("just seen");
        let leaf = Rc::make_mut(self.leaves.get_mut(&low).expect("just seen"));
        leaf.entries.reserve_exact(upper.entries.len());
        leaf.entries.extend_from_slice(&upper.entries);
    }

    /// Records with keys above `after`, in key order.
    pub(crate) fn after(&self, after: Option<ShardKey>) -> impl Iterator<Item = (ShardKey, Location)> + '_ {
        let lower = match after {
            None => Bound::Unbounded,
            Some(key) => Bound::Included(self.leaf_of(&key).map_or(key, |(low, _)| *low)),
        };
        let leaves = self.leaves.range((lower, Bound::Unbounded));
        let records = leaves.flat_map(|(low, leaf)| {
            leaf.entries.iter().map(|entry| {
                let (id, slot) = entry.order();
                (ShardKey { id, slot, ..*low }, entry)
            })
        });
        records
            .skip_while(move |(key, _)| after.is_some_and(|after| *key <= after))
            .map(|(key, entry)| (key, self.location(entry)))
    }

    /// Keeps the records for which `keep` holds; for recovery, which is not in a hurry.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&ShardKey, &Location) -> bool) {
        let going: Vec<ShardKey> = self.after(None).filter(|(key, l)| !keep(key, l)).map(|(key, _)| key).collect();
        going.iter().for_each(|key| _ = self.remove(key));
    }

    /// Runs of records of one space and owner, in key order; each at most [`LEAF_MAX`] long.
    pub(crate) fn runs(&self) -> Runs<'_> {
        Runs { leaves: self.leaves.iter() }
    }
}

/// See [`Index::runs`].
pub(crate) struct Runs<'a> {
    leaves: btree_map::Iter<'a, ShardKey, Rc<Leaf>>,
}

impl<'a> Iterator for Runs<'a> {
    type Item = Vec<CheckpointShard>;

    fn next(&mut self) -> Option<Self::Item> {
        let (low, leaf) = self.leaves.next()?;
        let shard = |entry: &Entry| {
            let (id, slot) = entry.order();
            CheckpointShard {
                key: ShardKey { id, slot, ..*low },
                place_units: entry.place_units(),
                head_units: entry.head_units,
                payload_bytes: entry.payload_bytes,
                proof: entry.proof,
            }
        };
        Some(leaf.entries.iter().map(shard).collect())
    }
}

/// Units that a payload of so many bytes takes.
pub(crate) fn payload_units(payload_bytes: u32) -> u32 {
    let bytes = (payload_bytes as usize).next_multiple_of(RecordLayout::align(payload_bytes as usize));
    (bytes / UNIT_BYTES) as u32
}

#[cfg(test)]
mod tests {
    use base::{Lsn, PartitionId, StripeId};
    use proptest::prelude::*;

    use super::*;

    fn location(n: u32) -> Location {
        let payload_bytes = n % 70_000;
        let layout = RecordLayout::new(0, payload_bytes as usize);
        let record_units = (layout.record_bytes / UNIT_BYTES) as u32;
        Location { extent: n % 1000, offset_units: n % 4096, record_units, payload_bytes, proof: n }
    }

    fn key(n: u16) -> ShardKey {
        match n % 3 {
            0 => ShardKey::journal(PartitionId(u32::from(n / 3 % 4)), Lsn(u64::from(n / 12))),
            1 => ShardKey::region(u32::from(n / 3 % 2), u64::from(n / 6)),
            _ => ShardKey::stripe(StripeId(u64::from(n / 6)), (n / 3 % 2) as u8),
        }
    }

    fn check(index: &Index) {
        let mut records = 0;
        let mut lows = index.leaves.iter().peekable();
        while let Some((low, leaf)) = lows.next() {
            assert!(!leaf.entries.is_empty() && leaf.entries.len() <= LEAF_MAX);
            assert!(leaf.entries.is_sorted_by_key(Entry::order));
            assert!(leaf.entries[0].order() >= (low.id, low.slot));
            if let Some((next, _)) = lows.peek().filter(|(next, _)| akin(next, low)) {
                assert!(leaf.entries[leaf.entries.len() - 1].order() < (next.id, next.slot));
            }
            records += leaf.entries.len() as u64;
        }
        assert_eq!(records, index.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn an_index_is_a_map(ops in proptest::collection::vec((0u16..3000, any::<u32>(), 0u8..8), 0..3000)) {
            let (mut index, mut model) = (Index::new(4096), BTreeMap::new());
            let mut frozen = None;
            for (n, value, what) in ops {
                match what {
                    0..=4 => assert_eq!(index.insert(key(n), location(value)), model.insert(key(n), location(value))),
                    5..=6 => assert_eq!(index.remove(&key(n)), model.remove(&key(n))),
                    _ => frozen = Some((index.snapshot(), model.clone())),
                }
            }
            check(&index);
            prop_assert!(index.after(None).eq(model.iter().map(|(k, l)| (*k, *l))));
            for n in [0, 7, 1500, 2999] {
                let lower = (Bound::Excluded(key(n)), Bound::Unbounded);
                prop_assert!(index.after(Some(key(n))).eq(model.range(lower).map(|(k, l)| (*k, *l))));
                prop_assert_eq!(index.get(&key(n)), model.get(&key(n)).copied());
            }
            if let Some((index, model)) = frozen {
                check(&index);
                let located = |s: CheckpointShard| (s.key, index.locate(s.place_units, s.head_units, s.payload_bytes, s.proof));
                prop_assert!(index.runs().flatten().map(located).eq(model.iter().map(|(k, l)| (*k, *l))));
            }
            index.retain(|_, l| l.extent % 2 == 0);
            check(&index);
            model.retain(|_, l| l.extent % 2 == 0);
            prop_assert!(index.after(None).eq(model.into_iter()));
        }
    }

    #[test]
    fn ascending_keys_fill_their_leaves() {
        let mut index = Index::new(4096);
        for n in 0..10_000u64 {
            index.insert(ShardKey::stripe(StripeId(n), 0), location(1));
        }
        check(&index);
        assert_eq!(index.leaves(), 10_000usize.div_ceil(LEAF_MAX));
        for n in 0..9_990u64 {
            index.remove(&ShardKey::stripe(StripeId(n), 0));
        }
        check(&index);
        assert_eq!((index.len(), index.leaves()), (10, 1));
    }
}
