//! Every struct that lies on a device, with its version, its sizes and offsets, and its golden bytes.
//! No I/O.
//!
//! Bytes from a device are untrusted: each `decode` checks length, magic, version, checksum and the
//! relations between fields before it gives a value, and never allocates by an unchecked length.
//! All numbers are little endian. `docs/on-disk-format.md` is the same in prose.

#![forbid(unsafe_code)]

mod anchor;
mod checkpoint;
mod descriptor;
mod journal;
mod key;
mod label;
mod record;

pub use anchor::{ANCHOR_MAX_OPENED, ANCHOR_MAX_PARTS, Anchor, CheckpointPart, CheckpointRef, OpenedExtent, Stream};
pub use checkpoint::{CheckpointExtent, CheckpointHead, CheckpointRun, CheckpointShard, ExtentState};
pub use descriptor::{Descriptor, PackEntry, decode_pack_directory, encode_pack_directory};
pub use journal::{
    EPOCH_MEMBERS_MAX, FACT_VERSION, FactBody, JOURNAL_HEADER_BYTES, JOURNAL_MAGIC, JOURNAL_VERSION, JournalFact,
    JournalHeader, decode_fact, encode_fact,
};
pub use key::{RawKey, ShardKey, Space};
pub use label::{Geometry, Label};
pub use record::{
    BLOCK_BYTES, DIRECT_MIN_BYTES, Place, RecordHead, RecordKind, RecordLayout, TOMBSTONE_MAX_KEYS, UNIT_BYTES,
    block_checksums, decode_tombstone, encode_tombstone,
};

use thiserror::Error;

/// Longest descriptor of a record, in bytes: a bucket name, a key of 1,024 bytes and a few numbers.
pub const DESCRIPTOR_MAX_BYTES: usize = 2048;

/// Longest payload of a record, in bytes. Stripes give shards of at most 1 MiB and journal batches are
/// cut at a few MiB; the limit keeps every length on a device small enough to trust with an allocation.
pub const PAYLOAD_MAX_BYTES: usize = 8 << 20;

/// Why bytes from a device are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Nothing of ours is here.
    #[error("no {0} here")]
    Absent(&'static str),
    /// Written by a newer version.
    #[error("{what} has format version {found}; this program reads up to {known}")]
    Newer {
        /// What it is.
        what: &'static str,
        /// The version found.
        found: u16,
        /// The newest version this program reads.
        known: u16,
    },
    /// The checksum does not fit.
    #[error("the checksum of the {0} does not fit")]
    Checksum(&'static str),
    /// The checksum fits and the contents make no sense; a bug, or a forgery.
    #[error("the {what} is invalid: {field}")]
    Invalid {
        /// What it is.
        what: &'static str,
        /// The field.
        field: &'static str,
    },
}

/// CRC-32 (ISO-HDLC) of `parts`, one after the other, starting from `seed`.
#[must_use]
pub(crate) fn crc(seed: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}
