//! The name of a record in a store.

use base::{Lsn, PartitionId, StripeId};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// A shard of a stripe: `owner` 0, `id` the stripe, `slot` its place in the group.
    Stripe,
    /// A journal record: `owner` the partition, `id` the position, `slot` 0.
    Journal,
    /// A block of an index view: `owner` the region, `id` the block number, `slot` 0.
    Region,
    /// A small fact about the cluster or a partition: `owner` its kind, `id` its number, `slot` 0.
    Fact,
}

impl Space {
    /// The byte on the device. Retired numbers are never used again: none yet.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Stripe => 1,
            Self::Journal => 2,
            Self::Region => 3,
            Self::Fact => 4,
        }
    }

    /// The space a byte on the device stands for.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Stripe),
            2 => Some(Self::Journal),
            3 => Some(Self::Region),
            4 => Some(Self::Fact),
            _ => None,
        }
    }
}

/// A record's key, ordered by space, owner, id, slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardKey {
    /// What it belongs to.
    pub space: Space,
    /// Which of those.
    pub owner: u32,
    /// Its number there.
    pub id: u64,
    /// Its slot.
    pub slot: u8,
}

impl ShardKey {
    /// The shard in `slot` of `stripe`.
    #[must_use]
    pub const fn stripe(stripe: StripeId, slot: u8) -> Self {
        Self { space: Space::Stripe, owner: 0, id: stripe.0, slot }
    }

    /// The journal record at `lsn`.
    #[must_use]
    pub const fn journal(partition: PartitionId, lsn: Lsn) -> Self {
        Self { space: Space::Journal, owner: partition.0, id: lsn.0, slot: 0 }
    }

    /// Block `block` of index region `region`.
    #[must_use]
    pub const fn region(region: u32, block: u64) -> Self {
        Self { space: Space::Region, owner: region, id: block, slot: 0 }
    }

    /// Fact number `id` of a kind.
    #[must_use]
    pub const fn fact(kind: u32, id: u64) -> Self {
        Self { space: Space::Fact, owner: kind, id, slot: 0 }
    }

    /// The key's 16 bytes on the device.
    #[must_use]
    pub fn encode(&self) -> RawKey {
        RawKey {
            space: self.space.to_byte(),
            slot: self.slot,
            zero: [0; 2],
            owner: self.owner.into(),
            id: self.id.into(),
        }
    }
}

/// [`ShardKey`] on the device: 16 bytes, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawKey {
    /// [`Space`], offset 0.
    pub space: u8,
    /// Slot, offset 1.
    pub slot: u8,
    /// Zero, offset 2.
    pub zero: [u8; 2],
    /// Owner, offset 4.
    pub owner: U32,
    /// Number, offset 8.
    pub id: U64,
}

const _: () = assert!(size_of::<RawKey>() == 16);

impl RawKey {
    /// The key, when the bytes are one.
    #[must_use]
    pub fn decode(&self) -> Option<ShardKey> {
        let space = Space::from_byte(self.space)?;
        (self.zero == [0; 2]).then_some(ShardKey { space, owner: self.owner.get(), id: self.id.get(), slot: self.slot })
    }
}
