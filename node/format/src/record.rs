//! A record: one self-describing, checksummed append inside an extent.
//!
//! ```text
//! head:    header (128 bytes) | descriptor | zero to 8 | one CRC-32 per 4 KiB block of payload | zero
//! payload: its bytes | zero
//! ```
//! A record starts and ends at a multiple of [`UNIT_BYTES`]; its payload too. A payload of at least
//! [`DIRECT_MIN_BYTES`] starts and ends at a multiple of 4,096 bytes of the device, and so does its
//! record, so that it is written and read without copying. The payload is always the last thing in the
//! record: where it starts follows from the record's length and the payload's.
//!
//! The header says where it belongs (device, extent, generation, offset): a block that was written to,
//! or read from, another place is seen. Its checksum covers the head's other parts through theirs. The
//! index keeps one number, the proof, that shows the record to be the expected one: this checksum, or the
//! block's where there is a single block.

use base::DeviceId;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{DESCRIPTOR_MAX_BYTES, FormatError, PAYLOAD_MAX_BYTES, RawKey, ShardKey, crc};

/// Records start and end at multiples of this many bytes: the smallest sector.
pub const UNIT_BYTES: usize = 512;
/// Payload bytes under one checksum.
pub const BLOCK_BYTES: usize = 4096;
/// Payloads from this size on lie aligned to 4,096 bytes and are written without copying. Below it the
/// padding would cost more than the copy.
pub const DIRECT_MIN_BYTES: usize = 32 << 10;

const MAGIC: [u8; 4] = *b"HFrc";
/// 1: the first.
const VERSION: u16 = 1;
const WHAT: &str = "record header";
const HEADER_BYTES: usize = 128;
const HEADER_CRC_AT: usize = 124;

/// The header on the device: 128 bytes.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],        // 0
    version: U16,          // 4, at this offset for ever
    kind: u8,              // 6
    zero: u8,              // 7
    device: [u8; 16],      // 8
    extent: U32,           // 24
    offset_units: U32,     // 28, from the start of the extent
    generation: U64,       // 32
    sequence: U64,         // 40
    key: RawKey,           // 48
    payload_bytes: U32,    // 64
    record_units: U32,     // 68
    durable_units: U32,    // 72
    descriptor_bytes: U16, // 76
    zero2: [u8; 2],        // 78
    tables_crc: U32,       // 80, of descriptor and block checksums
    reserved: [u8; 40],    // 84
    header_crc: U32,       // 124
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A keyed payload; replaces an older one of its key.
    Put,
    /// The keys in the payload are gone.
    Tombstone,
    /// A piece of a checkpoint; belongs to no key.
    Checkpoint,
}

impl RecordKind {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Tombstone => 2,
            Self::Checkpoint => 3,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Put),
            2 => Some(Self::Tombstone),
            3 => Some(Self::Checkpoint),
            _ => None,
        }
    }
}

/// Where a record belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The device.
    pub device: DeviceId,
    /// Seed of its header checksums.
    pub salt: u32,
    /// The extent.
    pub extent: u32,
    /// The extent's generation: differs at every reuse.
    pub generation: u64,
    /// Units from the start of the extent.
    pub offset_units: u32,
}

/// The sizes of a record, from the sizes of its descriptor and payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLayout {
    /// Bytes from the record's start to its payload.
    pub payload_at: usize,
    /// Bytes of the whole record, padding included.
    pub record_bytes: usize,
}

impl RecordLayout {
    /// Alignment in bytes of a record with such a payload, of its start, payload and end.
    #[must_use]
    pub const fn align(payload_bytes: usize) -> usize {
        if payload_bytes >= DIRECT_MIN_BYTES { BLOCK_BYTES } else { UNIT_BYTES }
    }

    /// The layout of a record.
    #[must_use]
    pub const fn new(descriptor_bytes: usize, payload_bytes: usize) -> Self {
        let align = Self::align(payload_bytes);
        let head = tables_end(descriptor_bytes, payload_bytes);
        let payload_at = head.next_multiple_of(align);
        Self { payload_at, record_bytes: payload_at + payload_bytes.next_multiple_of(align) }
    }

