//! A checkpoint: the store's index and extent table, dumped in order.
//!
//! ```text
//! head (32 bytes) | one entry of 24 bytes per extent | one entry of 40 bytes per live record, by key
//! ```
//! The bytes are cut into payloads of checkpoint records; [`crate::CheckpointRef`] holds length and CRC.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{FormatError, RawKey, ShardKey, Stream};

const MAGIC: [u8; 4] = *b"HFck";
/// 1: the first.
const VERSION: u16 = 1;
const WHAT: &str = "checkpoint";

/// What an extent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentState {
    /// Holds nothing.
    Free,
    /// Being appended to.
    Open(Stream),
    /// Full, or closed at a restart.
    Sealed(Stream),
    /// Holds nothing that this checkpoint needs; free once the next checkpoint is durable, so that the
    /// previous one can still be recovered from.
    Quarantined,
}

impl ExtentState {
    const fn to_bytes(self) -> [u8; 2] {
        match self {
            Self::Free => [1, 0],
            Self::Open(stream) => [2, stream.to_byte()],
            Self::Sealed(stream) => [3, stream.to_byte()],
            Self::Quarantined => [4, 0],
        }
    }

    fn from_bytes(bytes: [u8; 2]) -> Option<Self> {
        match bytes {
            [1, 0] => Some(Self::Free),
            [2, stream] => Stream::from_byte(stream).map(Self::Open),
            [3, stream] => Stream::from_byte(stream).map(Self::Sealed),
            [4, 0] => Some(Self::Quarantined),
            _ => None,
        }
    }
}

/// The start of a checkpoint: 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointHead {
    /// Number of extents.
    pub extents: u32,
    /// Number of live records.
    pub shards: u64,
    /// Newest sequence number reflected.
    pub sequence: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHead {
    magic: [u8; 4], // 0
    version: U16,   // 4, at this offset for ever
    zero: [u8; 2],  // 6
    extents: U32,   // 8
    zero2: [u8; 4], // 12
    shards: U64,    // 16
    sequence: U64,  // 24
}

const _: () = assert!(size_of::<RawHead>() == CheckpointHead::BYTES);

impl CheckpointHead {
    /// Its size.
    pub const BYTES: usize = 32;

    /// Bytes of the whole checkpoint; `None` when the numbers are absurd.
    #[must_use]
    pub fn total_bytes(&self) -> Option<u64> {
        let extents = u64::from(self.extents) * CheckpointExtent::BYTES as u64;
        let shards = self.shards.checked_mul(CheckpointShard::BYTES as u64)?;
        extents.checked_add(shards)?.checked_add(Self::BYTES as u64)
    }

    /// Appends the head.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        let raw = RawHead {
            magic: MAGIC,
            version: VERSION.into(),
            zero: [0; 2],
            extents: self.extents.into(),
            zero2: [0; 4],
            shards: self.shards.into(),
            sequence: self.sequence.into(),
        };
        out.extend_from_slice(raw.as_bytes());
    }

    /// The head and what follows it. The caller has checked the checkpoint's CRC.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), FormatError> {
        let (raw, rest) = RawHead::ref_from_prefix(bytes).map_err(|_| FormatError::Absent(WHAT))?;
        if raw.magic != MAGIC {
            return Err(FormatError::Absent(WHAT));
        }
        if raw.version.get() > VERSION || raw.version.get() == 0 {
            return Err(FormatError::Newer { what: WHAT, found: raw.version.get(), known: VERSION });
        }
        let head = Self { extents: raw.extents.get(), shards: raw.shards.get(), sequence: raw.sequence.get() };
        if head.total_bytes() != Some(bytes.len() as u64) || raw.zero != [0; 2] || raw.zero2 != [0; 4] {
            return Err(FormatError::Invalid { what: WHAT, field: "lengths" });
        }
        Ok((head, rest))
    }
}

/// One extent in a checkpoint: 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointExtent {
    /// What it is doing.
    pub state: ExtentState,
    /// Its generation; 0 before its first use.
    pub generation: u64,
    /// Units appended, all durable.
    pub written_units: u32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawExtent {
    state: [u8; 2],     // 0
    zero: [u8; 2],      // 2
    written_units: U32, // 4
    generation: U64,    // 8
    reserved: [u8; 8],  // 16
}

