//! The partition: commands go through the journal into the views; reads come from one view.
//!
//! Invariants: a command is answered only after its batch is durable in the journal and applied to the
//! serving view, so that every later snapshot shows it; batches are applied in the journal's order; the
//! journal keeps every position that some healthy view has not made durable, and every position that
//! still holds data of its own.
//!
//! Left out: splitting and merging; a view that fails while serving is rebuilt at the next opening.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{DeviceId, Lsn, PartitionId};
use bytes::Bytes;
use replica::{Journal, JournalStatus, Mirror, Policy};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::batch::{Batch, Sealed};
use crate::block::wait;
use crate::error::IndexError;
use crate::model::{Command, Outcome};
use crate::snapshot::Snapshot;
use crate::view::View;
use crate::{opening, writer};

/// Commands that may wait for a batch; behind them callers wait in `submit`.
const SUBMIT_QUEUE_LEN: usize = 1024;
/// Bytes of commands and data between `submit` and its answer, in units; behind them callers wait. Room
/// for a few batches more than are in flight.
const SUBMIT_UNITS: usize = (64 << 20) / SUBMIT_UNIT_BYTES;
const SUBMIT_UNIT_BYTES: usize = 1024;

/// What a partition needs to know.
#[derive(Debug, Clone)]
pub struct PartitionConfig {
    /// Which.
    pub partition: PartitionId,
    /// How its journal is kept.
    pub policy: Policy,
    /// Memory for cached pages of one view, in bytes.
    pub view_cache_bytes: usize,
}

/// One view's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewStatus {
    /// The device it is on.
    pub device: DeviceId,
    /// The newest position applied.
    pub applied: Lsn,
    /// The newest position that a crash would leave.
    pub durable: Lsn,
    /// Whether reads come from it.
    pub serving: bool,
    /// Why it is out of use.
    pub failure: Option<String>,
}

/// A partition's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Its journal.
    pub journal: JournalStatus,
    /// Its views.
    pub views: Vec<ViewStatus>,
}

/// A partition; clones share it.
#[derive(Debug, Clone)]
pub struct Partition {
    inner: Arc<Inner>,
    submit: mpsc::Sender<writer::Submission>,
    memory: Arc<Semaphore>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) journal: Journal,
    pub(crate) views: Vec<Arc<View>>,
    serving: AtomicUsize,
    /// Held while a batch is applied to the serving view, and while another view takes its place.
    serve: Mutex<()>,
    pub(crate) followers: Vec<SyncSender<writer::Followed>>,
    checkpoint: tokio::sync::Mutex<()>,
}

impl Partition {
    /// Opens a partition over the stores of the present devices, in order of preference as its mirrors;
    /// `missing` devices of the cluster are away. On return all views are up to date. Must be called on
    /// a tokio runtime.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn open(config: PartitionConfig, stores: Vec<Mirror>, missing: usize) -> Result<Self, IndexError> {
        let (journal, views) = opening::open(&config, stores, missing).await?;
        let serving = views.iter().position(|v| !v.is_failed()).expect("an opened partition has a view");
        let followers = views.iter().map(|view| writer::follow(journal.clone(), Arc::clone(view))).collect();
        let inner = Arc::new(Inner {
            journal,
            views,
            serving: serving.into(),
            serve: Mutex::default(),
            followers,
            checkpoint: tokio::sync::Mutex::default(),
        });
        let (submit, queue) = mpsc::channel(SUBMIT_QUEUE_LEN);
        writer::start(Arc::clone(&inner), queue);
        Ok(Self { inner, submit, memory: Arc::new(Semaphore::new(SUBMIT_UNITS)) })
    }

    /// Carries a command out; returns when it is durable and every later [`Self::snapshot`] shows it.
    /// `data` is what [`crate::WITH_COMMAND`] in the command stands for.
    ///
    /// # Errors
    /// [`IndexError`]; see [`IndexError::is_outcome_unknown`].
    pub async fn submit(&self, command: Command, data: Vec<Bytes>) -> Result<Outcome, IndexError> {
        let sealed = Box::new(Sealed::new(command, data).map_err(IndexError::Invalid)?);
        let units = (sealed.bytes() / SUBMIT_UNIT_BYTES + 1) as u32;
        let _memory = self.memory.acquire_many(units).await.map_err(|_| IndexError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let submission = writer::Submission::Command { sealed, reply };
        self.submit.send(submission).await.map_err(|_| IndexError::Closed)?;
        answer.await.map_err(|_| IndexError::Closed)?
    }

    /// The rows as they are now.
    ///
    /// # Errors
    /// [`IndexError::NoView`].
    pub fn snapshot(&self) -> Result<Snapshot, IndexError> {
        loop {
            let view = self.inner.serving()?;
            match Snapshot::of(&view) {
                Err(IndexError::View { .. }) => {}
                other => return other,
            }
        }
    }

    /// Reads from a snapshot of now; when the view fails meanwhile, from another view's.
    ///
    /// # Errors
    /// Whatever `f` answers, and [`IndexError::NoView`].
    pub fn read<T>(&self, mut f: impl FnMut(&Snapshot) -> Result<T, IndexError>) -> Result<T, IndexError> {
        loop {
            match f(&self.snapshot()?) {
                Err(IndexError::View { .. }) => {}
                other => return other,
            }
        }
    }

    /// Bytes of data that lives in the journal: `range` counts from the start of the record's payload,
    /// as [`crate::model::Layout::Journal`] does.
    ///
    /// # Errors
    /// [`IndexError::Journal`].
    pub async fn read_data(&self, lsn: Lsn, range: Range<u32>) -> Result<Bytes, IndexError> {
        let wanted = range.len();
        let bytes = self.inner.journal.read(lsn, range).await?;
        if bytes.len() == wanted {
            Ok(bytes)
        } else {
            Err(IndexError::BadBatch { lsn, what: "data lies outside the record" })
        }
    }

    /// Makes every healthy view durable, then trims the journal. For the caller's timer: every few
    /// seconds of activity, or MiB of journal. Gives the first position that the journal still keeps.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn checkpoint(&self) -> Result<Lsn, IndexError> {
        let _one_at_a_time = self.inner.checkpoint.lock().await;
        let target = self.inner.serving()?.applied();
        let tasks: Vec<_> = self
            .inner
            .views
            .iter()
            .map(|view| {
                let (view, journal) = (Arc::clone(view), self.inner.journal.clone());
                tokio::task::spawn_blocking(move || writer::checkpoint(&journal, &view, target))
            })
            .collect();
        for task in tasks {
            if let Err(panicked) = task.await {
                tracing::error!(%panicked, "a checkpoint ended early");
            }
        }
        let healthy = self.inner.views.iter().filter(|view| !view.is_failed());
        let Some(durable) = healthy.map(|view| view.durable()).min() else {
            return Err(self.inner.no_view());
        };
        let unpacked = self.read(Snapshot::oldest_unpacked)?;
        let below = unpacked.map_or(durable.next(), |lsn| lsn.min(durable.next()));
        self.inner.journal.trim(below).await?;
        Ok(self.inner.journal.status().floor)
    }

    /// The state now.
    #[must_use]
    pub fn status(&self) -> PartitionStatus {
        let serving = self.inner.serving.load(Ordering::SeqCst);
        let views = self.inner.views.iter().enumerate().map(|(i, view)| ViewStatus {
            device: view.device(),
            applied: view.applied(),
            durable: view.durable(),
            serving: i == serving,
            failure: view.failure(),
        });
        PartitionStatus { journal: self.inner.journal.status(), views: views.collect() }
    }

    /// Finishes what was submitted, makes the views durable and lets the stores go: they may be closed
    /// afterwards. Later submissions are refused.
    ///
    /// # Errors
    /// [`IndexError`]; the partition is closed all the same.
    pub async fn close(&self) -> Result<(), IndexError> {
        let (reply, done) = oneshot::channel();
        if self.submit.send(writer::Submission::Drain { reply }).await.is_ok() {
            // Answered by nobody only when the writer has ended already.
            let _ = done.await;
        }
        let checkpoint = self.checkpoint().await.map(drop);
        self.inner.journal.close();
        checkpoint
    }
}