    /// The layout of a record of known length: the payload lies at its end.
    #[must_use]
    pub const fn of_record(record_bytes: usize, payload_bytes: usize) -> Self {
        let payload = payload_bytes.next_multiple_of(Self::align(payload_bytes));
        Self { payload_at: record_bytes.saturating_sub(payload), record_bytes }
    }
}

const fn tables_at(descriptor_bytes: usize) -> usize {
    (HEADER_BYTES + descriptor_bytes).next_multiple_of(8)
}

const fn tables_end(descriptor_bytes: usize, payload_bytes: usize) -> usize {
    tables_at(descriptor_bytes) + 4 * payload_bytes.div_ceil(BLOCK_BYTES)
}

/// One checksum per [`BLOCK_BYTES`] of payload.
#[must_use]
pub fn block_checksums(payload: &[u8]) -> Vec<u32> {
    payload.chunks(BLOCK_BYTES).map(crc32fast::hash).collect()
}

/// A record's head: everything but the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHead {
    /// What it is.
    pub kind: RecordKind,
    /// Extent-wide order is by place; device-wide order is by this, ascending, never reused.
    pub sequence: u64,
    /// The key; `None` for records that have none.
    pub key: Option<ShardKey>,
    /// Payload bytes.
    pub payload_bytes: u32,
    /// Everything in this extent below this was durable when the record was placed, in units. Tells a
    /// corrupt middle (below) from a torn tail (at or above).
    pub durable_units: u32,
    /// What the payload is, without any index.
    pub descriptor: Vec<u8>,
    /// A CRC-32 for each block of the payload.
    pub block_crcs: Vec<u32>,
}

impl RecordHead {
    /// The record's layout.
    #[must_use]
    pub fn layout(&self) -> RecordLayout {
        RecordLayout::new(self.descriptor.len(), self.payload_bytes as usize)
    }

    /// Writes the head to the start of `out`, which is zero and reaches at least to the payload.
    /// Gives the record's proof (see [`Self::decode`]).
    ///
    /// # Panics
    /// When sizes disagree or exceed the format's limits.
    pub fn encode_into(&self, place: &Place, out: &mut [u8]) -> u32 {
        let payload_bytes = self.payload_bytes as usize;
        assert!(self.descriptor.len() <= DESCRIPTOR_MAX_BYTES && payload_bytes <= PAYLOAD_MAX_BYTES);
        assert_eq!(self.block_crcs.len(), payload_bytes.div_ceil(BLOCK_BYTES));
        let layout = self.layout();
        let tables = tables_at(self.descriptor.len());
        out[HEADER_BYTES..HEADER_BYTES + self.descriptor.len()].copy_from_slice(&self.descriptor);
        for (i, sum) in self.block_crcs.iter().enumerate() {
            out[tables + 4 * i..][..4].copy_from_slice(&sum.to_le_bytes());
        }
        let tables_crc = crc(0, &[&out[HEADER_BYTES..tables_end(self.descriptor.len(), payload_bytes)]]);
        let mut raw = RawHeader {
            magic: MAGIC,
            version: VERSION.into(),
            kind: self.kind.to_byte(),
            zero: 0,
            device: place.device.0,
            extent: place.extent.into(),
            offset_units: place.offset_units.into(),
            generation: place.generation.into(),
            sequence: self.sequence.into(),
            key: self.key.map_or_else(no_key, |key| key.encode()),
            payload_bytes: self.payload_bytes.into(),
            record_units: ((layout.record_bytes / UNIT_BYTES) as u32).into(),
            durable_units: self.durable_units.into(),
            descriptor_bytes: (self.descriptor.len() as u16).into(),
            zero2: [0; 2],
            tables_crc: tables_crc.into(),
            reserved: [0; 40],
            header_crc: 0.into(),
        };
        let sum = crc(place.salt, &[&raw.as_bytes()[..HEADER_CRC_AT]]);
        raw.header_crc = sum.into();
        out[..HEADER_BYTES].copy_from_slice(raw.as_bytes());
        proof(sum, &self.block_crcs)
    }

