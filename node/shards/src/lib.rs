//! The log-structured store of ONE device.
//!
//! - Every persistent byte lies in a record ([`format::RecordHead`]); records are appended to extents.
//! - An ack means: the record, and everything before it in its extent, is on the medium, and so is the
//!   anchor page that lets recovery find the extent. One flush acknowledges every write it covers.
//! - The index (key -> place) is memory only; it is dumped by checkpoints and rebuilt by rolling forward.
//! - A record is replaced or removed by a newer record, never changed in place. Extents become free only
//!   by a checkpoint that no longer needs them. The checkpoint before it stays usable: what it needs has been
//!   written again since, in extents that are rolled forward; extents with tombstones wait one checkpoint more.
//! - Bytes are verified before they leave. What does not verify is an error with a name.
//! - After a failed write or flush the store is poisoned: reads go on, nothing is written any more.
//!
//! One thread owns a store and its device; [`StoreHandle`] reaches it from anywhere. The store reads no
//! clock and draws no randomness: the same device and the same requests give the same writes.
//!
//! Left out on purpose: redundancy, retries, repair. They need to know about other devices.

#![forbid(unsafe_code)]

mod anchors;
mod checkpoint;
mod core;
mod error;
mod extent;
mod fault;
mod handle;
mod index;
mod keylock;
mod limits;
mod load;
mod mutant;
mod open;
mod place;
mod read;
mod reclaim;
mod recover;
mod scan;
mod serve;
mod space;
mod state;
mod stats;
mod walk;
mod zones;

pub use error::{StoreError, StoreResult};
pub use fault::{FaultKind, FaultRecord};
pub use handle::{Payload, ScanPosition, ShardInfo, StoreHandle, VerifyReport};
pub use limits::Limits;
pub use mutant::Mutant;
#[cfg(feature = "mutants")]
pub use mutant::set_mutant;
pub use open::{FormatOptions, Store, identify};
pub use recover::RecoveryReport;
pub use stats::StoreStats;
