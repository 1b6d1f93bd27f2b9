//! Why the index could not do what was asked.

use base::{DeviceId, Lsn};
use replica::JournalError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a request of the index failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IndexError {
    /// The journal did not take the command, or its outcome is unknown (see [`Self::is_outcome_unknown`]).
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The command contradicts itself; a bug of the caller. It had no effect.
    #[error("not a valid command: {0}")]
    Invalid(&'static str),
    /// A view failed under this read; ask again, another view will answer.
    #[error("the index view on device {device} failed: {reason}")]
    View {
        /// Where.
        device: DeviceId,
        /// Why.
        reason: String,
    },
    /// No view can serve. Reopening rebuilds views as long as one can be read.
    #[error("no index view can serve; the last failure: {reason}")]
    NoView {
        /// The last failure.
        reason: String,
    },
    /// A journal record is durable and cannot be read as a batch of commands.
    #[error("journal position {} is no batch of commands: {what}", lsn.0)]
    BadBatch {
        /// The position.
        lsn: Lsn,
        /// What is wrong.
        what: &'static str,
    },
    /// The partition was closed.
    #[error("the index is closed")]
    Closed,
    /// The partition's host cannot be reached; the request was not sent, or certainly not taken.
    #[error("the index partition cannot be reached: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// The request went out and no answer came back.
    #[error("the index partition did not answer: {reason}")]
    Unanswered {
        /// Why.
        reason: String,
    },
    /// The partition's host answered with an error of its own.
    #[error("{message}")]
    Remote {
        /// In its words.
        message: String,
        /// What kind of error.
        nature: Nature,
    },
    /// Bytes of another host are no message.
    #[error("no valid message between hosts: {0}")]
    Malformed(&'static str),
}

/// What a caller must know of an error to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nature {
    /// See [`IndexError::is_outcome_unknown`].
    pub outcome_unknown: bool,
    /// See [`IndexError::is_retryable`].
    pub retryable: bool,
    /// See [`IndexError::is_unavailable`].
    pub unavailable: bool,
}

impl IndexError {
    /// Whether the command may have taken effect, or may still.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Journal(error) => matches!(error, JournalError::Unknown | JournalError::Closed),
            Self::NoView { .. } | Self::Closed | Self::View { .. } | Self::Unanswered { .. } => true,
            // What could not be read was an answer, perhaps.
            Self::Malformed(_) => true,
            Self::Invalid(_) | Self::BadBatch { .. } | Self::Unreachable { .. } => false,
            Self::Remote { nature, .. } => nature.outcome_unknown,
        }
    }

    /// Whether the same request may succeed if it is made again at once.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::View { .. } | Self::Journal(JournalError::Busy) => true,
            Self::Remote { nature, .. } => nature.retryable,
            _ => false,
        }
    }

    /// Whether the partition cannot serve this now, and may later; nothing is wrong with the request.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Journal(_) | Self::NoView { .. } | Self::Closed => true,
            Self::Unreachable { .. } | Self::Unanswered { .. } => true,
            Self::Remote { nature, .. } => nature.unavailable,
            Self::View { .. } | Self::Invalid(_) | Self::BadBatch { .. } | Self::Malformed(_) => false,
        }
    }

    /// All of it.
    #[must_use]
    pub fn nature(&self) -> Nature {
        Nature {
            outcome_unknown: self.is_outcome_unknown(),
            retryable: self.is_retryable(),
            unavailable: self.is_unavailable(),
        }
    }
}

/// Why a view could not answer or be changed.
#[derive(Debug, Error)]
pub(crate) enum ViewError {
    #[error(transparent)]
    Redb(Box<redb::Error>),
    #[error("a row of table {table} does not parse: {what}")]
    Row { table: &'static str, what: &'static str },
    #[error("the view's tables disagree: {0}")]
    Disagreement(&'static str),
    #[error("the view is at journal position {}, the batch at {}", at.0, batch.0)]
    Gap { at: Lsn, batch: Lsn },
    #[error("the view failed before")]
    Failed,
    #[error("the view cannot catch up: {0}")]
    CatchUp(String),
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for ViewError {
            fn from(error: $error) -> Self {
                Self::Redb(Box::new(error.into()))
            }
        }
    )*};
}

from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError
);

pub(crate) type ViewResult<T> = Result<T, ViewError>;