impl Inner {
    fn no_view(&self) -> IndexError {
        let reason = self.views.iter().find_map(|view| view.failure());
        IndexError::NoView { reason: reason.unwrap_or_else(|| "there is none".to_owned()) }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.serve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> &Arc<View> {
        &self.views[self.serving.load(Ordering::SeqCst)]
    }

    /// The serving view; another one takes over when it has failed.
    fn serving(&self) -> Result<Arc<View>, IndexError> {
        let view = self.current();
        if !view.is_failed() {
            return Ok(Arc::clone(view));
        }
        // A failing view may be found on a runtime's worker; catching up waits for the journal's store.
        let _serve = self.lock();
        self.take_over()?;
        Ok(Arc::clone(self.current()))
    }

    /// Lets another view serve, once it contains all that the failed one has shown. The caller holds `serve`.
    fn take_over(&self) -> Result<(), IndexError> {
        let shown = self.current().applied();
        while self.current().is_failed() {
            let Some(next) = self.views.iter().position(|view| !view.is_failed()) else {
                return Err(self.no_view());
            };
            let view = &self.views[next];
            match writer::catch_up(&self.journal, view, shown) {
                Ok(()) => {
                    tracing::warn!(device = %view.device(), applied = shown.0, "another index view serves now");
                    self.serving.store(next, Ordering::SeqCst);
                }
                Err(error) => assert!(view.is_failed(), "a view that cannot catch up is out of use: {error}"),
            }
        }
        Ok(())
    }

    /// Applies a durable batch to the serving view.
    pub(crate) fn apply(&self, lsn: Lsn, batch: &Batch) -> Result<Vec<Outcome>, IndexError> {
        let _serve = self.lock();
        loop {
            let view = self.current();
            match view.apply(lsn, batch) {
                Ok(Some(outcomes)) => return Ok(outcomes),
                Ok(None) => return Err(IndexError::BadBatch { lsn, what: "its position was applied before" }),
                Err(error) => {
                    view.fail(&error);
                    self.take_over()?;
                }
            }
        }
    }

    /// The index of the serving view.
    pub(crate) fn serving_index(&self) -> usize {
        self.serving.load(Ordering::SeqCst)
    }
}

/// Waits for the journal on a thread that may block.
pub(crate) fn record_of(
    journal: &Journal,
    previous: Option<&replica::Record>,
    lsn: Lsn,
) -> Result<replica::Record, IndexError> {
    Ok(match previous {
        Some(previous) if previous.lsn.next() == lsn => wait(journal.record_after(previous))?,
        _ => wait(journal.record(lsn))?,
    })
}
