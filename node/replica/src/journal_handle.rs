//! The open journal: appends that are durable on every live mirror when they are acknowledged, reads
//! from any mirror, trims.
//!
//! One lock guards the chain; it is held for computation only. Every persist runs as a task of its own,
//! whose end is the chain's next input.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{DeviceId, Lsn, PartitionId};
use bytes::Bytes;
use format::ShardKey;
use journal::{Chain, Epoch, EpochRecord, Input, Output, Policy, Refusal};
use shards::{Payload, StoreError, StoreResult};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};

use crate::mirror::Mirror;
use crate::open::{Agreed, agree, read_any, remove};
use crate::record::{Encoded, Record, encode};
use crate::{BODY_MAX_BYTES, JournalError, facts};

/// What a journal needs to know.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// Whose journal.
    pub partition: PartitionId,
    /// How many copies, and so on.
    pub policy: Policy,
}

/// The journal's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalStatus {
    /// The newest epoch.
    pub record: EpochRecord,
    /// Members that have not failed.
    pub live: Vec<DeviceId>,
    /// Whether appends are taken.
    pub writable: bool,
    /// The first position kept.
    pub floor: Lsn,
    /// The newest acknowledged position; 0 for none.
    pub acked: Lsn,
}

/// An append under way.
#[derive(Debug)]
pub struct Pending {
    /// Its position.
    pub lsn: Lsn,
    answer: oneshot::Receiver<Result<(), JournalError>>,
}

impl Pending {
    /// Waits until it is durable on every live mirror.
    ///
    /// # Errors
    /// [`JournalError::Unknown`], or [`JournalError::Closed`] (which leaves the outcome as unknown).
    pub async fn wait(self) -> Result<Lsn, JournalError> {
        self.answer.await.map_err(|_| JournalError::Closed)?.map(|()| self.lsn)
    }

    /// The same on a thread that may block.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_blocking(self) -> Result<Lsn, JournalError> {
        self.answer.blocking_recv().map_err(|_| JournalError::Closed)?.map(|()| self.lsn)
    }
}

/// A partition's journal; clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    partition: PartitionId,
    stores: BTreeMap<DeviceId, Mirror>,
    core: Mutex<Core>,
    turn: AtomicUsize,
    runtime: Handle,
    established: watch::Sender<bool>,
    /// Per device the newest epoch written there: records of one fact must not overtake one another.
    epochs: BTreeMap<DeviceId, AsyncMutex<Option<Epoch>>>,
    /// One trim at a time, for the same reason.
    trim: AsyncMutex<()>,
}

#[derive(Debug)]
struct Core {
    chain: Chain,
    /// Link word of the newest record.
    link: u32,
    flight: HashMap<u64, (Encoded, oneshot::Sender<Result<(), JournalError>>)>,
    closed: bool,
}

impl Journal {
    /// Opens (or begins, when no device knows of one) a partition's journal over the stores of the
    /// present devices, in order of preference as members; `missing` devices are away. On return every
    /// member holds every record, and the new epoch is established. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`JournalError`]; the journal is then as it was, except that copies may have been made.
    pub async fn open(config: JournalConfig, stores: Vec<Mirror>, missing: usize) -> Result<Self, JournalError> {
        let JournalConfig { partition, policy } = config;
        let Agreed { plan, stores, missing } = agree(partition, &policy, stores, missing).await?;
        let link = if plan.next > plan.floor {
            let last = Lsn(plan.next.0 - 1);
            read_any(partition, last, plan.record.members.iter().map(|d| &stores[d])).await?.link()
        } else {
            0
        };
        tracing::info!(
            partition = partition.0, run = plan.run, members = ?plan.record.members, veterans = plan.veterans.len(),
            floor = plan.floor.0, next = plan.next.0, copied = plan.copies.len(), missing, "journal opened"
        );
        let mut out = Vec::new();
        let leftovers = plan.leftovers;
        let devices = stores.keys().copied().collect();
        let chain = Chain::open(policy, plan.record, devices, plan.floor, plan.next, &mut out);
        let core = Core { chain, link, flight: HashMap::new(), closed: false };
        let epochs = stores.keys().map(|device| (*device, AsyncMutex::default())).collect();
        let inner = Arc::new(Inner {
            partition,
            stores,
            core: Mutex::new(core),
            turn: AtomicUsize::new(0),
            runtime: Handle::current(),
            established: watch::Sender::new(false),
            epochs,
            trim: AsyncMutex::default(),
        });
        let mut established = inner.established.subscribe();
        inner.perform(&mut inner.lock(), out);
        // Fails only when the sender is gone, and `inner` holds it. Ends early when the chain gives up.
        let _ = established.wait_for(|done| *done).await;
        let journal = Self { inner };
        let status = journal.status();
        if !status.writable {
            return Err(JournalError::TooFewCopies { live: status.live.len(), needed: policy.copies_min });
        }
        for (device, lsns) in leftovers {
            // Left where they are, the next opening removes them.
            if let Err(error) = remove(partition, journal.inner.stores[&device].as_ref(), &lsns).await {
                tracing::warn!(%device, %error, "records of a former member cannot be removed");
            }
        }
        Ok(journal)
    }