const _: () = assert!(size_of::<RawExtent>() == CheckpointExtent::BYTES);

impl CheckpointExtent {
    /// Its size.
    pub const BYTES: usize = 24;

    /// Appends the entry.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        let raw = RawExtent {
            state: self.state.to_bytes(),
            zero: [0; 2],
            written_units: self.written_units.into(),
            generation: self.generation.into(),
            reserved: [0; 8],
        };
        out.extend_from_slice(raw.as_bytes());
    }

    /// The entry and what follows it.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), FormatError> {
        let invalid = FormatError::Invalid { what: WHAT, field: "extent" };
        let (raw, rest) = RawExtent::ref_from_prefix(bytes).map_err(|_| invalid)?;
        if raw.zero != [0; 2] || raw.reserved != [0; 8] {
            return Err(invalid);
        }
        let state = ExtentState::from_bytes(raw.state).ok_or(invalid)?;
        Ok((Self { state, generation: raw.generation.get(), written_units: raw.written_units.get() }, rest))
    }
}

/// One live record in a checkpoint: 40 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointShard {
    /// Its key.
    pub key: ShardKey,
    /// Its extent.
    pub extent: u32,
    /// Units from the start of the extent.
    pub offset_units: u32,
    /// Units of the whole record.
    pub record_units: u32,
    /// Payload bytes.
    pub payload_bytes: u32,
    /// The header's checksum.
    pub proof: u32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawShard {
    key: RawKey,        // 0
    extent: U32,        // 16
    offset_units: U32,  // 20
    record_units: U32,  // 24
    payload_bytes: U32, // 28
    proof: U32,         // 32
    reserved: [u8; 4],  // 36
}

const _: () = assert!(size_of::<RawShard>() == CheckpointShard::BYTES);

impl CheckpointShard {
    /// Its size.
    pub const BYTES: usize = 40;

    /// Appends the entry.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        let raw = RawShard {
            key: self.key.encode(),
            extent: self.extent.into(),
            offset_units: self.offset_units.into(),
            record_units: self.record_units.into(),
            payload_bytes: self.payload_bytes.into(),
            proof: self.proof.into(),
            reserved: [0; 4],
        };
        out.extend_from_slice(raw.as_bytes());
    }

    /// The entry and what follows it.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), FormatError> {
        let invalid = FormatError::Invalid { what: WHAT, field: "shard" };
        let (raw, rest) = RawShard::ref_from_prefix(bytes).map_err(|_| invalid)?;
        let key = raw.key.decode().filter(|_| raw.reserved == [0; 4]).ok_or(invalid)?;
        let shard = Self {
            key,
            extent: raw.extent.get(),
            offset_units: raw.offset_units.get(),
            record_units: raw.record_units.get(),
            payload_bytes: raw.payload_bytes.get(),
            proof: raw.proof.get(),
        };
        Ok((shard, rest))
    }
}

#[cfg(test)]
mod tests {
    use base::StripeId;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn checkpoints_survive_their_bytes() {
        let head = CheckpointHead { extents: 1, shards: 1, sequence: 9 };
        let extent = CheckpointExtent { state: ExtentState::Open(Stream::Meta), generation: 3, written_units: 17 };
        let shard = CheckpointShard {
            key: ShardKey::stripe(StripeId(5), 1),
            extent: 0,
            offset_units: 8,
            record_units: 9,
            payload_bytes: 4096,
            proof: 77,
        };
        let mut bytes = Vec::new();
        head.encode_to(&mut bytes);
        extent.encode_to(&mut bytes);
        shard.encode_to(&mut bytes);
        assert_eq!(&bytes[..16], b"HFck\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00");
        let (got, rest) = CheckpointHead::decode(&bytes).expect("head");
        assert_eq!(got, head);
        let (got, rest) = CheckpointExtent::decode(rest).expect("extent");
        assert_eq!(got, extent);
        assert_eq!(CheckpointShard::decode(rest), Ok((shard, &[][..])));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = CheckpointHead::decode(&bytes);
            let _ = CheckpointExtent::decode(&bytes);
            let _ = CheckpointShard::decode(&bytes);
        }
    }
}
