//! A checkpoint: the store's index and extent table, dumped in order.
//!
//! ```text
//! head (32 bytes) | one entry of 24 bytes per extent | runs, in key order
//! run: head of 8 bytes: space and owner of all its records | one entry of 24 bytes per live record
//! ```
//! The bytes are cut into payloads of checkpoint records; [`crate::CheckpointRef`] holds length and CRC.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{FormatError, ShardKey, Space, Stream};

const MAGIC: [u8; 4] = *b"HFck";
/// 1: entries of 40 bytes with whole keys; proofs were header checksums. Never released, no longer read.
/// 2: runs; the proof of a record of at most one block is the block's checksum.
const VERSION: u16 = 2;
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
    /// Number of runs.
    pub runs: u32,
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
    runs: U32,      // 12
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
        let runs = u64::from(self.runs) * CheckpointRun::BYTES as u64;
        let shards = self.shards.checked_mul(CheckpointShard::BYTES as u64)?;
        (extents + runs + Self::BYTES as u64).checked_add(shards)
    }

    /// Appends the head.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        let raw = RawHead {
            magic: MAGIC,
            version: VERSION.into(),
            zero: [0; 2],
            extents: self.extents.into(),
            runs: self.runs.into(),
            shards: self.shards.into(),
            sequence: self.sequence.into(),
        };
        out.extend_from_slice(raw.as_bytes());
    }

    /// The head and what follows it, in the first piece of a checkpoint of `total` bytes.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8], total: u64) -> Result<(Self, &[u8]), FormatError> {
        let (raw, rest) = RawHead::ref_from_prefix(bytes).map_err(|_| FormatError::Absent(WHAT))?;
        if raw.magic != MAGIC {
            return Err(FormatError::Absent(WHAT));
        }
        match raw.version.get() {
            VERSION => {}
            found if found > VERSION => return Err(FormatError::Newer { what: WHAT, found, known: VERSION }),
            _ => return Err(FormatError::Invalid { what: WHAT, field: "a version that is no longer read" }),
        }
        let head = Self {
            extents: raw.extents.get(),
            runs: raw.runs.get(),
            shards: raw.shards.get(),
            sequence: raw.sequence.get(),
        };
        if head.total_bytes() != Some(total) || raw.zero != [0; 2] {
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

/// The start of a run of records of one space and owner: 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointRun {
    /// Space of its records.
    pub space: Space,
    /// Owner of its records.
    pub owner: u32,
    /// Number of its records, at least 1.
    pub records: u16,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRun {
    space: u8,    // 0
    zero: u8,     // 1
    records: U16, // 2
    owner: U32,   // 4
}

const _: () = assert!(size_of::<RawRun>() == CheckpointRun::BYTES);

impl CheckpointRun {
    /// Its size.
    pub const BYTES: usize = 8;

    /// Appends the head of the run.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        let raw =
            RawRun { space: self.space.to_byte(), zero: 0, records: self.records.into(), owner: self.owner.into() };
        out.extend_from_slice(raw.as_bytes());
    }

    /// The head of the run and what follows it.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), FormatError> {
        let invalid = FormatError::Invalid { what: WHAT, field: "run" };
        let (raw, rest) = RawRun::ref_from_prefix(bytes).map_err(|_| invalid)?;
        let space = Space::from_byte(raw.space).filter(|_| raw.zero == 0 && raw.records.get() > 0).ok_or(invalid)?;
        Ok((Self { space, owner: raw.owner.get(), records: raw.records.get() }, rest))
    }
}

/// One live record in a checkpoint: 24 bytes, in a run that holds space and owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointShard {
    /// Its key.
    pub key: ShardKey,
    /// Its place: units from the start of the first extent, below 2^40.
    pub place_units: u64,
    /// Units from the record's start to its payload.
    pub head_units: u8,
    /// Payload bytes.
    pub payload_bytes: u32,
    /// What proves that a record read there is this one ([`crate::RecordHead::decode`]).
    pub proof: u32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawShard {
    id: U64,              // 0
    place_units: [u8; 5], // 8
    slot: u8,             // 13
    head_units: u8,       // 14
    zero: u8,             // 15
    payload_bytes: U32,   // 16
    proof: U32,           // 20
}

