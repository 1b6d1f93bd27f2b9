//! The store of one device as the journal and the index views need it; a trait so that tests can put a
//! store in memory in its place.

use std::ops::Range;
use std::sync::Arc;

use base::{DeviceId, Lsn, PartitionId};
use bytes::Bytes;
use format::{ShardKey, Space};
use futures::future::BoxFuture;
use shards::{Payload, ShardInfo, StoreHandle, StoreResult};

/// See the methods of [`StoreHandle`]: each does the same.
pub trait MirrorStore: std::fmt::Debug + Send + Sync + 'static {
    /// The device.
    fn device(&self) -> DeviceId;
    /// Stores a record durably.
    fn put(&self, key: ShardKey, payload: Payload) -> BoxFuture<'_, StoreResult<()>>;
    /// Verified bytes of a record.
    fn get(&self, key: ShardKey, range: Range<u32>) -> BoxFuture<'_, StoreResult<Bytes>>;
    /// Removes records durably.
    fn delete(&self, keys: Vec<ShardKey>) -> BoxFuture<'_, StoreResult<()>>;
    /// Records with keys above `after`.
    fn list(&self, after: Option<ShardKey>, limit: usize) -> BoxFuture<'_, StoreResult<Vec<ShardInfo>>>;
    /// Removes a partition's journal records below `below`.
    fn trim(&self, partition: PartitionId, below: Lsn) -> BoxFuture<'_, StoreResult<()>>;
}

/// A shared store.
pub type Mirror = Arc<dyn MirrorStore>;

/// Stores as mirrors.
#[must_use]
pub fn mirrors(stores: &[StoreHandle]) -> Vec<Mirror> {
    stores.iter().map(|store| Arc::new(store.clone()) as Mirror).collect()
}

impl MirrorStore for StoreHandle {
    fn device(&self) -> DeviceId {
        Self::device(self)
    }

    fn put(&self, key: ShardKey, payload: Payload) -> BoxFuture<'_, StoreResult<()>> {
        Box::pin(Self::put(self, key, Bytes::new(), payload))
    }

    fn get(&self, key: ShardKey, range: Range<u32>) -> BoxFuture<'_, StoreResult<Bytes>> {
        Box::pin(Self::get(self, key, range))
    }

    fn delete(&self, keys: Vec<ShardKey>) -> BoxFuture<'_, StoreResult<()>> {
        Box::pin(Self::delete(self, keys))
    }

    fn list(&self, after: Option<ShardKey>, limit: usize) -> BoxFuture<'_, StoreResult<Vec<ShardInfo>>> {
        Box::pin(Self::list(self, after, limit))
    }

    fn trim(&self, partition: PartitionId, below: Lsn) -> BoxFuture<'_, StoreResult<()>> {
        Box::pin(Self::trim(self, partition, below))
    }
}

/// Records listed in one request of [`keys_of`].
const LIST_PAGE: usize = 4096;

/// Numbers of all records of one space and owner on a store, ascending.
///
/// # Errors
/// As [`MirrorStore::list`].
pub async fn keys_of(store: &dyn MirrorStore, space: Space, owner: u32) -> StoreResult<Vec<u64>> {
    let first = ShardKey { space, owner, id: 0, slot: 0 };
    let mut ids = Vec::new();
    // `list` gives keys strictly above; the only key it could miss is number 0 itself.
    match store.get(first, 0..1).await {
        Ok(_) | Err(shards::StoreError::Corrupt { .. }) => ids.push(0),
        Err(shards::StoreError::NotFound) => {}
        Err(error) => return Err(error),
    }
    let mut after = first;
    loop {
        let page = store.list(Some(after), LIST_PAGE).await?;
        let full = page.len() == LIST_PAGE;
        for info in page {
            if info.key.space != space || info.key.owner != owner {
                return Ok(ids);
            }
            after = info.key;
            ids.push(info.key.id);
        }
        if !full {
            return Ok(ids);
        }
    }
}
