//! The store of one device as the rest of the node sees it: a handle that can be sent anywhere, behind
//! which a single thread owns the device.

use std::ops::Range;

use base::{DeviceId, Lsn, PartitionId};
use bytes::Bytes;
use disk::AlignedBytes;
use format::ShardKey;
use tokio::sync::{mpsc, oneshot};

use crate::{FaultRecord, StoreError, StoreResult, StoreStats};

/// Bytes to be stored.
#[derive(Debug, Clone)]
pub enum Payload {
    /// The first `len` bytes of an aligned piece whose rest is zero; written without copying.
    Aligned {
        /// The piece; its length is `len` rounded up to [`disk::IO_ALIGN`].
        bytes: AlignedBytes,
        /// Bytes that count.
        len: usize,
    },
    /// Pieces one after the other; copied once.
    Parts(Vec<Bytes>),
}

impl Payload {
    /// Bytes that count.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Aligned { len, .. } => *len,
            Self::Parts(parts) => parts.iter().map(Bytes::len).sum(),
        }
    }

    /// Whether no byte counts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A record as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// Its key.
    pub key: ShardKey,
    /// Payload bytes.
    pub len: u32,
}

/// How far a verifying pass has come; valid while the store is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanPosition {
    pub(crate) extent: u32,
    pub(crate) offset_units: u32,
    /// Units of live records met in this extent so far.
    pub(crate) met_units: u32,
}

/// What verifying a stretch of records found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Where to go on; `None` when the end was reached.
    pub next: Option<ScanPosition>,
    /// Records that verified.
    pub records: u64,
    /// Bytes read and verified, heads included.
    pub verified_bytes: u64,
    /// Records that did not verify, and why.
    pub bad: Vec<(ShardKey, StoreError)>,
}

/// One request and where its answer goes.
#[derive(Debug)]
pub(crate) enum Request {
    Put { key: ShardKey, descriptor: Bytes, payload: Payload, reply: oneshot::Sender<StoreResult<()>> },
    Get { key: ShardKey, range: Range<u32>, reply: oneshot::Sender<StoreResult<Bytes>> },
    Describe { key: ShardKey, reply: oneshot::Sender<StoreResult<(u32, Bytes)>> },
    Delete { keys: Vec<ShardKey>, reply: oneshot::Sender<StoreResult<()>> },
    List { after: Option<ShardKey>, limit: usize, reply: oneshot::Sender<StoreResult<Vec<ShardInfo>>> },
    Trim { partition: PartitionId, below: Lsn, reply: oneshot::Sender<StoreResult<()>> },
    Verify { from: Option<ScanPosition>, budget_bytes: u64, reply: oneshot::Sender<StoreResult<VerifyReport>> },
    Sync { reply: oneshot::Sender<StoreResult<()>> },
    Checkpoint { reply: oneshot::Sender<StoreResult<()>> },
    Reclaim { reply: oneshot::Sender<StoreResult<bool>> },
    Faults { reply: oneshot::Sender<StoreResult<Vec<FaultRecord>>> },
    Stats { reply: oneshot::Sender<StoreResult<StoreStats>> },
    Close { reply: oneshot::Sender<StoreResult<()>> },
}

/// The store of one device, from any thread. Clones share the store. Any call may be answered
/// [`StoreError::Closed`] once the store has been closed or its thread has ended.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    device: DeviceId,
    tx: mpsc::Sender<Request>,
}

impl StoreHandle {
    pub(crate) fn new(device: DeviceId, tx: mpsc::Sender<Request>) -> Self {
        Self { device, tx }
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<StoreResult<T>>) -> Request) -> StoreResult<T> {
        let (reply, answer) = oneshot::channel();
        self.tx.send(make(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Stores a record; returns when it is durable. A record of the same key is replaced atomically.
    /// `descriptor` (at most [`format::DESCRIPTOR_MAX_BYTES`]) says, without any index, what the record is.
    ///
    /// # Errors
    /// [`StoreError`]; the record is then not there, or (after a device error) may or may not be.
    pub async fn put(&self, key: ShardKey, descriptor: Bytes, payload: Payload) -> StoreResult<()> {
        self.ask(|reply| Request::Put { key, descriptor, payload, reply }).await
    }

    /// Appends a journal record; returns when it is durable. Appends of one partition become durable in
    /// any order, but each is there whole or not at all.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn append(&self, partition: PartitionId, lsn: Lsn, payload: Payload) -> StoreResult<()> {
        self.put(ShardKey::journal(partition, lsn), Bytes::new(), payload).await
    }

    /// Bytes `range` of a record's payload, verified; the end is cut to the record's length.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or why the bytes cannot be given. Never wrong bytes.
    pub async fn get(&self, key: ShardKey, range: Range<u32>) -> StoreResult<Bytes> {
        self.ask(|reply| Request::Get { key, range, reply }).await
    }

    /// A record's payload length and descriptor.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn describe(&self, key: ShardKey) -> StoreResult<(u32, Bytes)> {
        self.ask(|reply| Request::Describe { key, reply }).await
    }

    /// Removes records; returns when that is durable. Absent keys are no error. Works on a full device.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(&self, keys: Vec<ShardKey>) -> StoreResult<()> {
        self.ask(|reply| Request::Delete { keys, reply }).await
    }

    /// Records with keys above `after`, in key order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, after: Option<ShardKey>, limit: usize) -> StoreResult<Vec<ShardInfo>> {
        self.ask(|reply| Request::List { after, limit, reply }).await
    }

    /// Removes a partition's journal records below `below`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn trim(&self, partition: PartitionId, below: Lsn) -> StoreResult<()> {
        self.ask(|reply| Request::Trim { partition, below, reply }).await
    }

    /// Reads and verifies every live record from a position on (`None`: the first), in the order of the medium,
    /// until about `budget_bytes` of records have been read. What is put or moved meanwhile may be met or not.
    ///
    /// # Errors
    /// [`StoreError`] of the store as a whole; findings are in the report.
    pub async fn verify(&self, from: Option<ScanPosition>, budget_bytes: u64) -> StoreResult<VerifyReport> {
        self.ask(|reply| Request::Verify { from, budget_bytes, reply }).await
    }

    /// Returns when everything that was acknowledged before is on the medium (one flush at most).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sync(&self) -> StoreResult<()> {
        self.ask(|reply| Request::Sync { reply }).await
    }

    /// Writes a checkpoint of the in-memory index now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn checkpoint(&self) -> StoreResult<()> {
        self.ask(|reply| Request::Checkpoint { reply }).await
    }

    /// Moves the live records of the extent that gains most, now, so that it can be freed by the next
    /// checkpoints; false when no extent is worth it.
    ///
    /// # Errors
    /// [`StoreError`]; records that could not be read stay where they are.
    pub async fn reclaim(&self) -> StoreResult<bool> {
        self.ask(|reply| Request::Reclaim { reply }).await
    }

    /// The newest faults met since the store was opened, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn faults(&self) -> StoreResult<Vec<FaultRecord>> {
        self.ask(|reply| Request::Faults { reply }).await
    }

    /// Counters and space.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn stats(&self) -> StoreResult<StoreStats> {
        self.ask(|reply| Request::Stats { reply }).await
    }

    /// Finishes what is under way, writes a checkpoint and lets the device go.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn close(&self) -> StoreResult<()> {
        self.ask(|reply| Request::Close { reply }).await
    }
}