    /// Gives `parts` (one body, in pieces) the next position and sends it to the mirrors. Positions
    /// follow the order of calls.
    ///
    /// # Errors
    /// [`JournalError`]; nothing was written then.
    pub fn begin_append(&self, parts: &[Bytes]) -> Result<Pending, JournalError> {
        let bytes = parts.iter().map(Bytes::len).sum();
        if bytes > BODY_MAX_BYTES {
            return Err(JournalError::TooLarge { bytes });
        }
        let mut core = self.inner.lock();
        if core.closed {
            return Err(JournalError::Closed);
        }
        let lsn = core.chain.next();
        let epoch = core.chain.record().epoch.to_u64();
        let encoded = encode(self.inner.partition, epoch, lsn, core.link, parts);
        let link = encoded.link;
        let (tx, answer) = oneshot::channel();
        let mut out = Vec::new();
        core.chain.step(Input::Append { entry: lsn.0 }, &mut out);
        if let Some(Output::Refused { reason, .. }) = out.first() {
            return Err(match *reason {
                Refusal::WindowFull | Refusal::Opening => JournalError::Busy,
                Refusal::TooFewCopies { live, needed } => JournalError::TooFewCopies { live, needed },
            });
        }
        core.link = link;
        core.flight.insert(lsn.0, (encoded, tx));
        self.inner.perform(&mut core, out);
        Ok(Pending { lsn, answer })
    }

