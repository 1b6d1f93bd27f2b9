//! What can be wrong with a request to encode or to reconstruct. All of it is the caller's to mend:
//! the arithmetic itself cannot fail.

use thiserror::Error;

/// A request that does not fit the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CodingError {
    /// No such code: `k` must be at least 1 and `k + m` at most [`crate::SHARDS_MAX`].
    #[error("{k}+{m} is not a code: k must be at least 1, k+m at most {max}", max = crate::SHARDS_MAX)]
    Geometry {
        /// Data shards asked for.
        k: usize,
        /// Parity shards asked for.
        m: usize,
    },
    /// Too few or too many shards.
    #[error("expected {expected} shards, found {found}")]
    ShardCount {
        /// What the code needs.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// The shards of a stripe are all of one length; these are not.
    #[error("expected shards of {expected} bytes, found one of {found}")]
    ShardLength {
        /// Bytes of the first shard.
        expected: usize,
        /// Bytes of the shard that differs.
        found: usize,
    },
    /// A slot that the code does not have.
    #[error("slot {slot} of a code of {total} shards")]
    NoSuchSlot {
        /// The slot asked for.
        slot: usize,
        /// Slots the code has.
        total: usize,
    },
    /// One slot given twice in one list.
    #[error("slot {slot} given twice")]
    SlotTwice {
        /// The slot.
        slot: usize,
    },
}
