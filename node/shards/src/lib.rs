//! The log-structured store of one device.

#![forbid(unsafe_code)]

mod handle;

pub use handle::{Payload, QUEUE_LEN, ShardInfo, StoreHandle};

use thiserror::Error;

/// Why a store could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// No such record.
    #[error("no such record")]
    NotFound,
    /// The device has no room left for this; reads and deletes go on.
    #[error("the device is full")]
    Full,
    /// A record is larger than the format allows.
    #[error("a record of {len} bytes is too large")]
    TooLarge {
        /// Payload bytes.
        len: usize,
    },
    /// The bytes on the medium are not those that were written.
    #[error("corrupt record at byte {offset} of the device: {what}")]
    Corrupt {
        /// Where.
        offset: u64,
        /// What does not agree.
        what: &'static str,
    },
    /// A flush failed: nothing more is written until the device has been reopened and its state rebuilt.
    #[error("the device is poisoned since a write or flush failed: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The device failed.
    #[error(transparent)]
    Disk(#[from] disk::DiskError),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// A result of the store.
pub type StoreResult<T> = Result<T, StoreError>;

/// Counters and space of one store. Bytes unless named otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes that extents hold in all.
    pub capacity_bytes: u64,
    /// Bytes that live records take.
    pub live_bytes: u64,
    /// Bytes in extents that are free or can be after reclaim, less the reserve; what puts may still take.
    pub available_bytes: u64,
    /// Live records.
    pub records: u64,
    /// Payload bytes accepted by puts and appends.
    pub accepted_bytes: u64,
    /// Bytes written to the device, everything included.
    pub written_bytes: u64,
    /// Bytes that reclaim moved.
    pub moved_bytes: u64,
    /// Bytes read from the device.
    pub read_bytes: u64,
    /// Writes sent to the device.
    pub writes: u64,
    /// Reads sent to the device.
    pub reads: u64,
    /// Flushes sent to the device.
    pub flushes: u64,
    /// Records put or appended.
    pub puts: u64,
    /// Range reads served.
    pub gets: u64,
    /// Records whose bytes did not verify.
    pub corrupt_found: u64,
    /// Device errors met.
    pub device_errors: u64,
    /// Extents reclaimed.
    pub extents_reclaimed: u64,
    /// Whether the store refuses writes since a failure.
    pub poisoned: bool,
}
