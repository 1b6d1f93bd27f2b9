//! What all parts of the object layer share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{Clock, Entropy};
use coding::Code;
use index::model::{Outcome, Refusal, StripeRun};
use index::{IndexError, PartitionClient};
use shards::StoreError;
use thiserror::Error;
use tokio::sync::watch;

use crate::api::{ObjectError, ObjectResult};
use crate::config::{ConfigError, Redundancy};
use crate::hedge::HedgeBudget;
use crate::ids::StripeIds;
use crate::late::LateShards;
use crate::memory::Memory;
use crate::stores::ShardError;
use crate::timers::{Timers, within};
use crate::topology::Topology;

/// Why the object layer could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The redundancy cannot be had.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The index cannot be opened.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Whether new objects are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// They are.
    Open = 0,
    /// Enough devices work, too few of them have room.
    Full = 1,
    /// Too few devices work.
    TooFewDevices = 2,
}

/// Counters since the layer was opened.
#[derive(Debug, Default)]
pub struct ObjectStats {
    /// Stripes written.
    pub stripes_written: AtomicU64,
    /// Stripes acknowledged with shards missing.
    pub stripes_degraded: AtomicU64,
    /// Reads that had to compute lost shards.
    pub reads_degraded: AtomicU64,
    /// Shards that could not be read.
    pub shards_unreadable: AtomicU64,
    /// Objects that rode in the journal.
    pub inline_puts: AtomicU64,
    /// Objects moved into packs.
    pub packed_objects: AtomicU64,
    /// Packs written.
    pub packs_written: AtomicU64,
    /// Stripes freed.
    pub stripes_freed: AtomicU64,
    /// Stripes of cut-off uploads freed.
    pub orphans_freed: AtomicU64,
    /// Encoded stripes whose inverse did not give the data back (memory or processor faults).
    pub encode_mismatches: AtomicU64,
    /// Stripes acknowledged because the grace for their last shards was over.
    pub grace_expired: AtomicU64,
    /// Shards that arrived after their stripe had been acknowledged, or refused, without them.
    pub late_shards: AtomicU64,
    /// Shards not sent because their device owed too many already.
    pub shards_not_sent: AtomicU64,
    /// Reads that asked other shards because one took longer than its twins do.
    pub hedges_begun: AtomicU64,
    /// Those of them that were answered by the other shards.
    pub hedges_won: AtomicU64,
    /// Hedges that the budget did not allow.
    pub hedges_denied: AtomicU64,
    /// Requests that went on under a newer map.
    pub views_renewed: AtomicU64,
}

pub(crate) struct Inner {
    /// The newest view of the devices.
    pub(crate) views: watch::Sender<Arc<Topology>>,
    pub(crate) redundancy: Redundancy,
    pub(crate) code: Code,
    pub(crate) partition: Arc<dyn PartitionClient>,
    pub(crate) ids: StripeIds,
    pub(crate) memory: Memory,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timers: Arc<dyn Timers>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) stats: ObjectStats,
    /// Whether the devices take shards ([`Intake`] as a number); looked at by the daemon's timer.
    pub(crate) intake: AtomicU8,
    pub(crate) readers: Readers,
    /// Garbage seen, waiting for the readers of its time.
    pub(crate) ripening: Mutex<Option<Ripening>>,
    /// Runs of uploads that were given up, to be freed.
    pub(crate) abandoned: Mutex<Vec<StripeRun>>,
    /// How long garbage waits for readers on other hosts.
    pub(crate) foreign_readers: Duration,
    /// The next sweep of orphans looks at stripe ids below this; `None` where the partition is elsewhere.
    pub(crate) sweep_below: Mutex<Option<u64>>,
    /// Counts runs, to spread them over the groups.
    pub(crate) runs: AtomicU64,
    pub(crate) hedges: HedgeBudget,
    pub(crate) late: LateShards,
}

impl Inner {
    /// The devices as they are known now.
    pub(crate) fn view(&self) -> Arc<Topology> {
        Arc::clone(&self.views.borrow())
    }

    /// A view newer than of `epoch`; one that comes soon is waited for.
    pub(crate) async fn newer_view(&self, epoch: u64, wait: Duration) -> Option<Arc<Topology>> {
        let now = self.view();
        if now.epoch() > epoch {
            return Some(now);
        }
        if wait.is_zero() {
            return None;
        }
        let mut views = self.views.subscribe();
        let newer = within(&*self.timers, wait, views.wait_for(|view| view.epoch() > epoch)).await?;
        newer.ok().map(|view| Arc::clone(&view))
    }

    /// A group for new data, with the view that it belongs to.
    pub(crate) fn choose(&self) -> ObjectResult<(Arc<Topology>, u32)> {
        let view = self.view();
        let group = view.choose(self.runs.fetch_add(1, Ordering::Relaxed), self.redundancy.shards_min());
        let group = group.ok_or_else(|| ObjectError::Unavailable("too few devices take writes".into()))?;
        Ok((view, group))
    }

