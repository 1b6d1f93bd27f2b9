//! Stripe ids: taken from the index in large ranges, each this node's alone, so that none is ever given out twice.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::StripeId;
use index::model::{Command, Outcome};

use crate::api::ObjectResult;
use crate::inner::{Inner, index_error, refused, unexpected};

/// Ids taken by one command. What is left of a range is never used: 2^64 ids are enough.
const STEP: u64 = 1 << 20;
/// A range is used for so long. The sweep of orphans fences off ids that are older; see [`Command::FenceStripes`].
const AGE_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
struct Range {
    next: u64,
    end: u64,
    /// When it was taken; monotonic.
    since: Duration,
}

/// The ids of one node.
#[derive(Debug, Default)]
pub(crate) struct StripeIds {
    range: Mutex<Range>,
    taking: tokio::sync::Mutex<()>,
}

impl StripeIds {
    fn lock(&self) -> MutexGuard<'_, Range> {
        self.range.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_take(&self, count: u64, now: Duration) -> Option<StripeId> {
        let mut range = self.lock();
        if now.saturating_sub(range.since) > AGE_MAX || range.end - range.next < count {
            return None;
        }
        let first = range.next;
        range.next += count;
        Some(StripeId(first))
    }

    /// What is left of the range is below the fence.
    pub(crate) fn forget(&self) {
        *self.lock() = Range::default();
    }
}

impl Inner {
    /// The first of `count` consecutive ids that are the caller's alone.
    pub(crate) async fn take_ids(&self, count: u64) -> ObjectResult<StripeId> {
        assert!(count <= STEP, "a run is far shorter than a range");
        if let Some(first) = self.ids.try_take(count, self.clock.monotonic()) {
            return Ok(first);
        }
        let _one = self.ids.taking.lock().await;
        // Somebody else may have taken a range meanwhile.
        let now = self.clock.monotonic();
        if let Some(first) = self.ids.try_take(count, now) {
            return Ok(first);
        }
        let taken = self.partition.submit(Command::TakeStripes { count: STEP }, Vec::new()).await;
        let first = match taken.map_err(|error| index_error(&error))? {
            Outcome::Stripes { first } => first.0,
            Outcome::Refused(refusal) => return Err(refused(refusal)),
            other => return Err(unexpected(&other)),
        };
        *self.ids.lock() = Range { next: first + count, end: first + STEP, since: now };
        Ok(StripeId(first))
    }
}
