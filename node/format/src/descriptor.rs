//! What a shard's record says about itself, so that an object can be put back together on a bench with
//! nothing but k of its devices: no index, no map, no service.

use base::StripeId;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;

/// 1: the first.
const VERSION: u8 = 1;
const WHAT: &str = "shard descriptor";
const FLAG_LAST: u8 = 1;
const FLAG_PACK: u8 = 2;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawDescriptor {
    version: u8,        // 0, at this offset for ever
    flags: u8,          // 1
    data_shards: u8,    // 2
    parity_shards: u8,  // 3
    slot: u8,           // 4
    bucket_bytes: u8,   // 5
    key_bytes: U16,     // 6
    stripe: U64,        // 8
    upload: [u8; 16],   // 16
    part: U32,          // 32
    stripe_number: U32, // 36
    stripe_offset: U64, // 40
    stripe_bytes: U32,  // 48
    zero: [u8; 4],      // 52
    modified_ms: U64,   // 56
}

const HEAD_BYTES: usize = 64;
const _: () = assert!(size_of::<RawDescriptor>() == HEAD_BYTES);

/// What a shard is a piece of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The stripe.
    pub stripe: StripeId,
    /// k.
    pub data_shards: u8,
    /// m.
    pub parity_shards: u8,
    /// This shard's slot: data slots first, then parity.
    pub slot: u8,
    /// Data bytes in this stripe.
    pub stripe_bytes: u32,
    /// Number of this stripe in its object or part, from 0.
    pub stripe_number: u32,
    /// Bytes of the object or part before this stripe.
    pub stripe_offset: u64,
    /// Whether the object or part ends with this stripe.
    pub last: bool,
    /// A pack of small objects: its bytes start with a directory; bucket and key are empty.
    pub pack: bool,
    /// One number for each put or multipart upload: tells versions of a key apart.
    pub upload: u128,
    /// Part number of a multipart upload; 0 for an object put in one piece.
    pub part: u32,
    /// When writing began; milliseconds since 1970. Orders versions for people.
    pub modified_ms: u64,
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
}

impl Descriptor {
    /// The descriptor's bytes.
    ///
    /// # Panics
    /// When bucket or key are longer than S3 allows.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.bucket.len() <= 63 && self.key.len() <= 1024);
        let raw = RawDescriptor {
            version: VERSION,
            flags: if self.last { FLAG_LAST } else { 0 } | if self.pack { FLAG_PACK } else { 0 },
            data_shards: self.data_shards,
            parity_shards: self.parity_shards,
            slot: self.slot,
            bucket_bytes: self.bucket.len() as u8,
            key_bytes: (self.key.len() as u16).into(),
            stripe: self.stripe.0.into(),
            upload: self.upload.to_le_bytes(),
            part: self.part.into(),
            stripe_number: self.stripe_number.into(),
            stripe_offset: self.stripe_offset.into(),
            stripe_bytes: self.stripe_bytes.into(),
            zero: [0; 4],
            modified_ms: self.modified_ms.into(),
        };
        [raw.as_bytes(), self.bucket.as_bytes(), self.key.as_bytes()].concat()
    }

    /// The descriptor in `bytes`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (raw, rest) = RawDescriptor::ref_from_prefix(bytes).map_err(|_| FormatError::Absent(WHAT))?;
        if raw.version == 0 || raw.version > VERSION {
            return Err(FormatError::Newer { what: WHAT, found: raw.version.into(), known: VERSION.into() });
        }
        let invalid = |field| FormatError::Invalid { what: WHAT, field };
        if raw.flags & !(FLAG_LAST | FLAG_PACK) != 0 || raw.zero != [0; 4] {
            return Err(invalid("flags"));
        }
        if raw.data_shards == 0 || u16::from(raw.slot) >= u16::from(raw.data_shards) + u16::from(raw.parity_shards) {
            return Err(invalid("slot"));
        }
        if rest.len() != raw.bucket_bytes as usize + raw.key_bytes.get() as usize {
            return Err(invalid("length"));
        }
        let (bucket, key) = rest.split_at(raw.bucket_bytes as usize);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| invalid("text"));
        Ok(Self {
            stripe: StripeId(raw.stripe.get()),
            data_shards: raw.data_shards,
            parity_shards: raw.parity_shards,
            slot: raw.slot,
            stripe_bytes: raw.stripe_bytes.get(),
            stripe_number: raw.stripe_number.get(),
            stripe_offset: raw.stripe_offset.get(),
            last: raw.flags & FLAG_LAST != 0,
            pack: raw.flags & FLAG_PACK != 0,
            upload: u128::from_le_bytes(raw.upload),
            part: raw.part.get(),
            modified_ms: raw.modified_ms.get(),
            bucket: text(bucket)?,
            key: text(key)?,
        })
    }
}

/// One small object in a pack's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackEntry {
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// Part number when the bytes are a part of a multipart upload; 0 for an object put in one piece.
    pub part: u32,
    /// When it was put; milliseconds since 1970.
    pub modified_ms: u64,
    /// Bytes from the start of the pack.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