    pub(crate) fn require_room(&self) -> ObjectResult<()> {
        match self.intake() {
            Intake::Open => Ok(()),
            Intake::Full => Err(ObjectError::InsufficientStorage),
            Intake::TooFewDevices => Err(ObjectError::Unavailable("too few devices take writes".into())),
        }
    }

    pub(crate) fn intake(&self) -> Intake {
        match self.intake.load(Ordering::Relaxed) {
            0 => Intake::Open,
            1 => Intake::Full,
            _ => Intake::TooFewDevices,
        }
    }

    pub(crate) fn set_intake(&self, intake: Intake) {
        self.intake.store(intake as u8, Ordering::Relaxed);
    }

    /// A number that no other put or upload has.
    pub(crate) fn unique(&self) -> u128 {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }

    pub(crate) fn abandon(&self, runs: Vec<StripeRun>) {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).extend(runs);
    }

    pub(crate) fn take_abandoned(&self) -> Vec<StripeRun> {
        std::mem::take(&mut self.abandoned.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the index says, in the words of the object layer.
pub(crate) fn index_error(error: &IndexError) -> ObjectError {
    match error {
        error if error.is_retryable() => ObjectError::SlowDown,
        error if error.is_unavailable() => ObjectError::Unavailable(error.to_string()),
        other => ObjectError::Internal(other.to_string()),
    }
}

/// What a store says, in the words of the object layer.
pub(crate) fn shard_error(error: &ShardError) -> ObjectError {
    match error {
        ShardError::Store(StoreError::Full) => ObjectError::InsufficientStorage,
        other => ObjectError::Unavailable(other.to_string()),
    }
}

pub(crate) fn refused(refusal: Refusal) -> ObjectError {
    match refusal {
        Refusal::BucketExists { owner } => ObjectError::BucketExists { owner },
        Refusal::NoSuchBucket => ObjectError::NoSuchBucket,
        Refusal::BucketNotEmpty => ObjectError::BucketNotEmpty,
        Refusal::NoSuchKey => ObjectError::NoSuchKey,
        Refusal::PreconditionFailed => ObjectError::PreconditionFailed,
        Refusal::NoSuchUpload => ObjectError::NoSuchUpload,
        Refusal::InvalidPart { number } => ObjectError::InvalidPart { number },
        Refusal::InvalidPartOrder => ObjectError::InvalidPartOrder,
        Refusal::PartTooSmall { number, size } => ObjectError::PartTooSmall { number, size },
        Refusal::TooLarge => ObjectError::TooLarge,
        Refusal::ChecksumMismatch => ObjectError::ChecksumMismatch,
        Refusal::StaleStripes => ObjectError::SlowDown,
    }
}

/// An outcome that the command cannot have.
pub(crate) fn unexpected(outcome: &Outcome) -> ObjectError {
    ObjectError::Internal(format!("the index answered {outcome:?}"))
}

/// Garbage rows that are freed once the readers that may still need them have ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ripening {
    /// The newest of the rows.
    pub(crate) newest: u64,
    /// Readers of this epoch and before may need them.
    pub(crate) epoch: u64,
    /// When they were seen; monotonic.
    pub(crate) since: Duration,
}

/// Readers under way, by the epoch they began in: what garbage they may still need is not freed.
#[derive(Default)]
pub(crate) struct Readers {
    state: Mutex<ReaderState>,
}

#[derive(Default)]
struct ReaderState {
    epoch: u64,
    active: BTreeMap<u64, u64>,
}

/// Held by a reader for as long as it may read.
pub(crate) struct ReadGuard {
    inner: Arc<Inner>,
    epoch: u64,
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, ReaderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the epoch; later readers cannot see what was garbage before. Gives the ended epoch.
    pub(crate) fn advance(&self) -> u64 {
        let mut state = self.lock();
        state.epoch += 1;
        state.epoch - 1
    }

    /// Whether every reader of `epoch` and before has ended.
    pub(crate) fn have_left(&self, epoch: u64) -> bool {
        self.lock().active.first_key_value().is_none_or(|(oldest, _)| *oldest > epoch)
    }
}

impl ReadGuard {
    /// To be taken before the rows are looked at.
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        let mut state = inner.readers.lock();
        let epoch = state.epoch;
        *state.active.entry(epoch).or_default() += 1;
        drop(state);
        Self { inner: Arc::clone(inner), epoch }
    }
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        let mut state = self.inner.readers.lock();
        if let Some(active) = state.active.get_mut(&self.epoch) {
            *active -= 1;
            if *active == 0 {
                state.active.remove(&self.epoch);
            }
        }
    }
}
