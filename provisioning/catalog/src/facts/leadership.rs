//! Leading: one holder of a name at a time, and commits that are refused once it is another's.
//!
//! Invariants:
//! - a [`Fence`] is passed by the store only while that very leadership lasts; a later one has a higher revision;
//! - [`Leadership::is_held`] never says yes on the word of a lease that may have run out by this host's clock. It is a
//!   courtesy that saves work: what protects the facts is the fence, which the store judges.

use async_trait::async_trait;

use super::FactsResult;

/// Proof of one leadership, for [`super::Commit::fenced`]. May be cloned and sent; it outlives its leadership and is
/// refused then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    pub(crate) name: String,
    pub(crate) revision: u64,
}

impl Fence {
    /// What is led.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Grows from each leader of a name to the next.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

/// What keeps a leadership: each store's own.
#[async_trait]
pub(crate) trait Lease: Send + Sync {
    /// See [`Leadership::is_held`].
    fn is_held(&self) -> bool;
    /// See [`Leadership::lost`].
    async fn lost(&self);
    /// See [`Leadership::resign`].
    async fn release(&mut self) -> FactsResult<()>;
}

/// Holds a name until dropped, resigned or lost. Dropping one tells no server: there the lease runs out by itself.
pub struct Leadership {
    fence: Fence,
    lease: Box<dyn Lease>,
}

impl std::fmt::Debug for Leadership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Leadership({}, {})", self.fence.name, self.fence.revision)
    }
}

impl Leadership {
    pub(crate) fn new(fence: Fence, lease: Box<dyn Lease>) -> Self {
        Self { fence, lease }
    }

    /// What its commits carry.
    #[must_use]
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Whether, as far as this host can tell, the name is still ours.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.lease.is_held()
    }

    /// Waits until it is not. May be cancelled and called again.
    pub async fn lost(&self) {
        self.lease.lost().await;
    }

    /// Gives the name up at once, so that the next leader need not wait for the lease to run out.
    ///
    /// # Errors
    /// [`super::FactsError::Unavailable`]: then the lease runs out by itself.
    pub async fn resign(mut self) -> FactsResult<()> {
        self.lease.release().await
    }
}
