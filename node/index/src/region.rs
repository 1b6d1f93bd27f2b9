//! redb's storage as records of the store of one device: block `b` of the region is record `b + 1`,
//! record 0 says how long the region is.
//!
//! Why records and not raw space: docs/decisions/0004-index.md. The store verifies every block it gives,
//! so redb never sees rotten bytes; a block is replaced whole or not at all.
//!
//! Invariants: what was written since the last sync is in `dirty` (or on its way: `flushing`) and is read
//! from there; a block that is in neither and not stored reads as zeros; after a failed write nothing is
//! written any more until the region is opened again. A block has the size of redb's page, so that
//! writing a page never needs its neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use format::{ShardKey, Space};
use futures::stream::{self, StreamExt};
use replica::{Mirror, keys_of};
use shards::{Payload, StoreError};

use crate::block::wait;

/// Bytes in a block: redb's page.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// Dirty bytes held in memory before they are written early; redb only needs the order around a sync.
const DIRTY_BYTES_MAX: u64 = 64 << 20;
/// Blocks written or read at once; a fraction of a store's queue.
const BLOCKS_AT_ONCE: usize = 64;
/// Keys removed in one request.
const DELETES_AT_ONCE: usize = 1024;

const HEAD_MAGIC: [u8; 4] = *b"HFRG";
/// Version of the region's head. 1: the first.
const HEAD_VERSION: u16 = 1;
const HEAD_BYTES: usize = 24;

/// A region of one store.
#[derive(Debug)]
pub(crate) struct RegionBackend {
    store: Mirror,
    region: u32,
    state: Mutex<State>,
    /// Held by whoever writes blocks; never while waiting for `state`'s holder to do I/O.
    writer: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    len: u64,
    /// Length that record 0 says.
    stored_len: u64,
    dirty: BTreeMap<u64, Bytes>,
    flushing: BTreeMap<u64, Bytes>,
    /// Stored blocks from here on are of a time before the region was cut short.
    cut: Option<u64>,
    /// Blocks that are stored.
    stored: BTreeSet<u64>,
    failed: Option<String>,
}

impl RegionBackend {
    /// Opens a region; an absent one has length 0.
    pub(crate) fn open(store: Mirror, region: u32) -> io::Result<Self> {
        let head = wait(store.get(ShardKey::region(region, 0), 0..HEAD_BYTES as u32));
        let len = match head {
            Ok(bytes) => decode_head(&bytes, region)?,
            Err(StoreError::NotFound) => 0,
            Err(error) => return Err(io::Error::other(error)),
        };
        let keys = wait(keys_of(store.as_ref(), Space::Region, region)).map_err(io::Error::other)?;
        let stored = keys.into_iter().filter(|key| *key > 0).map(|key| key - 1).collect();
        let state = State { len, stored_len: len, stored, ..State::default() };
        Ok(Self { store, region, state: Mutex::new(state), writer: Mutex::new(()) })
    }

    /// Removes a region.
    pub(crate) fn wipe(store: &Mirror, region: u32) -> Result<(), StoreError> {
        // The head last: a half-removed region never looks like a whole one of another length.
        let mut keys = wait(keys_of(store.as_ref(), Space::Region, region))?;
        keys.reverse();
        for some in keys.chunks(DELETES_AT_ONCE) {
            wait(store.delete(some.iter().map(|id| ShardKey::region(region, *id)).collect()))?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, block: u64) -> ShardKey {
        ShardKey::region(self.region, block + 1)
    }

    /// The whole block, of which only what lies below the length counts.
    fn block(&self, block: u64) -> io::Result<Bytes> {
        {
            let state = self.state();
            if let Some(bytes) = state.dirty.get(&block).or_else(|| state.flushing.get(&block)) {
                return Ok(bytes.clone());
            }
            if !state.stored.contains(&block) || state.cut.is_some_and(|cut| block >= cut) {
                return Ok(Bytes::from_static(&[0; BLOCK_BYTES as usize]));
            }
        }
        let bytes = wait(self.store.get(self.key(block), 0..BLOCK_BYTES as u32)).map_err(io::Error::other)?;
        if bytes.len() as u64 != BLOCK_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an index block of another length"));
        }
        Ok(bytes)
    }

    fn put(&self, state: &mut State, block: u64, bytes: Bytes) {
        assert_eq!(bytes.len() as u64, BLOCK_BYTES, "blocks are whole");
        state.dirty.insert(block, bytes);
    }

