//! A view at rest: its rows, read from a store to which nothing is written.
//!
//! redb may want to write while it opens a database that was not closed; what it writes is kept in memory
//! over the store and forgotten.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{DeviceId, Lsn, PartitionId};
use bytes::Bytes;
use format::ShardKey;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use replica::{Mirror, MirrorStore};
use shards::{Payload, ShardInfo, StoreError, StoreResult};

use crate::error::IndexError;
use crate::snapshot::Snapshot;
use crate::view::View;

/// A store, and what was written over it.
#[derive(Debug)]
struct Overlay {
    below: Mirror,
    over: Mutex<BTreeMap<ShardKey, Option<Bytes>>>,
}

impl Overlay {
    fn over(&self) -> MutexGuard<'_, BTreeMap<ShardKey, Option<Bytes>>> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MirrorStore for Overlay {
    fn device(&self) -> DeviceId {
        self.below.device()
    }

    fn put(&self, key: ShardKey, payload: Payload) -> BoxFuture<'_, StoreResult<()>> {
        let bytes = match payload {
            Payload::Aligned { bytes, len } => bytes.to_bytes(0..len),
            Payload::Parts(parts) => parts.concat().into(),
        };
        self.over().insert(key, Some(bytes));
        ready(Ok(())).boxed()
    }

    fn get(&self, key: ShardKey, range: Range<u32>) -> BoxFuture<'_, StoreResult<Bytes>> {
        match self.over().get(&key) {
            Some(Some(bytes)) => {
                let end = (range.end as usize).min(bytes.len());
                ready(Ok(bytes.slice((range.start as usize).min(end)..end))).boxed()
            }
            Some(None) => ready(Err(StoreError::NotFound)).boxed(),
            None => self.below.get(key, range),
        }
    }

    fn delete(&self, keys: Vec<ShardKey>) -> BoxFuture<'_, StoreResult<()>> {
        self.over().extend(keys.into_iter().map(|key| (key, None)));
        ready(Ok(())).boxed()
    }

    /// As the store has it: a region lists its blocks once, before it writes.
    fn list(&self, after: Option<ShardKey>, limit: usize) -> BoxFuture<'_, StoreResult<Vec<ShardInfo>>> {
        self.below.list(after, limit)
    }

    fn trim(&self, _: PartitionId, _: Lsn) -> BoxFuture<'_, StoreResult<()>> {
        ready(Err(StoreError::ReadOnly)).boxed()
    }
}

/// The rows of a partition as one device holds them.
#[derive(Debug)]
pub struct RestingView {
    view: Arc<View>,
}

impl RestingView {
    /// Reads the view of a partition in a store; `None` when it holds none. Blocks; the store must be
    /// served by another thread.
    ///
    /// # Errors
    /// [`IndexError::NoView`] when it cannot be read.
    pub fn open(store: &Mirror, partition: PartitionId, cache_bytes: usize) -> Result<Option<Self>, IndexError> {
        let below = Arc::clone(store);
        let overlay: Mirror = Arc::new(Overlay { below, over: Mutex::default() });
        let view = View::open(&overlay, partition.0, cache_bytes);
        let view = view.map_err(|error| IndexError::NoView { reason: error.to_string() })?;
        Ok((view.applied() > Lsn(0)).then(|| Self { view: Arc::new(view) }))
    }

    /// The newest journal position that its rows contain.
    #[must_use]
    pub fn applied(&self) -> Lsn {
        self.view.applied()
    }

    /// Its rows.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn rows(&self) -> Result<Snapshot, IndexError> {
        Snapshot::of(&self.view)
    }
}
