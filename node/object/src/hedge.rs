//! How much more may be read than was asked for, so that nobody waits for the slowest: a share of all reads, and a
//! burst.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one read of a shard earns, in thousandths of a read: hedging adds at most 5 % to the load.
const EARNED: u64 = 50;
/// Reads that may be saved up: a device that becomes slow at once is hedged around until it is known to be slow, by as
/// many as read from it then.
const SAVED_MAX: u64 = 256;

/// The budget of one node.
#[derive(Debug)]
pub(crate) struct HedgeBudget {
    /// In thousandths of a read.
    saved: AtomicU64,
}

impl Default for HedgeBudget {
    /// A full one.
    fn default() -> Self {
        Self { saved: AtomicU64::new(SAVED_MAX * 1000) }
    }
}

impl HedgeBudget {
    /// So many shards are being read because somebody wants them.
    pub(crate) fn earn(&self, reads: usize) {
        let more = |saved: u64| Some((saved + EARNED * reads as u64).min(SAVED_MAX * 1000));
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether so many may be read besides.
    pub(crate) fn spend(&self, reads: usize) -> bool {
        let less = |saved: u64| saved.checked_sub(1000 * reads as u64);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_in_a_hundred_and_a_burst() {
        let budget = HedgeBudget::default();
        assert_eq!((0..1000).filter(|_| budget.spend(1)).count() as u64, SAVED_MAX);
        let mut spent = 0;
        for _ in 0..10_000 {
            budget.earn(1);
            spent += usize::from(budget.spend(1));
        }
        assert_eq!(spent, 500);
        budget.earn(1_000_000);
        assert!(budget.spend(SAVED_MAX as usize) && !budget.spend(1), "what is saved has an end");
    }
}
