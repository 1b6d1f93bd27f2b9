//! Freeing stripes: those no row refers to any more, and those of uploads that were given up.
//!
//! A garbage row is taken only when every reader that may have seen the object has ended (or an hour has passed); its shards are
//! deleted on every device that answers, and only then is the row removed. A device that is away keeps
//! its shards; they are found unreferenced when it is back.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use base::StripeId;
use format::ShardKey;
use futures::future::join_all;
use index::model::{Command, StripeRun};
use shards::StoreError;

use crate::api::ObjectResult;
use crate::inner::{Inner, Ripening, index_error};
use crate::store::ObjectStore;

/// Garbage rows taken by one step.
const ROWS_MAX: usize = 256;
/// How long a download may hold garbage back. A slower one fails by name when it comes to a freed stripe:
/// one client must not keep the devices full for ever.
const READER_TIME_MAX: Duration = Duration::from_secs(3600);
/// Keys deleted on one device by one request.
const KEYS_MAX: usize = 4096;

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
        let mut rows = inner.partition.read(|rows| rows.garbage(0, ROWS_MAX)).map_err(|error| index_error(&error))?;
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
    if !inner.readers.have_left(seen.epoch) && now.saturating_sub(seen.since) < READER_TIME_MAX {
        return None;
    }
    *ripening = None;
    Some(seen.newest)
}

/// Deletes every shard of the runs on every device that answers; gives the number of stripes.
pub(crate) async fn free(inner: &Arc<Inner>, runs: &[StripeRun]) -> u64 {
    let mut keys: BTreeMap<usize, Vec<ShardKey>> = BTreeMap::new();
    let mut stripes = 0;
    for run in runs {
        for number in 0..u64::from(run.count) {
            stripes += 1;
            for slot in 0..inner.code.total() {
                if let Some(device) = inner.groups.device(run.group, slot) {
                    let key = ShardKey::stripe(StripeId(run.first.0 + number), slot as u8);
                    keys.entry(device).or_default().push(key);
                }
            }
        }
    }
    let deletes = keys.into_iter().filter_map(|(device, keys)| Some((inner.stores[device].as_ref()?, keys)));
    join_all(deletes.map(|(store, keys)| async move {
        for chunk in keys.chunks(KEYS_MAX) {
            match store.delete(chunk.to_vec()).await {
                Ok(()) | Err(StoreError::Closed) => {}
                Err(error) => {
                    tracing::warn!(device = %store.device(), %error, "shards could not be deleted");
                    return;
                }
            }
        }
    }))
    .await;
    stripes
}
