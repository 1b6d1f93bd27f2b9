//! This node's devices as the other nodes see them.
//!
//! Invariants: a request whose sender went by a map older than the fence is refused, so that nobody writes to a group
//! as it was; a request for a device that is not served here is refused by name.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use base::DeviceId;
use bytes::Bytes;
use format::ShardKey;
use futures::future::BoxFuture;
use shards::{Payload, StoreHandle};
use wire::Fault;
use wire::shards::{DeviceStats, ShardHost, Target};

use crate::convert::fault_of;

/// Devices by id.
pub type Served = BTreeMap<DeviceId, StoreHandle>;

/// See the file's header. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LocalShards {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    devices: RwLock<Served>,
    /// Epoch of the newest map that changed where shards are.
    fence: AtomicU64,
}

impl LocalShards {
    /// Serves these devices from now on.
    pub fn serve(&self, devices: Served) {
        *self.inner.devices.write().unwrap_or_else(PoisonError::into_inner) = devices;
    }

    /// Refuses senders that go by a map older than `epoch`.
    pub fn fence(&self, epoch: u64) {
        self.inner.fence.fetch_max(epoch, Ordering::SeqCst);
    }

    fn store(&self, target: Target) -> Result<StoreHandle, Fault> {
        let fence = self.inner.fence.load(Ordering::SeqCst);
        if target.map_epoch < fence {
            return Err(Fault::StaleMap { epoch: fence });
        }
        let devices = self.inner.devices.read().unwrap_or_else(PoisonError::into_inner);
        devices.get(&target.device).cloned().ok_or(Fault::NoSuchDevice)
    }
}

impl ShardHost for LocalShards {
    fn put(
        &self,
        to: Target,
        key: ShardKey,
        descriptor: Bytes,
        payload: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { self.store(to)?.put(key, descriptor, Payload::Parts(payload)).await.map_err(fault_of) })
    }

    fn get(&self, from: Target, key: ShardKey, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, Fault>> {
        Box::pin(async move { self.store(from)?.get(key, range).await.map_err(fault_of) })
    }

    fn describe(&self, at: Target, key: ShardKey) -> BoxFuture<'_, Result<(u32, Bytes), Fault>> {
        Box::pin(async move { self.store(at)?.describe(key).await.map_err(fault_of) })
    }

    fn delete(&self, at: Target, keys: Vec<ShardKey>) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { self.store(at)?.delete(keys).await.map_err(fault_of) })
    }

    fn list(
        &self,
        at: Target,
        after: Option<ShardKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(ShardKey, u32)>, Fault>> {
        Box::pin(async move {
            let found = self.store(at)?.list(after, limit).await.map_err(fault_of)?;
            Ok(found.into_iter().map(|info| (info.key, info.len)).collect())
        })
    }

    fn stats(&self, at: Target) -> BoxFuture<'_, Result<DeviceStats, Fault>> {
        Box::pin(async move {
            let stats = self.store(at)?.stats().await.map_err(fault_of)?;
            Ok(DeviceStats {
                capacity_bytes: stats.capacity_bytes,
                live_bytes: stats.live_bytes,
                available_bytes: stats.available_bytes,
                records: stats.records,
                poisoned: stats.poisoned,
            })
        })
    }
}
