//! Orphans: shards that no row refers to, left by uploads that a crash cut off, or by a device that was
//! away when they were deleted. Found once after each start, in the background.

use std::sync::atomic::Ordering;

use format::{ShardKey, Space};
use index::model::StripeRun;

use crate::api::ObjectResult;
use crate::inner::{index_error, store_error};
use crate::store::ObjectStore;

/// Keys listed at once.
const PAGE: usize = 4096;

impl ObjectStore {
    /// Deletes shards of stripes that were begun before this start and that nothing refers to. Gives
    /// how many.
    ///
    /// # Errors
    /// What index or stores say; what was not deleted is found by the next start.
    pub async fn sweep_orphans(&self) -> ObjectResult<u64> {
        let inner = &self.inner;
        // Rows are looked at after the first stripe of this life was fixed: whatever has a lower id and
        // no row now will never have one.
        let mut runs: Vec<StripeRun> = Vec::new();
        inner
            .partition
            .read(|rows| {
                runs.clear();
                rows.stripe_runs(|run| runs.push(run))
            })
            .map_err(|error| index_error(&error))?;
        runs.sort_unstable_by_key(|run| run.first);
        let is_referenced = |stripe: u64| {
            let after = runs.partition_point(|run| run.first.0 <= stripe);
            after > 0 && stripe - runs[after - 1].first.0 < u64::from(runs[after - 1].count)
        };
        let mut deleted = 0;
        for store in inner.stores.iter().flatten() {
            let mut after: Option<ShardKey> = None;
            loop {
                let page = store.list(after, PAGE).await.map_err(|error| store_error(&error))?;
                after = page.last().map(|shard| shard.key);
                let lost: Vec<ShardKey> = page
                    .iter()
                    .map(|shard| shard.key)
                    .filter(|key| key.space == Space::Stripe && key.id < inner.first_stripe && !is_referenced(key.id))
                    .collect();
                deleted += lost.len() as u64;
                if !lost.is_empty() {
                    store.delete(lost).await.map_err(|error| store_error(&error))?;
                }
                // Stripes come first in key order.
                if page.len() < PAGE || after.is_some_and(|key| key.space != Space::Stripe) {
                    break;
                }
            }
        }
        inner.stats.orphans_freed.fetch_add(deleted, Ordering::Relaxed);
        Ok(deleted)
    }
}
