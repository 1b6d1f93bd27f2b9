//! The background services' timers, and the object layer's own. Each step is a call of the object layer; here is only
//! when.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use object::{ObjectStore, Timers};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::observe::Health;

/// Between looks at the devices: how much may be taken in after a device has become full.
const SPACE_EVERY: Duration = Duration::from_millis(250);
/// Between looks for garbage, while there is none.
const GARBAGE_EVERY: Duration = Duration::from_millis(500);
/// Between tries to pack, while there is too little.
const PACK_EVERY: Duration = Duration::from_secs(1);
/// Between index checkpoints while there is something new: bounds what a start replays.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
/// Between looks for shards that arrived late.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// After a failed step.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// The object layer's timer door: tokio's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokioTimers;

impl Timers for TokioTimers {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        sleep(time).boxed()
    }
}

/// Starts all of them; they end when `stop` turns true.
pub(crate) fn start(store: &ObjectStore, health: &Arc<Health>, stop: &watch::Receiver<bool>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (s, h) = (store.clone(), Arc::clone(health));
    tasks.spawn(until(stop.clone(), async move {
        loop {
            let intake = s.look_at_devices().await;
            h.look(&s, intake);
            sleep(SPACE_EVERY).await;
        }
    }));
    let s = store.clone();
    tasks.spawn(until(stop.clone(), async move {
        loop {
            match s.collect_garbage().await {
                Ok(true) => {}
                Ok(false) => sleep(GARBAGE_EVERY).await,
                Err(error) => {
                    tracing::warn!(%error, "garbage could not be freed");
                    sleep(AFTER_ERROR).await;
                }
            }
        }
    }));
    let s = store.clone();
    tasks.spawn(until(stop.clone(), async move {
        loop {
            match s.pack(false).await {
                Ok(Some(report)) => tracing::debug!(objects = report.moved, bytes = report.bytes, "packed"),
                Ok(None) => sleep(PACK_EVERY).await,
                Err(error) => {
                    tracing::warn!(%error, "small objects could not be packed");
                    sleep(AFTER_ERROR).await;
                }
            }
        }
    }));
    let s = store.clone();
    tasks.spawn(until(stop.clone(), async move {
        let acked = || s.index_status().map(|status| status.journal.acked);
        let mut last = acked();
        loop {
            sleep(CHECKPOINT_EVERY).await;
            let acked = acked();
            if acked == last {
                continue;
            }
            match s.checkpoint().await {
                Ok(()) => last = acked,
                Err(error) => tracing::warn!(%error, "the index could not be checkpointed"),
            }
        }
    }));
    let s = store.clone();
    tasks.spawn(until(stop.clone(), async move {
        loop {
            sleep(SETTLE_EVERY).await;
            match s.settle_late_shards().await {
                Ok(0) => {}
                Ok(shards) => tracing::debug!(shards, "shards arrived late and are owed no more"),
                // Their rows stay until repair looks.
                Err(error) => tracing::debug!(%error, "late shards could not be settled"),
            }
        }
    }));
    let s = store.clone();
    tasks.spawn(until(stop.clone(), async move {
        match s.sweep_orphans().await {
            Ok(0) => {}
            Ok(shards) => tracing::info!(shards, "shards of cut-off uploads were freed"),
            Err(error) => tracing::warn!(%error, "orphans could not be swept; the next start tries again"),
        }
    }));
    tasks
}

async fn until(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        // An error means that the sender is gone: the same wish.
        _ = stop.wait_for(|stop| *stop) => {}
    }
}
