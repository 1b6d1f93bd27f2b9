//! Memory for stripes: a budget for the whole node, and used buffers to write into again.

use std::sync::{Arc, Mutex, PoisonError};

use disk::AlignedBuf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Unit of the budget.
const UNIT_BYTES: usize = 64 << 10;
/// Used buffers kept for the next stripe; beyond that memory goes back to the system.
const SPARES_MAX: usize = 8;

/// The budget. Who wants more than is left waits: overload slows callers down before it grows the process.
pub(crate) struct Memory {
    permits: Arc<Semaphore>,
    units: u32,
    spares: Mutex<Vec<AlignedBuf>>,
}

impl Memory {
    pub(crate) fn new(budget_bytes: usize) -> Self {
        let units = u32::try_from(budget_bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        Self { permits: Arc::new(Semaphore::new(units as usize)), units, spares: Mutex::default() }
    }

    /// Waits for room for so many bytes; one request larger than the whole budget gets the whole budget.
    pub(crate) async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units);
        let permits = Arc::clone(&self.permits);
        permits.acquire_many_owned(units).await.expect("the budget is never closed")
    }

    pub(crate) fn spare(&self, bytes: usize) -> Option<AlignedBuf> {
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        let at = spares.iter().position(|buf| buf.len() == bytes)?;
        Some(spares.swap_remove(at))
    }

    pub(crate) fn give_back(&self, buf: AlignedBuf) {
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < SPARES_MAX {
            spares.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn who_asks_for_more_than_is_left_waits() {
        let memory = Memory::new(10 * UNIT_BYTES);
        let held = memory.take(8 * UNIT_BYTES).now_or_never().expect("there is room");
        assert!(memory.take(3 * UNIT_BYTES).now_or_never().is_none());
        drop(held);
        assert!(memory.take(usize::MAX).now_or_never().is_some(), "the largest request gets everything");
    }
}
