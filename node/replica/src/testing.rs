//! A store in memory, for tests: durable at once, can be told to fail, and gives copies of its content
//! so that a crash can be staged.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base::{DeviceId, Lsn, PartitionId};
use bytes::Bytes;
use format::ShardKey;
use futures::future::BoxFuture;
use shards::{Payload, ShardInfo, StoreError, StoreResult};

use crate::mirror::MirrorStore;

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    device: DeviceId,
    records: Mutex<BTreeMap<ShardKey, Bytes>>,
    failing: AtomicBool,
    /// Writes until the store fails.
    writes_left: AtomicU64,
    rotten: Mutex<Vec<ShardKey>>,
}

impl MemoryStore {
    /// An empty store; its device id is `number` sixteen times.
    #[must_use]
    pub fn new(number: u8) -> Arc<Self> {
        Self::with(DeviceId([number; 16]), BTreeMap::new())
    }

    fn with(device: DeviceId, records: BTreeMap<ShardKey, Bytes>) -> Arc<Self> {
        Arc::new(Self {
            device,
            records: Mutex::new(records),
            failing: AtomicBool::new(false),
            writes_left: AtomicU64::new(u64::MAX),
            rotten: Mutex::default(),
        })
    }

    /// A store of the same device with the content of this moment: what a crash now would leave.
    #[must_use]
    pub fn image(&self) -> Arc<Self> {
        Self::with(self.device, self.records.lock().unwrap().clone())
    }

    /// From now on every request fails.
    pub fn fail(&self) {
        self.failing.store(true, Ordering::SeqCst);
    }

    /// After this many more writes every request fails.
    pub fn fail_after(&self, writes: u64) {
        self.writes_left.store(writes, Ordering::SeqCst);
    }

    /// Reads of this record fail as corrupt until it is written again.
    pub fn rot(&self, key: ShardKey) {
        self.rotten.lock().unwrap().push(key);
    }

    /// Removes a record without a trace.
    pub fn lose(&self, key: ShardKey) -> bool {
        self.records.lock().unwrap().remove(&key).is_some()
    }

    /// Keys of all records.
    pub fn keys(&self) -> Vec<ShardKey> {
        self.records.lock().unwrap().keys().copied().collect()
    }

    fn check(&self) -> StoreResult<()> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(StoreError::Poisoned { reason: "told to".to_owned() });
        }
        Ok(())
    }

    fn check_write(&self) -> StoreResult<()> {
        self.check()?;
        let left = self.writes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_err() {
            self.fail();
        }
        self.check()
    }

    fn put_now(&self, key: ShardKey, payload: Payload) -> StoreResult<()> {
        self.check_write()?;
        let bytes = match payload {
            Payload::Aligned { bytes, len } => Bytes::copy_from_slice(&bytes[..len]),
            Payload::Parts(parts) => parts.concat().into(),
        };
        self.records.lock().unwrap().insert(key, bytes);
        self.rotten.lock().unwrap().retain(|k| *k != key);
        Ok(())
    }

    fn get_now(&self, key: ShardKey, range: Range<u32>) -> StoreResult<Bytes> {
        self.check()?;
        if self.rotten.lock().unwrap().contains(&key) {
            return Err(StoreError::Corrupt { offset: 0, what: "told to" });
        }
        let records = self.records.lock().unwrap();
        let bytes = records.get(&key).ok_or(StoreError::NotFound)?;
        let end = (range.end as usize).min(bytes.len());
        Ok(bytes.slice((range.start as usize).min(end)..end))
    }
}

impl MirrorStore for MemoryStore {
    fn device(&self) -> DeviceId {
        self.device
    }

    fn put(&self, key: ShardKey, payload: Payload) -> BoxFuture<'_, StoreResult<()>> {
        Box::pin(async move { self.put_now(key, payload) })
    }

    fn get(&self, key: ShardKey, range: Range<u32>) -> BoxFuture<'_, StoreResult<Bytes>> {
        Box::pin(async move { self.get_now(key, range) })
    }

    fn delete(&self, keys: Vec<ShardKey>) -> BoxFuture<'_, StoreResult<()>> {
        Box::pin(async move {
            self.check_write()?;
            let mut records = self.records.lock().unwrap();
            keys.iter().for_each(|key| drop(records.remove(key)));
            Ok(())
        })
    }

    fn list(&self, after: Option<ShardKey>, limit: usize) -> BoxFuture<'_, StoreResult<Vec<ShardInfo>>> {
        Box::pin(async move {
            self.check()?;
            let records = self.records.lock().unwrap();
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let page = records.range((from, Bound::Unbounded)).take(limit);
            Ok(page.map(|(key, bytes)| ShardInfo { key: *key, len: bytes.len() as u32 }).collect())
        })
    }

    fn trim(&self, partition: PartitionId, below: Lsn) -> BoxFuture<'_, StoreResult<()>> {
        Box::pin(async move {
            self.check_write()?;
            let doomed = ShardKey::journal(partition, Lsn(0))..ShardKey::journal(partition, below);
            let mut records = self.records.lock().unwrap();
            let keys: Vec<ShardKey> = records.range(doomed).map(|(key, _)| *key).collect();
            keys.iter().for_each(|key| drop(records.remove(key)));
            Ok(())
        })
    }
}