    /// Writes all dirty blocks, and the head when the length changed. The caller holds `writer`.
    fn flush(&self) -> io::Result<()> {
        let (len, grown, cut) = {
            let mut state = self.state();
            if let Some(reason) = &state.failed {
                return Err(io::Error::other(format!("the region failed before: {reason}")));
            }
            assert!(state.flushing.is_empty(), "one flush at a time");
            state.flushing = std::mem::take(&mut state.dirty);
            (state.len, state.len > state.stored_len, state.cut)
        };
        let result = wait(self.flush_blocks(len, grown, cut));
        let mut state = self.state();
        match result {
            Ok(()) => {
                if let Some(cut) = cut {
                    state.stored.retain(|block| *block < cut);
                    state.cut = None;
                }
                let written: Vec<u64> = std::mem::take(&mut state.flushing).into_keys().collect();
                state.stored.extend(written);
                state.stored_len = len;
                Ok(())
            }
            Err(error) => {
                state.failed = Some(error.to_string());
                Err(io::Error::other(error))
            }
        }
    }

    async fn flush_blocks(&self, len: u64, grown: bool, cut: Option<u64>) -> Result<(), StoreError> {
        let (blocks, stale, shrunk) = {
            let state = self.state();
            let blocks: Vec<(u64, Bytes)> = state.flushing.iter().map(|(b, bytes)| (*b, bytes.clone())).collect();
            let stale: Vec<u64> = cut.map_or(Vec::new(), |cut| state.stored.range(cut..).copied().collect());
            (blocks, stale, len < state.stored_len)
        };
        for some in stale.chunks(DELETES_AT_ONCE) {
            self.store.delete(some.iter().map(|block| self.key(*block)).collect()).await?;
        }
        if grown {
            self.put_head(len).await?;
        }
        let mut puts = stream::iter(blocks)
            .map(|(block, bytes)| self.store.put(self.key(block), Payload::Parts(vec![bytes])))
            .buffer_unordered(BLOCKS_AT_ONCE);
        while let Some(put) = puts.next().await {
            put?;
        }
        if shrunk {
            self.put_head(len).await?;
        }
        Ok(())
    }

    async fn put_head(&self, len: u64) -> Result<(), StoreError> {
        let head = Bytes::from(encode_head(self.region, len).to_vec());
        self.store.put(ShardKey::region(self.region, 0), Payload::Parts(vec![head])).await
    }
}

/// magic | version (at 4 for ever) | zero | region | zero | length; little endian.
fn encode_head(region: u32, len: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&HEAD_MAGIC);
    head[4..6].copy_from_slice(&HEAD_VERSION.to_le_bytes());
    head[8..12].copy_from_slice(&region.to_le_bytes());
    head[16..].copy_from_slice(&len.to_le_bytes());
    head
}

fn decode_head(bytes: &[u8], region: u32) -> io::Result<u64> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "the head of an index region is malformed");
    let head: &[u8; HEAD_BYTES] = bytes.try_into().map_err(|_| bad())?;
    let mut len = [0; 8];
    len.copy_from_slice(&head[16..]);
    let len = u64::from_le_bytes(len);
    if *head == encode_head(region, len) { Ok(len) } else { Err(bad()) }
}

/// The blocks that `offset..offset + len` touches, each with the bytes inside it.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, Range<usize>)> {
    let end = offset + len;
    (offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES)).map(move |block| {
        let start = block * BLOCK_BYTES;
        let from = offset.max(start) - start;
        let to = end.min(start + BLOCK_BYTES) - start;
        (block, from as usize..to as usize)
    })
}

