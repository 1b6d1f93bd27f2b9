//! Shards still on their way although their stripe was answered for.
//!
//! The stripe's row says that they are missing. When one arrives after all, the row is taken back (or stays: it is
//! harmless, repair finds the shard there). When the stripe was freed here meanwhile, the shard is deleted again; one
//! that was freed by another host is found by the next sweep of orphans. Nothing ever comes back to life by it: a
//! stripe id is never given out twice, and only rows say what is alive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{DeviceId, StripeId};
use format::ShardKey;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use index::model::{Command, MissingShard, StripeRun};
use tokio::sync::OwnedSemaphorePermit;

use crate::api::ObjectResult;
use crate::inner::{Inner, count, index_error};
use crate::pace::LateWrite;
use crate::scatter::Shipment;
use crate::store::ObjectStore;

/// Arrived shards kept until their rows are taken back; what comes beyond is left to repair.
const ARRIVED_MAX: usize = 4096;
/// Looks for the row of an arrived shard before it is left to repair: its object may not be visible yet.
const LOOKS_MAX: u32 = 600;
/// Rows looked for in one step.
const STEP_MAX: usize = 256;

/// A shard that arrived, and where.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    shard: MissingShard,
    device: DeviceId,
    looks: u32,
}

#[derive(Debug, Default)]
struct LateState {
    /// Stripes with shards on their way, and whether they were freed meanwhile.
    under_way: BTreeMap<StripeId, bool>,
    arrived: Vec<Arrived>,
}

/// All of a node's.
#[derive(Debug, Default)]
pub(crate) struct LateShards {
    state: Mutex<LateState>,
}

impl LateShards {
    fn lock(&self) -> MutexGuard<'_, LateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These stripes are about to be freed: what arrives from now on is deleted again.
    pub(crate) fn freed(&self, runs: &[StripeRun]) {
        let mut state = self.lock();
        if state.under_way.is_empty() {
            return;
        }
        for run in runs {
            let end = StripeId(run.first.0.saturating_add(u64::from(run.count)));
            state.under_way.range_mut(run.first..end).for_each(|(_, freed)| *freed = true);
        }
        state.arrived.retain(|arrived| {
            !runs.iter().any(|run| {
                let number = arrived.shard.stripe.0.checked_sub(run.first.0);
                number.is_some_and(|number| number < u64::from(run.count))
            })
        });
    }

    /// A shard arrived; whether its stripe was freed meanwhile.
    fn arrived(&self, shard: MissingShard, device: DeviceId) -> bool {
        let mut state = self.lock();
        let freed = state.under_way.get(&shard.stripe).copied().unwrap_or(false);
        if !freed && state.arrived.len() < ARRIVED_MAX {
            state.arrived.push(Arrived { shard, device, looks: 0 });
        }
        freed
    }
}

/// The part of a stripe that is late.
pub(crate) struct Late {
    pub(crate) stripe: StripeId,
    pub(crate) group: u32,
    pub(crate) stripe_bytes: u32,
    pub(crate) writes: FuturesUnordered<Shipment>,
    /// By slot: what their devices owe.
    pub(crate) owed: Vec<(usize, LateWrite)>,
    /// The stripe's memory is in use until the last of them has ended.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Lets late shards go on in the background. The stores bound how long; each device has few at a time.
pub(crate) fn leave(inner: &Arc<Inner>, late: Late) {
    inner.late.lock().under_way.insert(late.stripe, false);
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        let Late { stripe, group, stripe_bytes, mut writes, mut owed, permit } = late;
        while let Some(landed) = writes.next().await {
            owed.retain(|(slot, _)| *slot != landed.slot);
            let Ok(store) = landed.done else { continue };
            count(&inner.stats.late_shards);
            let shard = MissingShard { stripe, slot: landed.slot as u8, group, stripe_bytes };
            if inner.late.arrived(shard, store.device()) {
                let key = ShardKey::stripe(stripe, landed.slot as u8);
                if let Err(error) = store.delete(vec![key]).await {
                    tracing::debug!(%stripe, slot = landed.slot, %error, "a late shard is left to the sweep");
                }
            }
        }
        inner.late.lock().under_way.remove(&stripe);
        drop(permit);
    });
}

impl ObjectStore {
    /// Takes back the rows of shards that were said to be missing and arrived after all; gives how many. The daemon
    /// calls it every second or so.
    ///
    /// # Errors
    /// What the index says; the rows stay, which is harmless.
    pub async fn settle_late_shards(&self) -> ObjectResult<u64> {
        let inner = &self.inner;
        let some: Vec<Arrived> = {
            let mut state = inner.late.lock();
            let count = state.arrived.len().min(STEP_MAX);
            state.arrived.drain(..count).collect()
        };
        let view = inner.view();
        let mut shards = Vec::new();
        for mut arrived in some {
            let MissingShard { stripe, slot, group, .. } = arrived.shard;
            // A newer map may want the shard somewhere else: then it is missing there.
            if view.slot(group, slot.into()).is_none_or(|device| device.id != arrived.device) {
                continue;
            }
            let before = match slot.checked_sub(1) {
                Some(slot) => Some((stripe, slot)),
                None => stripe.0.checked_sub(1).map(|stripe| (StripeId(stripe), u8::MAX)),
            };
            let row = inner.partition.missing_shards(before, 1).await.map_err(|error| index_error(&error))?;
            if row.first() == Some(&arrived.shard) {
                shards.push(arrived.shard);
            } else if arrived.looks < LOOKS_MAX {
                arrived.looks += 1;
                inner.late.lock().arrived.push(arrived);
            }
        }
        let settled = shards.len() as u64;
        if settled > 0 {
            let command = Command::ShardsRepaired { shards };
            inner.partition.submit(command, Vec::new()).await.map_err(|error| index_error(&error))?;
        }
        Ok(settled)
    }
}