    /// The head at the start of `bytes`, checked against the place it was read from; with its proof: the
    /// checksum of the only block where there is just one, so that a small record is proven without its head;
    /// the header's checksum otherwise.
    /// `bytes` may end early only after the tables.
    ///
    /// # Errors
    /// [`FormatError`]; a head of another place, generation or device is `Absent` (stale or misdirected).
    pub fn decode(bytes: &[u8], place: &Place) -> Result<(Self, u32), FormatError> {
        let raw = checked_header(bytes, place)?;
        let kind = RecordKind::from_byte(raw.kind).ok_or(FormatError::Invalid { what: WHAT, field: "kind" })?;
        let key = raw.key.decode();
        if (kind == RecordKind::Put) != key.is_some() || (key.is_none() && raw.key != no_key()) {
            return Err(FormatError::Invalid { what: WHAT, field: "key" });
        }
        let (descriptor_bytes, payload_bytes) = (raw.descriptor_bytes.get() as usize, raw.payload_bytes.get() as usize);
        let (tables, end) = (tables_at(descriptor_bytes), tables_end(descriptor_bytes, payload_bytes));
        let covered = bytes.get(HEADER_BYTES..end).ok_or(FormatError::Checksum("record tables"))?;
        if crc(0, &[covered]) != raw.tables_crc.get() {
            return Err(FormatError::Checksum("record tables"));
        }
        if bytes[HEADER_BYTES + descriptor_bytes..tables].iter().any(|byte| *byte != 0) {
            return Err(FormatError::Invalid { what: WHAT, field: "reserved" });
        }
        let block_crcs = bytes[tables..end].as_chunks::<4>().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        let head = Self {
            kind,
            sequence: raw.sequence.get(),
            key,
            payload_bytes: raw.payload_bytes.get(),
            durable_units: raw.durable_units.get(),
            descriptor: bytes[HEADER_BYTES..HEADER_BYTES + descriptor_bytes].to_vec(),
            block_crcs,
        };
        let proof = proof(raw.header_crc.get(), &head.block_crcs);
        Ok((head, proof))
    }

    /// Bytes of the whole record whose header starts `bytes`, once that header is proven; its tables
    /// and payload may still be torn.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn record_bytes(bytes: &[u8], place: &Place) -> Result<RecordLayout, FormatError> {
        let raw = checked_header(bytes, place)?;
        Ok(RecordLayout::new(raw.descriptor_bytes.get() as usize, raw.payload_bytes.get() as usize))
    }

    /// `durable_units` of a proven header.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn durable_units(bytes: &[u8], place: &Place) -> Result<u32, FormatError> {
        Ok(checked_header(bytes, place)?.durable_units.get())
    }

    /// The generation a header at this place claims, when its checksum fits; for probing extents whose
    /// generation is not known.
    #[must_use]
    pub fn probe_generation(bytes: &[u8], place: &Place) -> Option<u64> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).ok()?;
        let claimed = Place { generation: raw.generation.get(), ..*place };
        checked_header(bytes, &claimed).ok().map(|raw| raw.generation.get())
    }

    /// Whether a block of payload, by number, is the one that was written.
    #[must_use]
    pub fn block_fits(&self, block: usize, bytes: &[u8]) -> bool {
        self.block_crcs.get(block).is_some_and(|sum| crc32fast::hash(bytes) == *sum)
    }

    /// Whether the whole payload is the one that was written.
    #[must_use]
    pub fn payload_fits(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes as usize
            && payload.chunks(BLOCK_BYTES).enumerate().all(|(i, block)| self.block_fits(i, block))
    }
}

fn proof(header_crc: u32, block_crcs: &[u32]) -> u32 {
    match block_crcs {
        [only] => *only,
        _ => header_crc,
    }
}

