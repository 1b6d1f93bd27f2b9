//! Looks at everything that a store holds, while nothing else is under way.

use std::rc::Rc;

use format::Space;
use shards::{StoreHandle, StoreStats};

use crate::client::{describe, get, list, universe, verify};
use crate::failure::Law;
use crate::shared::Shared;

/// Records are refused as full only on devices of which live records take at least this share, in percent. Streams
/// hold an extent open each, large records leave extents half empty, and the reserve is a third of a small device.
const FULL_MIN_PERCENT: u64 = 8;

/// Reads every key whole; also describes, lists in pages and verifies when `thorough`.
pub(crate) async fn look(shared: Rc<Shared>, store: StoreHandle, thorough: bool) {
    for key in universe(&shared) {
        get(&shared, &store, key, 0..u32::MAX).await;
        if thorough {
            describe(&shared, &store, key).await;
        }
    }
    if shared.fault_seen.get() && store.faults().await.is_ok_and(|faults| faults.is_empty()) {
        shared.fail(Law::Accounting, "a client met a fault and the store has no record of it".to_owned());
    }
    list(&shared, &store, if thorough { 3 } else { 1000 }).await;
    if !thorough {
        return;
    }
    // What reclaim moves meanwhile may be met twice, or not at all; so may what older records of one place hide.
    if let Ok(before) = store.stats().await
        && let Some(met) = verify(&shared, &store).await
        && let Ok(stats) = store.stats().await
        && met != stats.records
        && before.moved_bytes == stats.moved_bytes
        && !shared.armed.wild_for_good.get()
    {
        shared.fail(Law::Accounting, format!("verifying met {met} records of {}", stats.records));
    }
}

/// Counters against the model, when it knows exactly what is there.
pub(crate) fn account(shared: &Shared, stats: &StoreStats) {
    let held = shared.model.borrow().held();
    let live: usize = held.iter().map(|(key, value)| value.record_bytes(key.space == Space::Journal)).sum();
    if stats.available_bytes > stats.capacity_bytes || stats.live_bytes > stats.capacity_bytes {
        shared.fail(Law::Accounting, format!("more than there is: {stats:?}"));
    }
    if shared.model.borrow().is_exact() && (stats.records, stats.live_bytes) != (held.len() as u64, live as u64) {
        let what = format!("{} records of {live} bytes are there, the store counts {stats:?}", held.len());
        shared.fail(Law::Accounting, what);
    }
}

/// A put was refused as full: that must have a reason.
pub(crate) fn judge_refusal(shared: &Shared, stats: &StoreStats) {
    if !shared.may_be_damaged() && stats.live_bytes * 100 < stats.capacity_bytes * FULL_MIN_PERCENT {
        shared.fail(Law::Accounting, format!("refused as full: {stats:?}"));
    }
}
