//! Stripe ids: counted up, reserved in the index in large steps, so that none is ever given out twice.

use std::sync::atomic::{AtomicU64, Ordering};

use base::StripeId;
use index::model::Command;
use index::{IndexError, Partition};
use tokio::sync::Mutex;

/// Ids reserved by one command. A restart skips what was left: 2^64 ids are enough.
const STEP: u64 = 1 << 20;

pub(crate) struct StripeIds {
    next: AtomicU64,
    below: AtomicU64,
    reserving: Mutex<()>,
}

impl StripeIds {
    /// Ids from `below` on; everything under it was given out, perhaps.
    pub(crate) fn new(below: u64) -> Self {
        Self { next: below.into(), below: below.into(), reserving: Mutex::default() }
    }

    /// The first of `count` consecutive ids that are the caller's alone.
    pub(crate) async fn take(&self, partition: &Partition, count: u64) -> Result<StripeId, IndexError> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let end = first + count;
        if end > self.below.load(Ordering::Acquire) {
            let _one = self.reserving.lock().await;
            if end > self.below.load(Ordering::Acquire) {
                let below = end.next_multiple_of(STEP) + STEP;
                partition.submit(Command::ReserveStripes { below }, Vec::new()).await?;
                self.below.store(below, Ordering::Release);
            }
        }
        Ok(StripeId(first))
    }
}
