//! Many seeds on many threads, watched by the wall clock: a seed that does not come back is a hang.
//!
//! The clock decides when to stop and what counts as stuck, never what a seed does.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Law};
use crate::harness::{self, Outcome};
use crate::plan::Plan;
use crate::tally::Tally;

/// A seed takes seconds at most; one that takes this long is in a poll that does not return.
pub const STUCK_AFTER: Duration = Duration::from_secs(60);

/// A seed that broke a law.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The seed.
    pub seed: u64,
    /// The law.
    pub failure: Failure,
    /// The run, when a run it was.
    pub plan: Option<Plan>,
}

/// What a hunt shares between its threads.
#[derive(Debug, Default)]
pub struct Hunt {
    next: AtomicU64,
    stop: AtomicBool,
    tally: Mutex<Tally>,
    findings: Mutex<Vec<Finding>>,
    /// By thread: the seed it is at, and since when.
    at: Mutex<BTreeMap<usize, (u64, Instant)>>,
}

impl Hunt {
    /// A hunt whose seeds follow `first`.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self { next: AtomicU64::new(first), ..Self::default() }
    }

    /// One thread's work, until the hunt is stopped.
    pub fn work(&self, thread: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            lock(&self.at).insert(thread, (seed, Instant::now()));
            let Outcome { tally, found } = harness::run(seed);
            lock(&self.at).remove(&thread);
            lock(&self.tally).merge(&tally);
            if let Some((failure, plan)) = found {
                lock(&self.findings).push(Finding { seed, failure, plan });
            }
        }
    }

    /// Tells the threads to end after their present seed.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Threads that are at a seed.
    #[must_use]
    pub fn busy(&self) -> usize {
        lock(&self.at).len()
    }

    /// Notes seeds that have not come back; gives the threads that are lost to them.
    pub fn note_stuck(&self) -> Vec<usize> {
        let mut at = lock(&self.at);
        let stuck: Vec<usize> =
            at.iter().filter(|(_, (_, since))| since.elapsed() > STUCK_AFTER).map(|(thread, _)| *thread).collect();
        for thread in &stuck {
            if let Some((seed, _)) = at.remove(thread) {
                let failure = Failure::new(Law::Hang, "a poll does not return");
                lock(&self.findings).push(Finding { seed, failure, plan: None });
            }
        }
        stuck
    }

    /// What was done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// What was found so far.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        lock(&self.findings).clone()
    }
}

/// A thread that panicked while it held the lock left counters, nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