    /// Appends and waits.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn append(&self, parts: Vec<Bytes>) -> Result<Lsn, JournalError> {
        let pending = self.begin_append(&parts)?;
        drop(parts);
        pending.wait().await
    }

    /// Bytes `range` of the payload (header included: the body starts at [`crate::BODY_OFFSET`]) of the
    /// record at `lsn`. Members take turns; when one cannot, the others are asked.
    ///
    /// # Errors
    /// [`JournalError::Unreadable`].
    pub async fn read(&self, lsn: Lsn, range: Range<u32>) -> Result<Bytes, JournalError> {
        let key = ShardKey::journal(self.inner.partition, lsn);
        let mut last = StoreError::NotFound;
        let mut bad = Vec::new();
        for store in self.inner.readers() {
            match store.get(key, range.clone()).await {
                Ok(bytes) => {
                    self.heal(lsn, bad);
                    return Ok(bytes);
                }
                Err(error) => {
                    tracing::warn!(device = %store.device(), lsn = lsn.0, %error, "journal read fails; asking another");
                    if matches!(error, StoreError::Corrupt { .. }) {
                        bad.push(store);
                    }
                    last = error;
                }
            }
        }
        Err(JournalError::Unreadable { lsn, last })
    }

    /// The whole record at `lsn`, its checksums and place verified.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn record(&self, lsn: Lsn) -> Result<Record, JournalError> {
        read_any(self.inner.partition, lsn, self.inner.readers().iter()).await
    }

    /// The record after `previous`, checked to be its successor.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn record_after(&self, previous: &Record) -> Result<Record, JournalError> {
        let next = self.record(previous.lsn.next()).await?;
        if previous.is_followed_by(&next) {
            Ok(next)
        } else {
            Err(JournalError::Broken { lsn: next.lsn, what: "the record does not follow the one before it" })
        }
    }

    /// Removes positions below `below`; the newest acknowledged one always stays. The new floor is
    /// durable on every live member before anything is removed.
    ///
    /// # Errors
    /// [`JournalError::Closed`].
    pub async fn trim(&self, below: Lsn) -> Result<(), JournalError> {
        let _one_at_a_time = self.inner.trim.lock().await;
        let mut out = Vec::new();
        {
            let mut core = self.inner.lock();
            if core.closed {
                return Err(JournalError::Closed);
            }
            core.chain.step(Input::TrimTo { below }, &mut out);
        }
        let partition = self.inner.partition;
        let targets: Vec<(DeviceId, Lsn)> = out
            .into_iter()
            .map(|output| match output {
                Output::Trim { device, below } => (device, below),
                other => unreachable!("a trim gives trims alone, not {other:?}"),
            })
            .collect();
        for &(device, floor) in &targets {
            let put = facts::put_floor(self.inner.stores[&device].as_ref(), partition, floor).await;
            if let Err(error) = put {
                self.inner.failed(device, &error);
            }
        }
        for (device, below) in targets {
            // A trim that fails leaves records below the floor; the next opening removes them.
            if let Err(error) = self.inner.stores[&device].trim(partition, below).await {
                self.inner.failed(device, &error);
            }
        }
        Ok(())
    }

    /// The state now.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        let core = self.inner.lock();
        let chain = &core.chain;
        JournalStatus {
            record: chain.record().clone(),
            live: chain.live().collect(),
            writable: chain.is_writable() && !core.closed,
            floor: chain.floor(),
            acked: Lsn(chain.unacked().0 - 1),
        }
    }

    /// The store of a member or other present device.
    #[must_use]
    pub fn store(&self, device: DeviceId) -> Option<Mirror> {
        self.inner.stores.get(&device).cloned()
    }

    /// Takes no more appends and no longer regards failing stores as lost members, so that the stores
    /// can be closed without the journal shrinking. What is in flight may still be acknowledged.
    pub fn close(&self) {
        self.inner.lock().closed = true;
    }

    /// Writes a record again where its bytes were found rotten, from a member that has it whole.
    fn heal(&self, lsn: Lsn, bad: Vec<Mirror>) {
        if bad.is_empty() {
            return;
        }
        let inner = Arc::clone(&self.inner);
        self.inner.runtime.spawn(async move {
            let Ok(record) = read_any(inner.partition, lsn, inner.readers().iter()).await else { return };
            for store in bad {
                let key = ShardKey::journal(inner.partition, lsn);
                let put = store.put(key, Payload::Parts(vec![record.payload.clone()])).await;
                tracing::info!(device = %store.device(), lsn = lsn.0, ok = put.is_ok(), "rewrote a rotten journal record");
            }
        });
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic under the lock is an invariant that failed: what the chain knows cannot be trusted.
        self.core.lock().expect("the journal's state is sound")
    }

    /// Live members, starting with another one each time.
    fn readers(&self) -> Vec<Mirror> {
        let live: Vec<DeviceId> = self.core.lock().unwrap_or_else(PoisonError::into_inner).chain.live().collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..live.len()).map(|i| Arc::clone(&self.stores[&live[(turn + i) % live.len()]])).collect()
    }

    fn input(self: &Arc<Self>, input: Input) {
        let mut core = self.lock();
        let mut out = Vec::new();
        core.chain.step(input, &mut out);
        self.perform(&mut core, out);
    }

    fn failed(self: &Arc<Self>, device: DeviceId, error: &StoreError) {
        if self.lock().closed {
            return;
        }
        tracing::error!(%device, %error, "a journal mirror fails; leaving it behind");
        self.input(Input::Failed { device });
    }

    fn perform(self: &Arc<Self>, core: &mut Core, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Persist { device, lsn, entry } => {
                    let (encoded, _) = core.flight.get(&entry).expect("an entry in flight has its bytes");
                    self.spawn_persist(device, lsn, encoded);
                }
                Output::PersistEpoch { device, record } => self.spawn_epoch(device, record),
                Output::Acked { entry, .. } => core.answer(entry, Ok(())),
                Output::Abandoned { entry, .. } => core.answer(entry, Err(JournalError::Unknown)),
                Output::EpochChanged { record } => {
                    tracing::info!(epoch = record.epoch.to_u64(), members = record.members.len(), "journal epoch");
                }
                Output::Refused { .. } | Output::Trim { .. } => {
                    unreachable!("refusals and trims are handled where they are asked for")
                }
            }
        }
        if core.chain.is_established() || !core.chain.is_writable() {
            self.established.send_replace(true);
        }
    }

    fn spawn_persist(self: &Arc<Self>, device: DeviceId, lsn: Lsn, encoded: &Encoded) {
        let inner = Arc::clone(self);
        let payload = Payload::Aligned { bytes: encoded.bytes.clone(), len: encoded.len };
        self.runtime.spawn(async move {
            let key = ShardKey::journal(inner.partition, lsn);
            let result: StoreResult<()> = inner.stores[&device].put(key, payload).await;
            match result {
                Ok(()) => inner.input(Input::Persisted { device, lsn }),
                Err(error) => inner.failed(device, &error),
            }
        });
    }

    fn spawn_epoch(self: &Arc<Self>, device: DeviceId, record: EpochRecord) {
        let inner = Arc::clone(self);
        self.runtime.spawn(async move {
            let mut newest = inner.epochs[&device].lock().await;
            if newest.is_some_and(|newest| newest >= record.epoch) {
                return;
            }
            *newest = Some(record.epoch);
            match facts::put_epoch(inner.stores[&device].as_ref(), inner.partition, &record).await {
                Ok(()) => inner.input(Input::EpochPersisted { device, record }),
                Err(error) => inner.failed(device, &error),
            }
        });
    }
}

impl Core {
    fn answer(&mut self, entry: u64, answer: Result<(), JournalError>) {
        let (_, tx) = self.flight.remove(&entry).expect("an entry is answered once");
        // Nobody waits for it when the caller was dropped; the record stays all the same.
        let _ = tx.send(answer);
    }
}