fn no_key() -> RawKey {
    RawKey { space: 0, slot: 0, zero: [0; 2], owner: 0.into(), id: 0.into() }
}

fn checked_header<'a>(bytes: &'a [u8], place: &Place) -> Result<&'a RawHeader, FormatError> {
    let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| FormatError::Absent(WHAT))?;
    if raw.magic != MAGIC {
        return Err(FormatError::Absent(WHAT));
    }
    if crc(place.salt, &[&raw.as_bytes()[..HEADER_CRC_AT]]) != raw.header_crc.get() {
        return Err(FormatError::Checksum(WHAT));
    }
    if raw.version.get() > VERSION || raw.version.get() == 0 {
        return Err(FormatError::Newer { what: WHAT, found: raw.version.get(), known: VERSION });
    }
    let here = raw.device == place.device.0
        && raw.extent.get() == place.extent
        && raw.generation.get() == place.generation
        && raw.offset_units.get() == place.offset_units;
    if !here {
        return Err(FormatError::Absent(WHAT));
    }
    let (descriptor_bytes, payload_bytes) = (raw.descriptor_bytes.get() as usize, raw.payload_bytes.get() as usize);
    if descriptor_bytes > DESCRIPTOR_MAX_BYTES || payload_bytes > PAYLOAD_MAX_BYTES {
        return Err(FormatError::Invalid { what: WHAT, field: "lengths" });
    }
    let layout = RecordLayout::new(descriptor_bytes, payload_bytes);
    if raw.record_units.get() as usize * UNIT_BYTES != layout.record_bytes {
        return Err(FormatError::Invalid { what: WHAT, field: "record length" });
    }
    if raw.zero != 0 || raw.zero2 != [0; 2] || raw.reserved != [0; 40] {
        return Err(FormatError::Invalid { what: WHAT, field: "reserved" });
    }
    Ok(raw)
}

/// Most keys that one tombstone record may name.
pub const TOMBSTONE_MAX_KEYS: usize = 4096;

/// The payload of a tombstone: the keys, 16 bytes each.
///
/// # Panics
/// When there are more than [`TOMBSTONE_MAX_KEYS`].
#[must_use]
pub fn encode_tombstone(keys: &[ShardKey]) -> Vec<u8> {
    assert!(keys.len() <= TOMBSTONE_MAX_KEYS);
    keys.iter().flat_map(|key| <[u8; 16]>::try_from(key.encode().as_bytes()).expect("a key has 16 bytes")).collect()
}

/// The keys of a tombstone's payload.
///
/// # Errors
/// [`FormatError::Invalid`].
pub fn decode_tombstone(payload: &[u8]) -> Result<Vec<ShardKey>, FormatError> {
    let invalid = FormatError::Invalid { what: "tombstone", field: "keys" };
    let keys = <[RawKey]>::ref_from_bytes(payload).map_err(|_| invalid)?;
    if keys.len() > TOMBSTONE_MAX_KEYS {
        return Err(invalid);
    }
    keys.iter().map(|key| key.decode().ok_or(invalid)).collect()
}

#[cfg(test)]
mod tests {
    use base::StripeId;
    use proptest::prelude::*;

    use super::*;

    fn place() -> Place {
        Place { device: DeviceId([7; 16]), salt: 5, extent: 3, generation: 9, offset_units: 8 }
    }

    fn head(payload: &[u8]) -> RecordHead {
        RecordHead {
            kind: RecordKind::Put,
            sequence: 42,
            key: Some(ShardKey::stripe(StripeId(77), 2)),
            payload_bytes: payload.len() as u32,
            durable_units: 8,
            descriptor: b"about".to_vec(),
            block_crcs: block_checksums(payload),
        }
    }

    fn encode(head: &RecordHead) -> (Vec<u8>, u32) {
        let mut out = vec![0; head.layout().payload_at];
        let proof = head.encode_into(&place(), &mut out);
        (out, proof)
    }

