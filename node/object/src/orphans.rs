//! Orphans: shards that no row refers to, left by uploads that a crash cut off, by a device that was away when they
//! were deleted, or by a write that was given up and arrived late.
//!
//! What is swept was given out before the sweep before (or before this start): the fence in the index makes sure that
//! no row brings it any more, however long an upload on another host may take. Then the rows are walked, and what has
//! none is deleted.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use format::{ShardKey, Space};
use index::RunsFrom;
use index::model::{Command, StripeRun};

use crate::api::ObjectResult;
use crate::inner::{Inner, index_error, shard_error};
use crate::store::ObjectStore;
use crate::stores::ShardStore;

/// Keys listed at once.
const PAGE: usize = 4096;
/// Runs asked for at once.
const RUNS_PAGE: u32 = 16_384;

/// What rows refer to, by first stripe.
struct Referenced(Vec<StripeRun>);

impl Referenced {
    fn contains(&self, stripe: u64) -> bool {
        let after = self.0.partition_point(|run| run.first.0 <= stripe);
        after > 0 && stripe - self.0[after - 1].first.0 < u64::from(self.0[after - 1].count)
    }
}

impl ObjectStore {
    /// Deletes shards of stripes that were begun before this start, or before the last call, and that nothing refers
    /// to. Gives how many. Does nothing where the partition is elsewhere. Uploads that outlast two calls are refused
    /// (as "slow down", their client sends them again): hours should lie between them.
    ///
    /// # Errors
    /// What index or stores say, when every store was tried; what was not deleted is found by the next sweep.
    pub async fn sweep_orphans(&self) -> ObjectResult<u64> {
        let inner = &self.inner;
        let Some(below) = *inner.sweep_below.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(0) };
        let (fence, next) = self.fence(below).await?;
        let referenced = self.referenced().await?;
        let mut deleted = 0;
        let mut failed = None;
        for store in inner.view().devices().iter().filter_map(|device| device.store.clone()) {
            match sweep(inner, &store, fence, &referenced).await {
                Ok(count) => deleted += count,
                Err(error) => {
                    tracing::warn!(device = %store.device(), %error, "a device was not swept");
                    failed.get_or_insert(error);
                }
            }
        }
        *inner.sweep_below.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        failed.map_or(Ok(deleted), Err)
    }

    /// Closes the index to stripes below; gives where the fence is and what the next sweep may look at.
    async fn fence(&self, below: u64) -> ObjectResult<(u64, u64)> {
        let partition = &self.inner.partition;
        let fenced = partition.submit(Command::FenceStripes { below }, Vec::new()).await;
        fenced.map_err(|error| index_error(&error))?;
        // What this node has left is below the next fence; a new range is not.
        self.inner.ids.forget();
        let counters = partition.counters().await.map_err(|error| index_error(&error))?;
        Ok((below.min(counters.stripes_fence), counters.stripes_below))
    }

    /// Rows are walked after the fence: whatever has a lower id and no row now will never have one.
    async fn referenced(&self) -> ObjectResult<Referenced> {
        let mut runs = Vec::new();
        let mut from = Some(RunsFrom::default());
        while let Some(at) = from {
            let page = self.inner.partition.stripe_runs(at, RUNS_PAGE).await.map_err(|error| index_error(&error))?;
            runs.extend(page.runs);
            from = page.next;
        }
        runs.sort_unstable_by_key(|run| run.first);
        Ok(Referenced(runs))
    }
}

async fn sweep(inner: &Inner, store: &Arc<dyn ShardStore>, fence: u64, referenced: &Referenced) -> ObjectResult<u64> {
    let mut deleted = 0;
    let mut after: Option<ShardKey> = None;
    loop {
        let page = store.list(after, PAGE).await.map_err(|error| shard_error(&error))?;
        after = page.last().map(|shard| shard.key);
        let keys = page.iter().map(|shard| shard.key);
        let is_lost = |key: &ShardKey| key.space == Space::Stripe && key.id < fence && !referenced.contains(key.id);
        let lost: Vec<ShardKey> = keys.filter(is_lost).collect();
        let count = lost.len() as u64;
        if count > 0 {
            store.delete(lost).await.map_err(|error| shard_error(&error))?;
            inner.stats.orphans_freed.fetch_add(count, Ordering::Relaxed);
            deleted += count;
        }
        // Stripes come first in key order.
        if page.len() < PAGE || after.is_some_and(|key| key.space != Space::Stripe) {
            return Ok(deleted);
        }
    }
}
