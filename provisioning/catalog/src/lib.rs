//! The small-facts store: who may sign requests, and what the cluster is made of.
//!
//! Invariants every [`Catalog`] keeps:
//! - a call that returned `Ok` is durable, whole, and seen by every later call;
//! - an access key id names one key for ever: it is created once, never changed, only deleted;
//! - the cluster's facts change only by compare-and-set on their revision, so two writers never
//!   overwrite one another unseen;
//! - a secret leaves only through [`AccessKey::secret`]: it is in no `Debug`, no listing and no error.
//!
//! Beside it, [`Facts`] is what a rack's controller keeps its state in: ordered keys with revisions, in a file
//! ([`RedbFacts`]) or on servers ([`EtcdFacts`]); [`blob`] keeps large values there, [`Writer`] learns the outcome of
//! every commit, [`Follower`] learns what others changed.
//!
//! Left out on purpose: anything on the path of data. With the catalog lost, objects are still whole
//! on the devices, whose labels carry what is needed to read them.

#![forbid(unsafe_code)]

pub mod blob;
#[cfg(feature = "contract")]
pub mod contract;
mod etcd;
mod facts;
mod follow;
mod generate;
mod model;
mod redb_facts;
mod redb_store;
mod writer;

pub use etcd::{EtcdConfig, EtcdFacts, EtcdTls};
pub use facts::{
    CHANGES_MAX, CHECKS_MAX, COMMIT_BYTES_MAX, Change, Check, Commit, Fact, Facts, FactsError, FactsResult, Fence,
    KEY_BYTES_MAX, Leadership, Listing, Outcome, VALUE_BYTES_MAX,
};
pub use follow::{Event, Follower};
pub use generate::{ACCESS_KEY_ID_LEN, ACCESS_KEY_ID_PREFIX, SECRET_LEN, draw_key};
pub use model::{AccessKey, ClusterFacts, DeviceEntry, DomainLevel, KeyInfo, Secret};
pub use redb_facts::RedbFacts;
pub use redb_store::RedbCatalog;
pub use writer::{MARKS, Writer};

use thiserror::Error;

/// Access keys a catalog holds at most: every listing fits in memory and in one answer.
pub const KEYS_MAX: usize = 10_000;
/// Bytes a key's name has at most.
pub const NAME_BYTES_MAX: usize = 128;
/// Devices one cluster lists at most: a full rack of dense nodes, several times over.
pub const DEVICES_MAX: usize = 65_536;

/// Why the catalog did not do what was asked. Nothing was changed.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// Another process holds the file.
    #[error("another process holds the catalog")]
    InUse,
    /// The access key id is taken.
    #[error("access key {0} exists")]
    KeyExists(String),
    /// No room for one more key.
    #[error("the catalog holds {KEYS_MAX} access keys, the most it may")]
    TooManyKeys,
    /// A field breaks its rule.
    #[error("{field} {rule}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What it has to be.
        rule: &'static str,
    },
    /// The facts changed since they were read.
    #[error("the cluster's facts are at revision {stored}, not {given}: read them again")]
    Stale {
        /// What the catalog has; 0 when it has none.
        stored: u64,
        /// What the caller had read.
        given: u64,
    },
    /// Written by a newer release.
    #[error("the catalog has format {found}; this release reads up to {known}")]
    NewerFormat {
        /// Its format.
        found: u64,
        /// The newest we read.
        known: u64,
    },
    /// A row does not parse.
    #[error("the catalog's {what} does not parse: {reason}")]
    Corrupt {
        /// Which row.
        what: &'static str,
        /// The parser's words, free of values.
        reason: String,
    },
    /// The store under the catalog failed.
    #[error("the catalog cannot be read or written: {0}")]
    Store(String),
}

impl CatalogError {
    /// Whether the same call may succeed a little later, unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::InUse)
    }
}

/// A result of the catalog.
pub type CatalogResult<T> = Result<T, CatalogError>;

/// The store. Calls block for a disk flush at most; call them off an executor's threads, apart from
/// [`Catalog::key`], which reads memory or one page.
pub trait Catalog: Send + Sync + 'static {
    /// Adds a key.
    ///
    /// # Errors
    /// [`CatalogError::KeyExists`], [`CatalogError::TooManyKeys`], [`CatalogError::Invalid`].
    fn add_key(&self, key: &AccessKey) -> CatalogResult<()>;

    /// The key of this id.
    ///
    /// # Errors
    /// When the store fails.
    fn key(&self, access_key_id: &str) -> CatalogResult<Option<AccessKey>>;

    /// All keys without their secrets, by ascending id.
    ///
    /// # Errors
    /// When the store fails.
    fn keys(&self) -> CatalogResult<Vec<KeyInfo>>;

    /// Deletes a key; `false` when there was none.
    ///
    /// # Errors
    /// When the store fails.
    fn delete_key(&self, access_key_id: &str) -> CatalogResult<bool>;

    /// What the cluster is made of; `None` before the first [`Catalog::put_cluster`].
    ///
    /// # Errors
    /// When the store fails.
    fn cluster(&self) -> CatalogResult<Option<ClusterFacts>>;

    /// Replaces the facts, if the stored revision still is `facts.revision` (0: none stored). Returns the
    /// new revision.
    ///
    /// # Errors
    /// [`CatalogError::Stale`], [`CatalogError::Invalid`].
    fn put_cluster(&self, facts: &ClusterFacts) -> CatalogResult<u64>;
}