const _: () = assert!(size_of::<RawShard>() == CheckpointShard::BYTES);

impl CheckpointShard {
    /// Its size.
    pub const BYTES: usize = 24;

    /// Appends the entry.
    ///
    /// # Panics
    /// When the place is 2^40 or more.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        let [place @ .., a, b, c] = self.place_units.to_le_bytes();
        assert_eq!([a, b, c], [0; 3], "places fit into 40 bits");
        let raw = RawShard {
            id: self.key.id.into(),
            place_units: place,
            slot: self.key.slot,
            head_units: self.head_units,
            zero: 0,
            payload_bytes: self.payload_bytes.into(),
            proof: self.proof.into(),
        };
        out.extend_from_slice(raw.as_bytes());
    }

    /// The entry of a record in `run`, and what follows it.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode<'a>(bytes: &'a [u8], run: &CheckpointRun) -> Result<(Self, &'a [u8]), FormatError> {
        let invalid = FormatError::Invalid { what: WHAT, field: "shard" };
        let (raw, rest) = RawShard::ref_from_prefix(bytes).map_err(|_| invalid)?;
        if raw.zero != 0 {
            return Err(invalid);
        }
        let mut place = [0; 8];
        place[..5].copy_from_slice(&raw.place_units);
        let shard = Self {
            key: ShardKey { space: run.space, owner: run.owner, id: raw.id.get(), slot: raw.slot },
            place_units: u64::from_le_bytes(place),
            head_units: raw.head_units,
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
        let head = CheckpointHead { extents: 1, runs: 1, shards: 1, sequence: 9 };
        let extent = CheckpointExtent { state: ExtentState::Open(Stream::Meta), generation: 3, written_units: 17 };
        let run = CheckpointRun { space: Space::Stripe, owner: 0, records: 1 };
        let shard = CheckpointShard {
            key: ShardKey::stripe(StripeId(5), 1),
            place_units: 0x12_3456_789a,
            head_units: 8,
            payload_bytes: 4096,
            proof: 77,
        };
        let mut bytes = Vec::new();
        head.encode_to(&mut bytes);
        extent.encode_to(&mut bytes);
        run.encode_to(&mut bytes);
        shard.encode_to(&mut bytes);
        assert_eq!(&bytes[..16], b"HFck\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00");
        assert_eq!(&bytes[64..], b"\x05\0\0\0\0\0\0\0\x9a\x78\x56\x34\x12\x01\x08\x00\x00\x10\x00\x00\x4d\x00\x00\x00");
        let (got, rest) = CheckpointHead::decode(&bytes, bytes.len() as u64).expect("head");
        assert_eq!(got, head);
        let (got, rest) = CheckpointExtent::decode(rest).expect("extent");
        assert_eq!(got, extent);
        let (got, rest) = CheckpointRun::decode(rest).expect("run");
        assert_eq!(got, run);
        assert_eq!(CheckpointShard::decode(rest, &run), Ok((shard, &[][..])));
    }

    #[test]
    fn versions_that_are_not_read_are_refused() {
        let mut bytes = Vec::new();
        CheckpointHead { extents: 0, runs: 0, shards: 0, sequence: 9 }.encode_to(&mut bytes);
        for version in [0, 1, 3] {
            bytes[4] = version;
            assert!(CheckpointHead::decode(&bytes, 32).is_err(), "version {version}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), total in any::<u64>()) {
            let _ = CheckpointHead::decode(&bytes, total);
            let _ = CheckpointExtent::decode(&bytes);
            if let Ok((run, rest)) = CheckpointRun::decode(&bytes) {
                let _ = CheckpointShard::decode(rest, &run);
            }
        }
    }
}
