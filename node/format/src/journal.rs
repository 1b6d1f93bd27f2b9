//! The journal's records and facts on the device. Little endian; versions at offset 4 for ever.
//!
//! The store's own checksums cover these bytes; the checksums here tie a record to its place in the
//! journal, so that a record of an abandoned past is noticed.

use base::{DeviceId, Lsn, PartitionId};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of [`JournalHeader`] written today. 1: the first.
pub const JOURNAL_VERSION: u16 = 1;
/// First bytes of a journal record's payload.
pub const JOURNAL_MAGIC: [u8; 4] = *b"HFJR";
/// Bytes of a journal record's payload before its body.
pub const JOURNAL_HEADER_BYTES: usize = size_of::<JournalHeader>();

/// Before the body of every journal record: 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct JournalHeader {
    /// [`JOURNAL_MAGIC`], offset 0.
    pub magic: [u8; 4],
    /// [`JOURNAL_VERSION`], offset 4.
    pub version: U16,
    /// Zero, offset 6.
    pub zero: [u8; 2],
    /// The partition, offset 8.
    pub partition: U32,
    /// Bytes of the body, offset 12.
    pub body_bytes: U32,
    /// The epoch that wrote it first (run in the upper half), offset 16.
    pub epoch: U64,
    /// The position, offset 24.
    pub lsn: U64,
    /// `header_crc` of the record before; 0 for the first. Offset 32.
    pub previous: U32,
    /// CRC-32 of the body, offset 36.
    pub body_crc: U32,
    /// Zero, offset 40.
    pub reserved: [u8; 20],
    /// CRC-32 of the 60 bytes before, offset 60.
    pub header_crc: U32,
}

const _: () = assert!(size_of::<JournalHeader>() == 64);

impl JournalHeader {
    /// A header for a body of `body_bytes` bytes with CRC-32 `body_crc`.
    #[must_use]
    pub fn new(partition: PartitionId, epoch: u64, lsn: Lsn, previous: u32, body_bytes: u32, body_crc: u32) -> Self {
        let mut header = Self {
            magic: JOURNAL_MAGIC,
            version: JOURNAL_VERSION.into(),
            zero: [0; 2],
            partition: partition.0.into(),
            body_bytes: body_bytes.into(),
            epoch: epoch.into(),
            lsn: lsn.0.into(),
            previous: previous.into(),
            body_crc: body_crc.into(),
            reserved: [0; 20],
            header_crc: 0.into(),
        };
        header.header_crc = header.computed_crc().into();
        header
    }

    /// The header at the start of `payload`, when it is one of `partition` at `lsn`; else what is wrong.
    ///
    /// # Errors
    /// What does not agree.
    pub fn parse(payload: &[u8], partition: PartitionId, lsn: Lsn) -> Result<Self, &'static str> {
        let (header, _) = Self::read_from_prefix(payload).map_err(|_| "shorter than a journal header")?;
        if header.magic != JOURNAL_MAGIC {
            return Err("not a journal record");
        }
        if header.version.get() != JOURNAL_VERSION {
            return Err("a journal record of another version");
        }
        if header.header_crc.get() != header.computed_crc() {
            return Err("the journal header's checksum differs");
        }
        if header.zero != [0; 2] || header.reserved != [0; 20] {
            return Err("reserved bytes of the journal header are set");
        }
        if header.partition.get() != partition.0 || header.lsn.get() != lsn.0 {
            return Err("a journal record of another place");
        }
        Ok(header)
    }

    fn computed_crc(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[..60])
    }
}

/// What a journal keeps in the fact space of the devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalFact {
    /// The newest epoch's record.
    Epoch,
    /// The first position kept.
    Floor,
    /// The newest run promised.
    Run,
}

impl JournalFact {
    /// The owner number in the fact space. Retired numbers are never used again: none yet.
    #[must_use]
    pub const fn kind(self) -> u32 {
        match self {
            Self::Epoch => 1,
            Self::Floor => 2,
            Self::Run => 3,
        }
    }
}

/// Version of [`FactHeader`] written today. 1: the first.
pub const FACT_VERSION: u16 = 1;
/// Most members an epoch record can name.
pub const EPOCH_MEMBERS_MAX: usize = 64;
const FACT_MAGIC: [u8; 4] = *b"HFJF";

