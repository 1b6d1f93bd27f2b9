//! Proof that the rare paths were reached: a harness that never reclaims proves nothing of reclaim.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    // A run of `shuttle` stays on the thread that started it.
    static HITS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts that the named path was taken, `times` times.
pub fn hit(name: &'static str, times: u64) {
    HITS.with_borrow_mut(|hits| *hits.entry(name).or_default() += times);
}

/// What was counted on this thread since the last call.
#[must_use]
pub fn take() -> BTreeMap<&'static str, u64> {
    HITS.take()
}
