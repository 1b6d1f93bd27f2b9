//! Objects as the node understands them: put, get, list; stripes over devices, rows in the index.
//!
//! - An object becomes visible by one command in the index, after all its bytes are durable with the
//!   promised redundancy; a body that fails, or a caller that goes away, leaves nothing.
//! - Memory for bodies is bounded for the whole node, not only for a request.
//! - Every byte given out was verified by the store that read it; a shard that cannot be read is computed
//!   from others.
//! - Devices are reached through [`ShardStore`] and found through a [`Topology`], the index through
//!   [`index::PartitionClient`]: each may be on this host or on another one.
//! - No put or get waits for a dead device, or long for a slow one (`scatter.rs`, `gather.rs`).
//! - Time passes only through a clock and [`Timers`]; the daemon calls the background steps.
//!
//! Left out on purpose: repair, which moves and rebuilds shards.

#![forbid(unsafe_code)]

pub mod api;
mod config;
mod garbage;
mod gather;
mod hedge;
mod ids;
mod inner;
mod late;
mod memory;
mod multipart;
mod orphans;
mod pace;
mod packer;
mod put;
mod read;
mod scatter;
mod store;
mod stores;
mod stripe;
mod timers;
mod topology;
mod write;

pub use config::{ConfigError, INLINE_MAX_BYTES, PUT_MAX_BYTES, Redundancy, SHARD_BYTES};
pub use inner::{Intake, ObjectStats, OpenError};
pub use pace::DevicePace;
pub use packer::PackReport;
pub use read::ObjectReader;
pub use store::{ObjectStore, OpenConfig, OverConfig};
pub use stores::{ShardError, ShardResult, ShardStore};
pub use timers::{NoTimers, Timers};
pub use topology::{Device, Topology};
