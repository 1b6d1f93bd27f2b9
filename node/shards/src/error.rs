//! Why a store refuses or fails.

use disk::DiskError;
use format::FormatError;
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
    #[error("a record of {len} bytes (descriptor {descriptor_len}) is too large")]
    TooLarge {
        /// Payload bytes.
        len: usize,
        /// Descriptor bytes.
        descriptor_len: usize,
    },
    /// The bytes on the medium are not those that were written.
    #[error("corrupt record at byte {offset} of the device: {what}")]
    Corrupt {
        /// Where.
        offset: u64,
        /// What does not agree.
        what: &'static str,
    },
    /// A write or flush failed: nothing more is written until the device has been reopened and its
    /// state rebuilt from the medium.
    #[error("the device is poisoned since a failure: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The device failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The store was opened read-only.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// The device cannot be used as a store.
    #[error("the device cannot be used: {0}")]
    Unusable(#[from] FormatError),
    /// What recovery starts from is gone: what is on the device is at best an old or partial state. It can be
    /// read (read-only, by the salvage tools) and must not be built upon.
    #[error("the device's state is lost: {reason}")]
    Lost {
        /// What is gone.
        reason: String,
    },
    /// The device is zoned, and its zones are not what a store needs.
    #[error("the zoned device cannot hold a store: {what}")]
    Zoned {
        /// Why not.
        what: &'static str,
    },
    /// The device is too small for even the smallest layout.
    #[error("a device of {size_bytes} bytes is too small; {min_bytes} are needed")]
    TooSmall {
        /// Its size.
        size_bytes: u64,
        /// The least size.
        min_bytes: u64,
    },
}

impl StoreError {
    /// Whether the record itself is lost on this device (absent or damaged), while the device works.
    #[must_use]
    pub fn is_lost_record(&self) -> bool {
        match self {
            Self::NotFound | Self::Corrupt { .. } => true,
            Self::Disk(error) => error.is_media_fault(),
            _ => false,
        }
    }
}

/// A result of the store.
pub type StoreResult<T> = Result<T, StoreError>;