/// A fact: 40 bytes, then `members` device ids of 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FactHeader {
    /// Offset 0.
    magic: [u8; 4],
    /// [`FACT_VERSION`], offset 4.
    version: U16,
    /// How many device ids follow, offset 6.
    members: U16,
    /// [`JournalFact::kind`], offset 8.
    kind: U32,
    /// The partition, offset 12.
    partition: U32,
    /// Epoch or run, offset 16.
    number: U64,
    /// A position, offset 24.
    lsn: U64,
    /// Zero, offset 32.
    zero: [u8; 4],
    /// CRC-32 of the 36 bytes before and of the device ids, offset 36.
    crc: U32,
}

const _: () = assert!(size_of::<FactHeader>() == 40);

/// A fact's content; which fields count depends on its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactBody {
    /// Epoch (run in the upper half), or run.
    pub number: u64,
    /// The epoch's first unacknowledged position, or the floor.
    pub lsn: Lsn,
    /// Members of the epoch.
    pub members: Vec<DeviceId>,
}

/// The bytes of a fact.
///
/// # Panics
/// When there are more than [`EPOCH_MEMBERS_MAX`] members.
#[must_use]
pub fn encode_fact(fact: JournalFact, partition: PartitionId, body: &FactBody) -> Vec<u8> {
    assert!(body.members.len() <= EPOCH_MEMBERS_MAX, "an epoch names few members");
    let mut header = FactHeader {
        magic: FACT_MAGIC,
        version: FACT_VERSION.into(),
        members: (body.members.len() as u16).into(),
        kind: fact.kind().into(),
        partition: partition.0.into(),
        number: body.number.into(),
        lsn: body.lsn.0.into(),
        zero: [0; 4],
        crc: 0.into(),
    };
    let ids: Vec<u8> = body.members.iter().flat_map(|m| m.0).collect();
    header.crc = fact_crc(&header, &ids).into();
    [header.as_bytes(), &ids].concat()
}

/// A fact from its bytes.
///
/// # Errors
/// What does not agree.
pub fn decode_fact(fact: JournalFact, partition: PartitionId, bytes: &[u8]) -> Result<FactBody, &'static str> {
    let (header, ids) = FactHeader::read_from_prefix(bytes).map_err(|_| "shorter than a fact")?;
    if header.magic != FACT_MAGIC {
        return Err("not a fact of a journal");
    }
    if header.version.get() != FACT_VERSION {
        return Err("a fact of another version");
    }
    let members = usize::from(header.members.get());
    if members > EPOCH_MEMBERS_MAX || ids.len() != members * 16 {
        return Err("a fact of another length");
    }
    if header.crc.get() != fact_crc(&header, ids) || header.zero != [0; 4] {
        return Err("the fact's checksum differs");
    }
    if header.kind.get() != fact.kind() || header.partition.get() != partition.0 {
        return Err("a fact of another place");
    }
    let members = ids.as_chunks::<16>().0.iter().map(|id| DeviceId(*id)).collect();
    Ok(FactBody { number: header.number.get(), lsn: Lsn(header.lsn.get()), members })
}

fn fact_crc(header: &FactHeader, ids: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header.as_bytes()[..36]);
    crc.update(ids);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_of_a_header_has_these_bytes() {
        let header = JournalHeader::new(PartitionId(7), 0x1_0000_0002, Lsn(3), 4, 5, 6);
        let bytes = header.as_bytes();
        assert_eq!(&bytes[..8], b"HFJR\x01\0\0\0");
        assert_eq!(
            &bytes[8..40],
            &[7, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0]
        );
        assert_eq!(JournalHeader::parse(bytes, PartitionId(7), Lsn(3)), Ok(header));
    }

    #[test]
    fn every_flipped_bit_of_a_header_or_fact_is_seen() {
        let header = JournalHeader::new(PartitionId(7), 9, Lsn(3), 4, 5, 6);
        let body = FactBody { number: 9, lsn: Lsn(4), members: vec![DeviceId([1; 16]), DeviceId([2; 16])] };
        let fact = encode_fact(JournalFact::Epoch, PartitionId(7), &body);
        assert_eq!(decode_fact(JournalFact::Epoch, PartitionId(7), &fact), Ok(body));
        for bit in 0..64 * 8 {
            let mut bytes = header.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(JournalHeader::parse(&bytes, PartitionId(7), Lsn(3)).is_err(), "bit {bit}");
        }
        for bit in 0..fact.len() * 8 {
            let mut bytes = fact.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_fact(JournalFact::Epoch, PartitionId(7), &bytes).is_err(), "bit {bit}");
        }
        assert!(JournalHeader::parse(header.as_bytes(), PartitionId(7), Lsn(4)).is_err());
        assert!(decode_fact(JournalFact::Floor, PartitionId(7), &fact).is_err());
    }
}
