//! The controller's store: ordered keys with revisions, changed atomically by compare-and-set.
//!
//! Invariants every [`Facts`] keeps:
//! - a commit that was answered with [`Outcome::Committed`] is durable, whole, and seen by every later call of anyone;
//! - every applied commit that changed something raises the store's revision, and the keys it put carry that revision. A
//!   revision never returns, so a check that failed once fails for ever, also for a commit that is still under way;
//! - a commit fenced by a leadership is applied only while that leadership lasts;
//! - what a read gives was all there at one moment, and is the newest.
//!
//! Changes are learned by asking ([`Facts::changed`], [`crate::Follower`]), not by a watch. Its users want the newest
//! state and not each event; asking costs one small read, needs no history to be kept, and has no stream that can be dead
//! without anyone noticing.
//!
//! Left out on purpose: transactions that read and write at once (check what was read instead), and the past.

mod commit;
mod error;
mod leadership;

use async_trait::async_trait;
use bytes::Bytes;

pub use commit::{
    CHANGES_MAX, CHECKS_MAX, COMMIT_BYTES_MAX, Change, Check, Commit, KEY_BYTES_MAX, Outcome, VALUE_BYTES_MAX,
};
pub(crate) use commit::{check_key, check_prefix};
pub use error::{FactsError, FactsResult};
pub(crate) use leadership::Lease;
pub use leadership::{Fence, Leadership};

/// A key's value and when it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Which.
    pub key: String,
    /// The revision of the commit that put it.
    pub revision: u64,
    /// What.
    pub value: Bytes,
}

/// What is below a prefix, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The store's revision at that moment: what to ask [`Facts::changed`] from.
    pub revision: u64,
    /// By ascending key.
    pub facts: Vec<Fact>,
    /// Keys below the prefix, told or not. Fewer than were known and came new: some were deleted.
    pub count: u64,
}

/// The store. Every call is bounded by the timeouts that the store was opened with.
#[async_trait]
pub trait Facts: Send + Sync + 'static {
    /// The fact of this key.
    ///
    /// # Errors
    /// [`FactsError::Unavailable`], [`FactsError::Invalid`], [`FactsError::Store`].
    async fn get(&self, key: &str) -> FactsResult<Option<Fact>>;

    /// What is below a prefix (all of it for an empty one) and was put after a revision. Deletions show in the count alone.
    ///
    /// # Errors
    /// As [`Facts::get`].
    async fn changed(&self, prefix: &str, after: u64) -> FactsResult<Listing>;

    /// Everything below a prefix.
    ///
    /// # Errors
    /// As [`Facts::get`].
    async fn list(&self, prefix: &str) -> FactsResult<Listing> {
        self.changed(prefix, 0).await
    }

    /// Keys and revisions below a prefix, by ascending key, without the values.
    ///
    /// # Errors
    /// As [`Facts::get`].
    async fn keys(&self, prefix: &str) -> FactsResult<Vec<Check>>;

    /// Applies a commit, or changes nothing. Goes on if the future is dropped.
    ///
    /// # Errors
    /// [`FactsError::Unknown`] is to be settled (see [`crate::Writer`]); [`FactsError::NotLeader`],
    /// [`FactsError::Unavailable`], [`FactsError::Full`] and the others changed nothing.
    async fn commit(&self, commit: Commit) -> FactsResult<Outcome>;

    /// Takes the lead of `name` for `who` (told to those who come second), if nobody has it.
    ///
    /// # Errors
    /// [`FactsError::Led`], and as [`Facts::get`]; after [`FactsError::Unavailable`] the name may be taken, by nobody,
    /// until a lease has run out.
    async fn lead(&self, name: &str, who: &str) -> FactsResult<Leadership>;
}
