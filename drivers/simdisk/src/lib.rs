//! A disk in memory that lies, from a seed.
//!
//! The fault model, and with it what the layers above claim to survive:
//! - a write is in flight from the call on; it shows to reads when it finishes, and it is durable only after a
//!   flush that *started after it had finished*;
//! - at a crash each unflushed write, finished or in flight, keeps any subset of its 512-byte sectors; where
//!   unflushed writes overlap, a sector may thus hold the old bytes or those of any of them;
//! - operations finish in any order: each takes a number of polls drawn from the seed;
//! - after a failed flush the writes it should have covered are each durable in part or not at all, and later
//!   flushes do not save them, though reads go on showing them (as a page cache does);
//! - sequential zones, of a disk that has some, lose a tail instead of any subset (see `zoned.rs`);
//! - beyond that, only what a [`FaultAtlas`] allows, counted in [`FaultCounts`] as it is injected.
//!
//! The seed and the order of calls decide everything; there is no clock and no other randomness.
//! Left out on purpose: sectors torn inside 512 bytes, and latency in units of time (the simulator's clock adds it).

#![forbid(unsafe_code)]

mod atlas;
mod device;
mod medium;
mod op;
mod zoned;

pub use atlas::{FaultAtlas, FaultCounts};
pub use device::{Shape, SimDisk};
