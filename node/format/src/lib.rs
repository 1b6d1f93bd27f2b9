//! Every struct that lies on a device, with its version, its sizes and offsets, and its golden bytes.
//! No I/O.

#![forbid(unsafe_code)]

mod key;

pub use key::{RawKey, ShardKey, Space};

/// Longest descriptor of a record, in bytes: a bucket name, a key of 1,024 bytes and a few numbers.
pub const DESCRIPTOR_MAX_BYTES: usize = 2048;
