//! One atomic change of the facts: what has to hold, what is changed, and the limits of both.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{FactsError, FactsResult, Fence};

/// Bytes of a key at most.
pub const KEY_BYTES_MAX: usize = 256;
/// Bytes of a value at most; larger ones are a [`crate::blob`].
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Checks of one commit at most. etcd takes 128 comparisons unless told otherwise; the fence is one.
pub const CHECKS_MAX: usize = 120;
/// Changes of one commit at most; etcd's limit is the same 128.
pub const CHANGES_MAX: usize = 120;
/// Bytes of all keys and values of a commit at most. etcd takes requests of 1.5 MiB unless told otherwise.
pub const COMMIT_BYTES_MAX: usize = VALUE_BYTES_MAX + (128 << 10);

// etcd reads a key back for each check when a commit is refused, so a key may be in a request twice; besides, each key
// stands behind the deployment's prefix, and each part of a request has a frame of a few bytes.
const _: () = assert!(COMMIT_BYTES_MAX + CHECKS_MAX * KEY_BYTES_MAX + (CHECKS_MAX + CHANGES_MAX) * 1024 < 3 << 19);

/// What has to hold for a commit to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Of this key,
    pub key: String,
    /// the last change has this revision; 0: it is absent.
    pub revision: u64,
}

/// What a commit changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key has this value from now on.
    Put {
        /// Which.
        key: String,
        /// What.
        value: Bytes,
    },
    /// The key is gone; it may be so already.
    Delete {
        /// Which.
        key: String,
    },
}

impl Change {
    /// The key that is changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// An atomic change: every check holds and every change is made, or nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// The leadership it stands and falls with.
    pub fence: Option<Fence>,
    /// In the order in which they are looked at: the first that fails is the one told.
    pub checks: Vec<Check>,
    /// No key twice.
    pub changes: Vec<Change>,
}

impl Commit {
    /// Nothing to check, nothing to change.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Is refused with [`FactsError::NotLeader`] once that leadership is over.
    #[must_use]
    pub fn fenced(mut self, fence: &Fence) -> Self {
        self.fence = Some(fence.clone());
        self
    }

    /// Adds a check.
    #[must_use]
    pub fn check(mut self, key: impl Into<String>, revision: u64) -> Self {
        self.checks.push(Check { key: key.into(), revision });
        self
    }

    /// Adds a put.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.changes.push(Change::Put { key: key.into(), value: value.into() });
        self
    }

    /// Adds a deletion.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.changes.push(Change::Delete { key: key.into() });
        self
    }

    /// Whether it may be sent; every store asks first, so all refuse the same.
    ///
    /// # Errors
    /// [`FactsError::Invalid`].
    pub fn validate(&self) -> FactsResult<()> {
        let refuse = |field, rule| Err(FactsError::Invalid { field, rule });
        if self.checks.len() > CHECKS_MAX {
            return refuse("a commit", "has at most 120 checks");
        }
        if self.changes.len() > CHANGES_MAX {
            return refuse("a commit", "has at most 120 changes");
        }
        let mut bytes = 0;
        for check in &self.checks {
            check_key(&check.key)?;
            bytes += check.key.len();
            if i64::try_from(check.revision).is_err() {
                return refuse("a revision", "is below 2^63");
            }
        }
        let mut seen = BTreeSet::new();
        for change in &self.changes {
            check_key(change.key())?;
            bytes += change.key().len();
            if !seen.insert(change.key()) {
                return refuse("a key", "is changed once in a commit");
            }
            if let Change::Put { value, .. } = change {
                bytes += value.len();
                if value.len() > VALUE_BYTES_MAX {
                    return refuse("a value", "has at most 1 MiB");
                }
            }
        }
        if bytes > COMMIT_BYTES_MAX {
            return refuse("a commit", "has at most 1152 KiB of keys and values");
        }
        Ok(())
    }
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Applied, and durable.
    Committed {
        /// The store's revision then: that of every key it put.
        revision: u64,
    },
    /// Nothing was changed.
    Conflict {
        /// The key of the first check that did not hold.
        key: String,
        /// Its revision; 0: it is absent.
        revision: u64,
    },
}

/// Whether a key may be stored.
pub(crate) fn check_key(key: &str) -> FactsResult<()> {
    if key.is_empty() {
        return Err(FactsError::Invalid { field: "a key", rule: "is not empty" });
    }
    check_prefix(key)
}

/// Whether a prefix may be asked for.
pub(crate) fn check_prefix(prefix: &str) -> FactsResult<()> {
    if prefix.len() > KEY_BYTES_MAX {
        return Err(FactsError::Invalid { field: "a key", rule: "has at most 256 bytes" });
    }
    if prefix.chars().any(char::is_control) {
        return Err(FactsError::Invalid { field: "a key", rule: "has no control characters" });
    }
    Ok(())
}
