//! Why a store of facts did not do what was asked, and what a caller may do about it.

use thiserror::Error;

use crate::CatalogError;

/// Why the store did not do what was asked. But for [`FactsError::Unknown`] and [`FactsError::Displaced`], nothing was
/// changed.
#[derive(Debug, Error)]
pub enum FactsError {
    /// Another process holds the file.
    #[error("another process holds the facts")]
    InUse,
    /// The request breaks a rule.
    #[error("{field} {rule}")]
    Invalid {
        /// What breaks it.
        field: &'static str,
        /// What it has to be.
        rule: &'static str,
    },
    /// The leadership that the commit is fenced by is over.
    #[error("no longer the leader")]
    NotLeader,
    /// Somebody leads already.
    #[error("{by} leads")]
    Led {
        /// Who.
        by: String,
    },
    /// Another writer took this one's name over; whether its last unsettled commit was applied cannot be learned.
    #[error("another writer took the name over")]
    Displaced,
    /// No server answered in time, or the servers have no quorum.
    #[error("the facts cannot be reached: {0}")]
    Unavailable(String),
    /// The commit was sent and no answer came: it may have been applied, or may still be.
    #[error("it is not known whether the change was made: {0}")]
    Unknown(String),
    /// No room until somebody makes some.
    #[error("the store of facts is full: {0}")]
    Full(String),
    /// The servers refuse us or what we said, and would again.
    #[error("the store of facts refuses: {0}")]
    Refused(String),
    /// Written by a newer release.
    #[error("the facts have format {found}; this release reads up to {known}")]
    NewerFormat {
        /// Theirs.
        found: u64,
        /// The newest we read.
        known: u64,
    },
    /// Something stored does not parse.
    #[error("{what} does not parse: {reason}")]
    Corrupt {
        /// What.
        what: &'static str,
        /// Why, free of values.
        reason: String,
    },
    /// The file failed; it has to be opened anew.
    #[error("the facts cannot be read or written: {0}")]
    Store(String),
}

impl FactsError {
    /// Whether the same call may succeed a little later, unchanged, and does no harm if repeated.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::InUse | Self::Led { .. } | Self::Unavailable(_))
    }

    /// Whether the change may have been made all the same: to be found out as [`crate::Writer`] does.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

impl From<CatalogError> for FactsError {
    /// Of opening a file: no other kinds come from there.
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::InUse => Self::InUse,
            CatalogError::NewerFormat { found, known } => Self::NewerFormat { found, known },
            other => Self::Store(other.to_string()),
        }
    }
}

/// A result of a store of facts.
pub type FactsResult<T> = Result<T, FactsError>;