impl redb::StorageBackend for RegionBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.state().len) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a read past the end of the index region"));
        }
        let mut at = 0;
        for (block, range) in pieces(offset, out.len() as u64) {
            let bytes = self.block(block)?;
            let len = range.len();
            out[at..at + len].copy_from_slice(&bytes[range]);
            at += len;
        }
        assert_eq!(at, out.len(), "the pieces fill the buffer");
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = (len % BLOCK_BYTES) as usize;
        let kept = len / BLOCK_BYTES;
        let shrinks = len < self.state().len;
        let tail = if shrinks && inside > 0 { Some(self.block(kept)?) } else { None };
        let mut state = self.state();
        if shrinks {
            let first_gone = len.div_ceil(BLOCK_BYTES);
            state.dirty.split_off(&first_gone);
            state.cut = Some(state.cut.map_or(first_gone, |cut| cut.min(first_gone)));
            if let Some(tail) = tail {
                let mut bytes = tail.to_vec();
                bytes[inside..].fill(0);
                self.put(&mut state, kept, bytes.into());
            }
        }
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > self.state().len) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a write past the end of the index region"));
        }
        let mut at = 0;
        for (block, range) in pieces(offset, data.len() as u64) {
            let piece = &data[at..at + range.len()];
            at += range.len();
            let bytes = if range.len() as u64 == BLOCK_BYTES {
                Bytes::copy_from_slice(piece)
            } else {
                let mut bytes = self.block(block)?.to_vec();
                bytes[range].copy_from_slice(piece);
                bytes.into()
            };
            self.put(&mut self.state(), block, bytes);
        }
        let dirty_bytes = self.state().dirty.len() as u64 * BLOCK_BYTES;
        if dirty_bytes > DIRTY_BYTES_MAX { self.flush() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base::{Entropy, SeededEntropy};
    use redb::StorageBackend;
    use replica::testing::MemoryStore;

    use super::*;

    fn compare(region: &RegionBackend, model: &[u8], context: &str) {
        assert_eq!(region.len().unwrap(), model.len() as u64, "{context}");
        let mut bytes = vec![0; model.len()];
        region.read(0, &mut bytes).unwrap();
        assert!(bytes == model, "{context}");
        assert!(region.read(1, &mut bytes).is_err() || bytes.is_empty(), "{context}: a read past the end");
    }

    #[test]
    fn a_region_is_a_file_and_keeps_what_was_synced() {
        for seed in 0..20 {
            let entropy = SeededEntropy::new(seed);
            let store = MemoryStore::new(1);
            let mut region = RegionBackend::open(store.clone(), 5).unwrap();
            let (mut model, mut synced) = (Vec::new(), Vec::new());
            for step in 0..150 {
                let context = format!("seed {seed}, step {step}");
                match entropy.below(10) {
                    0..=1 => {
                        let len = entropy.below(9 * BLOCK_BYTES) as usize;
                        region.set_len(len as u64).unwrap();
                        model.resize(len, 0);
                    }
                    2..=6 => {
                        let at = entropy.below(model.len() as u64 + 1) as usize;
                        let len = entropy.below((model.len() - at) as u64 + 1) as usize;
                        entropy.fill(&mut model[at..at + len]);
                        region.write(at as u64, &model[at..at + len]).unwrap();
                    }
                    7 => compare(&region, &model, &context),
                    8 => {
                        region.sync_data().unwrap();
                        synced.clone_from(&model);
                    }
                    _ => {
                        region = RegionBackend::open(store.clone(), 5).unwrap();
                        model.clone_from(&synced);
                        compare(&region, &model, &context);
                    }
                }
            }
            region.set_len(0).unwrap();
            region.sync_data().unwrap();
            assert_eq!(store.keys().len(), 1, "only the head of an empty region is stored");
        }
    }

    #[test]
    fn after_a_failed_sync_nothing_is_written_any_more() {
        let store = MemoryStore::new(1);
        let region = RegionBackend::open(store.clone(), 5).unwrap();
        region.set_len(BLOCK_BYTES).unwrap();
        region.write(0, &[1]).unwrap();
        store.fail();
        assert!(region.sync_data().is_err());
        assert!(region.sync_data().unwrap_err().to_string().contains("failed before"));
    }

    #[test]
    fn a_malformed_head_is_refused_and_a_wiped_region_is_empty() {
        let store = MemoryStore::new(1);
        let mirror: Mirror = store.clone();
        let key = ShardKey::region(5, 0);
        let put = |bytes: Vec<u8>| wait(mirror.put(key, Payload::Parts(vec![bytes.into()]))).unwrap();
        let good = encode_head(5, 77);
        put(good.to_vec());
        assert_eq!(RegionBackend::open(mirror.clone(), 5).unwrap().len().unwrap(), 77);
        for at in 0..16 {
            let mut bad = good;
            bad[at] ^= 1;
            put(bad.to_vec());
            assert!(RegionBackend::open(mirror.clone(), 5).is_err(), "byte {at}");
        }
        RegionBackend::wipe(&mirror, 5).unwrap();
        assert_eq!(RegionBackend::open(Arc::clone(&mirror), 5).unwrap().len().unwrap(), 0);
    }
}
