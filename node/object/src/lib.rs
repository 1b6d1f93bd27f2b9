//! Objects as the node understands them: put, get, list; stripes over devices, rows in the index.
//!
//! - An object becomes visible by one command in the index, after all its bytes are durable with the
//!   promised redundancy; a body that fails, or a caller that goes away, leaves nothing.
//! - Memory for bodies is bounded for the whole node, not only for a request.
//! - Every byte given out was verified by the store that read it; a shard that cannot be read is computed
//!   from others.
//! - Nothing here has a timer: the daemon calls the background steps.
//!
//! Left out on purpose: repair, hedged reads. They need to know which device is slow or new.

#![forbid(unsafe_code)]

pub mod api;
mod config;
mod garbage;
mod ids;
mod inner;
mod memory;
mod multipart;
mod orphans;
mod packer;
mod put;
mod read;
mod store;
mod stripe;
mod write;

pub use config::{ConfigError, INLINE_MAX_BYTES, PUT_MAX_BYTES, Redundancy, SHARD_BYTES};
pub use inner::{Intake, ObjectStats, OpenError};
pub use packer::PackReport;
pub use read::ObjectReader;
pub use store::{ObjectStore, OpenConfig};
