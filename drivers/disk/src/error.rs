//! What a device may answer when it cannot do what was asked.

use std::fmt;

use thiserror::Error;

use crate::ZoneFault;

/// The operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskOp {
    /// Opening or inspecting the device.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Flushing the volatile cache.
    Flush,
    /// Discarding.
    Discard,
    /// Asking for a zone's write pointer.
    ReportZone,
    /// Emptying a zone.
    ResetZone,
    /// Filling a zone up without writing.
    FinishZone,
}

impl fmt::Display for DiskOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::ReportZone => "report of a zone",
            Self::ResetZone => "reset of a zone",
            Self::FinishZone => "finish of a zone",
        })
    }
}

/// Why an operation failed. Offsets and lengths are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DiskError {
    /// The medium cannot give or take these bytes (EIO, ENODATA, EILSEQ).
    #[error("{op} at byte {offset}, {len} bytes: the medium failed (errno {errno})")]
    Medium {
        /// What was asked.
        op: DiskOp,
        /// Where.
        offset: u64,
        /// How much.
        len: usize,
        /// The kernel's reason.
        errno: i32,
    },
    /// The device is gone or was closed.
    #[error("{op}: the device is gone")]
    Gone {
        /// What was asked.
        op: DiskOp,
    },
    /// The backing store of a file device is full.
    #[error("{op} at byte {offset}: the file system under the device is full")]
    NoSpace {
        /// What was asked.
        op: DiskOp,
        /// Where.
        offset: u64,
    },
    /// The request breaks the door's rules; a bug of the caller.
    #[error("{op} at byte {offset}, {len} bytes: not aligned, or outside the device")]
    Invalid {
        /// What was asked.
        op: DiskOp,
        /// Where.
        offset: u64,
        /// How much.
        len: usize,
    },
    /// A zone does not take it; see [`crate::ZoneFacts`].
    #[error("{op} at byte {offset}: {fault}")]
    Zone {
        /// What was asked.
        op: DiskOp,
        /// Where.
        offset: u64,
        /// Why not.
        fault: ZoneFault,
    },
    /// Any other answer of the operating system.
    #[error("{op}: {reason}")]
    Os {
        /// What was asked.
        op: DiskOp,
        /// The system's words.
        reason: String,
    },
}

impl DiskError {
    /// Whether the medium itself failed at a place (the rest of the device may be well).
    #[must_use]
    pub fn is_media_fault(&self) -> bool {
        matches!(self, Self::Medium { .. })
    }

    /// Whether the whole device is lost to us.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }
}

/// A device's answer.
pub type DiskResult<T> = Result<T, DiskError>;