const PACK_MAGIC: [u8; 4] = *b"HFpk";

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPackHead {
    magic: [u8; 4],       // 0
    version: U16,         // 4, at this offset for ever
    zero: [u8; 2],        // 6
    entries: U32,         // 8
    directory_bytes: U32, // 12, this head included
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPackEntry {
    modified_ms: U64, // 0
    offset: U32,      // 8
    len: U32,         // 12
    key_bytes: U16,   // 16
    bucket_bytes: u8, // 18
    zero: u8,         // 19
    part: U32,        // 20
}

const PACK_HEAD_BYTES: usize = 16;
const PACK_ENTRY_BYTES: usize = 24;
const _: () = assert!(size_of::<RawPackHead>() == PACK_HEAD_BYTES && size_of::<RawPackEntry>() == PACK_ENTRY_BYTES);

/// The directory at the start of a pack. Offsets in `entries` count from its end; in the bytes they
/// count from the start of the pack. Gives the directory.
#[must_use]
pub fn encode_pack_directory(entries: &[PackEntry]) -> Vec<u8> {
    let names: usize = entries.iter().map(|e| e.bucket.len() + e.key.len()).sum();
    let directory_bytes = PACK_HEAD_BYTES + entries.len() * PACK_ENTRY_BYTES + names;
    let mut out = Vec::with_capacity(directory_bytes);
    let head = RawPackHead {
        magic: PACK_MAGIC,
        version: 1.into(),
        zero: [0; 2],
        entries: (entries.len() as u32).into(),
        directory_bytes: (directory_bytes as u32).into(),
    };
    out.extend_from_slice(head.as_bytes());
    for entry in entries {
        let raw = RawPackEntry {
            modified_ms: entry.modified_ms.into(),
            offset: (entry.offset + directory_bytes as u32).into(),
            len: entry.len.into(),
            key_bytes: (entry.key.len() as u16).into(),
            bucket_bytes: entry.bucket.len() as u8,
            zero: 0,
            part: entry.part.into(),
        };
        out.extend_from_slice(raw.as_bytes());
        out.extend_from_slice(entry.bucket.as_bytes());
        out.extend_from_slice(entry.key.as_bytes());
    }
    out
}

/// The directory of a pack; offsets count from the start of the pack.
///
/// # Errors
/// [`FormatError`].
pub fn decode_pack_directory(pack: &[u8]) -> Result<Vec<PackEntry>, FormatError> {
    let invalid = |field| FormatError::Invalid { what: "pack directory", field };
    let (head, _) = RawPackHead::ref_from_prefix(pack).map_err(|_| FormatError::Absent("pack directory"))?;
    if head.magic != PACK_MAGIC || head.version.get() != 1 {
        return Err(FormatError::Absent("pack directory"));
    }
    if head.zero != [0; 2] {
        return Err(invalid("reserved"));
    }
    let directory = pack.get(PACK_HEAD_BYTES..head.directory_bytes.get() as usize).ok_or(invalid("length"))?;
    let mut entries = Vec::new();
    let mut rest = directory;
    for _ in 0..head.entries.get() {
        let (raw, after) = RawPackEntry::ref_from_prefix(rest).map_err(|_| invalid("entry"))?;
        if raw.zero != 0 {
            return Err(invalid("reserved"));
        }
        let (bucket_bytes, key_bytes) = (raw.bucket_bytes as usize, raw.key_bytes.get() as usize);
        let names = after.get(..bucket_bytes + key_bytes).ok_or(invalid("names"))?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| invalid("text"));
        let end = u64::from(raw.offset.get()) + u64::from(raw.len.get());
        if end > pack.len() as u64 {
            return Err(invalid("range"));
        }
        entries.push(PackEntry {
            bucket: text(&names[..bucket_bytes])?,
            key: text(&names[bucket_bytes..])?,
            part: raw.part.get(),
            modified_ms: raw.modified_ms.get(),
            offset: raw.offset.get(),
            len: raw.len.get(),
        });
        rest = &after[bucket_bytes + key_bytes..];
    }
    if rest.is_empty() { Ok(entries) } else { Err(invalid("length")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn descriptor() -> Descriptor {
        Descriptor {
            stripe: StripeId(0x0102),
            data_shards: 4,
            parity_shards: 2,
            slot: 5,
            stripe_bytes: 100,
            stripe_number: 3,
            stripe_offset: 12 << 20,
            last: true,
            pack: false,
            upload: 99,
            part: 7,
            modified_ms: 1234,
            bucket: "b-1".into(),
            key: "ключ/../x".into(),
        }
    }

    #[test]
    fn descriptors_survive_their_bytes() {
        let bytes = descriptor().encode();
        assert_eq!(&bytes[..16], &[1, 1, 4, 2, 5, 3, 13, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Descriptor::decode(&bytes), Ok(descriptor()));
        assert!(Descriptor::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn pack_directories_survive_their_bytes() {
        let entry = |key: &str, offset| PackEntry {
            bucket: "b".into(),
            key: key.into(),
            part: 3,
            modified_ms: 5,
            offset,
            len: 10,
        };
        let mut pack = encode_pack_directory(&[entry("x", 0), entry("y/z", 10)]);
        let start = pack.len() as u32;
        pack.extend_from_slice(&[9; 20]);
        assert_eq!(decode_pack_directory(&pack), Ok(vec![entry("x", start), entry("y/z", start + 10)]));
        assert!(decode_pack_directory(&pack[..pack.len() - 1]).is_err(), "an entry must lie inside the pack");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), pack: bool) {
            if pack && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(b"HFpk\x01\x00\x00\x00");
            }
            let _ = Descriptor::decode(&bytes);
            let _ = decode_pack_directory(&bytes);
        }
    }
}
