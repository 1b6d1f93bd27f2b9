//! Identifiers, units, and the two smallest doors: the clock and the source of randomness.
//!
//! Nothing else in the workspace reads a clock or draws randomness; what needs either takes a
//! [`Clock`] or an [`Entropy`], so that a simulator can replace them.

#![forbid(unsafe_code)]

mod door;
mod id;

pub use door::{Clock, Entropy, OsClock, OsEntropy, SeededEntropy, StepClock};
pub use id::{ClusterId, DeviceId, Lsn, NodeId, ParseIdError, PartitionId, StripeId};

/// Bytes in one KiB.
pub const KIB: u64 = 1024;
/// Bytes in one MiB.
pub const MIB: u64 = 1024 * KIB;
/// Bytes in one GiB.
pub const GIB: u64 = 1024 * MIB;
