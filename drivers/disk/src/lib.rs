//! The `BlockDevice` door: what the shard store may ask of a device, and nothing more.
//!
//! Invariants every device keeps:
//! - buffers start at a multiple of [`IO_ALIGN`], and writes and discards start and end at one; reads may start and
//!   end at any multiple of [`DeviceFacts::read_align_bytes`];
//! - a write is durable only when a flush *started after the write had finished* succeeds;
//! - a crash may keep any subset of unflushed sectors, torn at 512 bytes;
//! - a failed operation says why, and names the place.
//!
//! Left out on purpose: queues, retries, checksums, caching. They belong to the store.

mod buffer;
#[cfg(feature = "contract")]
pub mod contract;
mod device;
mod error;
mod pool;
mod zone;

pub use buffer::{AlignedBuf, AlignedBytes, IO_ALIGN, READ_ALIGN_MIN};
pub use device::{BlockDevice, DeviceFacts, DeviceKind, MAX_WRITE_PARTS};
pub use error::{DiskError, DiskOp, DiskResult};
pub use zone::{ZoneFacts, ZoneFault};