    #[test]
    fn golden_bytes() {
        let (bytes, proof) = encode(&head(b"hello"));
        assert_eq!(bytes.len(), UNIT_BYTES);
        assert_eq!(&bytes[..8], b"HFrc\x01\x00\x01\x00");
        assert_eq!(&bytes[24..32], &[3, 0, 0, 0, 8, 0, 0, 0]);
        assert_eq!(&bytes[48..64], &[1, 2, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[64..72], &[5, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(&bytes[128..136], b"about\0\0\0");
        assert_eq!(&bytes[136..140], &crc32fast::hash(b"hello").to_le_bytes());
        assert_eq!(&bytes[124..128], &0xa02c_4ed9u32.to_le_bytes());
        assert_eq!(proof, crc32fast::hash(b"hello"), "a single block proves the record");
        let (bytes, proof) = encode(&head(&[7; BLOCK_BYTES + 1]));
        assert_eq!(&bytes[124..128], &proof.to_le_bytes(), "the header does otherwise");
    }

    #[test]
    fn a_head_at_another_place_is_not_there() {
        let (bytes, _) = encode(&head(b"hello"));
        let elsewhere = [
            Place { extent: 4, ..place() },
            Place { generation: 8, ..place() },
            Place { offset_units: 9, ..place() },
            Place { device: DeviceId([8; 16]), ..place() },
        ];
        for other in elsewhere {
            assert_eq!(RecordHead::decode(&bytes, &other), Err(FormatError::Absent(WHAT)), "{other:?}");
        }
        let other_salt = Place { salt: 6, ..place() };
        assert_eq!(RecordHead::decode(&bytes, &other_salt), Err(FormatError::Checksum(WHAT)));
    }

    #[test]
    fn every_flipped_bit_of_a_head_is_noticed() {
        let (good, proof) = encode(&head(&[3; 10_000]));
        assert_eq!(RecordHead::decode(&good, &place()), Ok((head(&[3; 10_000]), proof)));
        for bit in 0..(128 + 8 + 12) * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = RecordHead::decode(&bad, &place());
            assert!(read.is_err(), "bit {bit}: {read:?}");
        }
    }

    #[test]
    fn large_payloads_are_aligned_and_small_ones_are_dense() {
        let small = RecordLayout::new(40, 4096);
        assert_eq!((small.payload_at, small.record_bytes), (512, 4608));
        let large = RecordLayout::new(40, 1 << 20);
        assert_eq!((large.payload_at, large.record_bytes), (4096, 4096 + (1 << 20)));
        for len in [0, 1, 511, 512, 4095, 4096, DIRECT_MIN_BYTES - 1, DIRECT_MIN_BYTES, PAYLOAD_MAX_BYTES] {
            let layout = RecordLayout::new(100, len);
            assert_eq!(RecordLayout::of_record(layout.record_bytes, len), layout, "{len}");
        }
    }

    proptest! {
        #[test]
        fn heads_survive_their_bytes(len in 0usize..70_000, descriptor in proptest::collection::vec(any::<u8>(), 0..300)) {
            let head = RecordHead { descriptor, ..head(&vec![1; len]) };
            let (bytes, proof) = encode(&head);
            prop_assert_eq!(RecordHead::decode(&bytes, &place()), Ok((head, proof)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), magic: bool) {
            if magic && bytes.len() > 6 {
                bytes[..4].copy_from_slice(&MAGIC);
            }
            prop_assert!(RecordHead::decode(&bytes, &place()).is_err());
            prop_assert_eq!(RecordHead::probe_generation(&bytes, &place()), None);
            let _ = decode_tombstone(&bytes);
        }

        #[test]
        fn tombstones_survive_their_bytes(ids in proptest::collection::vec((any::<u64>(), any::<u8>()), 0..50)) {
            let keys: Vec<_> = ids.iter().map(|(id, slot)| ShardKey::stripe(StripeId(*id), *slot)).collect();
            prop_assert_eq!(decode_tombstone(&encode_tombstone(&keys)), Ok(keys));
        }
    }
}
