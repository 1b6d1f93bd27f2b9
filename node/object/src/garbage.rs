//! Freeing stripes: those no row refers to any more, and those of uploads that were given up.
//!
//! A garbage row is taken only when every reader that may have seen the object has ended (or an hour has passed); its shards are
//! deleted on every device that answers, and only then is the row removed. A device that is away keeps
//! its shards; they are found unreferenced when it is back.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use base::{DeviceId, StripeId};
use format::ShardKey;
use futures::future::join_all;
use index::model::{Command, StripeRun};
use shards::StoreError;

use crate::api::ObjectResult;
use crate::inner::{Inner, Ripening, index_error};
use crate::store::ObjectStore;
use crate::stores::{ShardError, ShardStore};
use crate::timers::within;

/// Garbage rows taken by one step.
const ROWS_MAX: u32 = 256;
/// How long a download may hold garbage back. A slower one fails by name when it comes to a freed stripe:
/// one client must not keep the devices full for ever.
const READER_TIME_MAX: Duration = Duration::from_secs(3600);
/// Keys deleted on one device by one request.
const KEYS_MAX: usize = 4096;
/// A device that has not deleted by then keeps its shards until the next sweep of orphans.
const DELETE_MAX: Duration = Duration::from_secs(60);

impl ObjectStore {
    /// Frees some garbage; gives whether there was any. The daemon calls it again and again.
    ///
    /// # Errors
    /// What the index says; nothing is lost, the next call tries again.
    pub async fn collect_garbage(&self) -> ObjectResult<bool> {
        let inner = &self.inner;
        let abandoned = inner.take_abandoned();
        if !abandoned.is_empty() {
            let freed = free(inner, &abandoned).await;
            inner.stats.orphans_freed.fetch_add(freed, Ordering::Relaxed);
        }
        // Only beside the rows: others free what their own uploads gave up.
        if inner.partition.local().is_none() {
            return Ok(!abandoned.is_empty());
        }
        let mut rows = inner.partition.garbage(0, ROWS_MAX).await.map_err(|error| index_error(&error))?;
        let Some(last) = rows.last() else { return Ok(!abandoned.is_empty()) };
        let Some(newest) = ripe(inner, last.id) else { return Ok(false) };
        rows.retain(|row| row.id <= newest);
        let runs: Vec<StripeRun> = rows.iter().flat_map(|row| row.runs.iter().copied()).collect();
        let freed = free(inner, &runs).await;
        inner.stats.stripes_freed.fetch_add(freed, Ordering::Relaxed);
        let ids = rows.iter().map(|row| row.id).collect();
        let done = inner.partition.submit(Command::GarbageFreed { ids }, Vec::new()).await;
        done.map(|_| true).map_err(|error| index_error(&error))
    }
}

/// The newest garbage row that no reader needs any more. Readers that began after a row was seen do not
/// count: there are always some on a busy node.
fn ripe(inner: &Inner, last: u64) -> Option<u64> {
    let now = inner.clock.monotonic();
    let mut ripening = inner.ripening.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = *ripening.get_or_insert_with(|| Ripening { newest: last, epoch: inner.readers.advance(), since: now });
    let waited = now.saturating_sub(seen.since);
    if waited < inner.foreign_readers || !inner.readers.have_left(seen.epoch) && waited < READER_TIME_MAX {
        return None;
    }
    *ripening = None;
    Some(seen.newest)
}

/// Deletes every shard of the runs on every device that answers; gives the number of stripes.
pub(crate) async fn free(inner: &Arc<Inner>, runs: &[StripeRun]) -> u64 {
    inner.late.freed(runs);
    let view = inner.view();
    let mut keys: BTreeMap<DeviceId, (Arc<dyn ShardStore>, Vec<ShardKey>)> = BTreeMap::new();
    let mut stripes = 0;
    for run in runs {
        stripes += u64::from(run.count);
        for (slot, device) in view.slots(run.group).enumerate() {
            let Some(store) = &device.store else { continue };
            let (_, keys) = keys.entry(device.id).or_insert_with(|| (Arc::clone(store), Vec::new()));
            let ids = (0..u64::from(run.count)).map(|number| StripeId(run.first.0 + number));
            keys.extend(ids.map(|id| ShardKey::stripe(id, slot as u8)));
        }
    }
    join_all(keys.into_iter().map(|(device, (store, keys))| async move {
        for chunk in keys.chunks(KEYS_MAX) {
            let deleted = within(&*inner.timers, DELETE_MAX, store.delete(chunk.to_vec())).await;
            match deleted.unwrap_or(Err(ShardError::Timeout)) {
                Ok(()) | Err(ShardError::Store(StoreError::Closed)) => {}
                Err(error) => {
                    tracing::warn!(%device, %error, "shards could not be deleted");
                    return;
                }
            }
        }
    }))
    .await;
    stripes
}
