//! The shell that drives a partition's journal over the stores of the devices: it persists before it
//! says that it has, and turns what the stores answer into inputs of the chain (`journal`).
//!
//! Left out: chains over several hosts; recruiting a new member while serving (it happens when the
//! journal is opened).

#![forbid(unsafe_code)]

mod facts;
mod journal_handle;
mod mirror;
mod open;
mod record;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use base::{DeviceId, Lsn};
use shards::StoreError;
use thiserror::Error;

pub use journal::{Epoch, EpochRecord, Policy, RecoveryError};
pub use journal_handle::{Journal, JournalConfig, JournalStatus, Pending};
pub use mirror::{Mirror, MirrorStore, keys_of, mirrors};
pub use record::{BODY_OFFSET, Record};

/// Largest body of a journal record, in bytes.
pub const BODY_MAX_BYTES: usize = format::PAYLOAD_MAX_BYTES - BODY_OFFSET as usize;

/// Why the journal could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JournalError {
    /// It cannot be opened.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// A fact on a device does not parse.
    #[error("device {device}: the journal's {what} fact is unreadable: {reason}")]
    BadFact {
        /// Where.
        device: DeviceId,
        /// Which.
        what: &'static str,
        /// What does not agree.
        reason: String,
    },
    /// Too many appends are in flight.
    #[error("as many journal records are in flight as may be")]
    Busy,
    /// Too few live copies: read-only until the journal is opened again with enough devices.
    #[error("{live} live copies of the journal, {needed} are needed to write")]
    TooFewCopies {
        /// Live copies.
        live: usize,
        /// Copies needed.
        needed: usize,
    },
    /// Copies were lost while the record was in flight; whether a later opening finds it is unknown.
    #[error("the journal record's outcome is unknown: too few copies of the journal are left")]
    Unknown,
    /// The body is longer than [`BODY_MAX_BYTES`].
    #[error("a journal record of {bytes} bytes is too large")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// No member could give the record.
    #[error("journal position {} cannot be read from any member: {last}", lsn.0)]
    Unreadable {
        /// The position.
        lsn: Lsn,
        /// What the last member asked said.
        last: StoreError,
    },
    /// A record is not the one that belongs there.
    #[error("journal position {}: {what}", lsn.0)]
    Broken {
        /// The position.
        lsn: Lsn,
        /// What does not agree.
        what: &'static str,
    },
    /// A store refused during opening, and not enough devices are left without it.
    #[error("device {device}: {error}")]
    Store {
        /// Where.
        device: DeviceId,
        /// Why.
        error: StoreError,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}
