//! The anchor: a page that says where recovery starts. Two rings of pages, each page written twice.
//!
//! A page is whole in itself: the newest valid one names the last checkpoint and every extent opened
//! since. It is written, and made durable, before anything in a newly opened extent is acknowledged.

use base::DeviceId;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{FormatError, Geometry, crc};

const MAGIC: [u8; 4] = *b"HFan";
/// 1: the first. Never released, no longer read.
/// 2: says when the list of opened extents is not whole.
const VERSION: u16 = 2;
const WHAT: &str = "anchor page";
const CRC_AT: usize = Geometry::ANCHOR_BYTES - 4;

/// Extents that may be opened between two checkpoints.
pub const ANCHOR_MAX_OPENED: usize = 180;
/// Extents over which one checkpoint may be spread.
pub const ANCHOR_MAX_PARTS: usize = 40;

/// What is appended to an extent. Data that dies together lies together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Shards of stripes.
    Data,
    /// Journal records.
    Journal,
    /// Blocks of index views, facts, tombstones.
    Meta,
    /// Records that reclaim moved.
    Moved,
    /// Checkpoints.
    Checkpoint,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Data, Self::Journal, Self::Meta, Self::Moved, Self::Checkpoint];

    /// The byte on the device.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self as u8 + 1
    }

    /// The stream a byte on the device stands for.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.to_byte() == byte)
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawOpened {
    generation: U64, // 0
    extent: U32,     // 8
    stream: u8,      // 12
    zero: [u8; 3],   // 13
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawPart {
    generation: U64, // 0
    extent: U32,     // 8
    zero: [u8; 4],   // 12
}

/// [`Anchor`] on the device: 4,096 bytes.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAnchor {
    magic: [u8; 4],                         // 0
    version: U16,                           // 4, at this offset for ever
    parts_len: u8,                          // 6
    opened_len: u8,                         // 7
    device: [u8; 16],                       // 8
    sequence: U64,                          // 24
    boot: U32,                              // 32
    has_checkpoint: u8,                     // 36, 2 for none and a list of opened extents that is not whole
    zero: [u8; 3],                          // 37
    checkpoint_sequence: U64,               // 40
    checkpoint_bytes: U64,                  // 48
    checkpoint_crc: U32,                    // 56
    zero2: [u8; 4],                         // 60
    parts: [RawPart; ANCHOR_MAX_PARTS],     // 64
    opened: [RawOpened; ANCHOR_MAX_OPENED], // 704
    reserved: [u8; 508],                    // 3,584
    crc: U32,                               // 4,092
}

const _: () = assert!(size_of::<RawAnchor>() == Geometry::ANCHOR_BYTES);
const _: () = assert!(ANCHOR_MAX_OPENED <= 255 && ANCHOR_MAX_PARTS <= 255);

/// An extent that holds a piece of the checkpoint, from its start on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointPart {
    /// The extent.
    pub extent: u32,
    /// Its generation.
    pub generation: u64,
}

/// A finished, durable checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRef {
    /// Every record with a sequence at or below this is reflected in it; no later one is.
    pub sequence: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// CRC-32 over all bytes.
    pub crc: u32,
    /// Where they are, in order.
    pub parts: Vec<CheckpointPart>,
}

/// An extent opened since the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedExtent {
    /// The extent.
    pub extent: u32,
    /// Its generation.
    pub generation: u64,
    /// What is appended to it.
    pub stream: Stream,
}

/// Where recovery starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Pages ascend; the newest valid one counts.
    pub sequence: u64,
    /// How often the device has been opened for writing; the upper half of every generation.
    pub boot: u32,
    /// The last checkpoint, once there is one.
    pub checkpoint: Option<CheckpointRef>,
    /// Extents opened since then, oldest first.
    pub opened: Vec<OpenedExtent>,
    /// More were opened than a page can name, and there is no checkpoint: recovery must look into every extent.
    pub partial: bool,
}

impl Anchor {
    /// The page's 4,096 bytes.
    ///
    /// # Panics
    /// When there are more parts or opened extents than a page holds, or a page with a checkpoint is partial.
    #[must_use]
    pub fn encode(&self, device: DeviceId, salt: u32) -> Vec<u8> {
        let parts = self.checkpoint.as_ref().map_or(&[][..], |c| &c.parts);
        assert!(parts.len() <= ANCHOR_MAX_PARTS && self.opened.len() <= ANCHOR_MAX_OPENED);
        let mut raw = RawAnchor::read_from_bytes(&[0; Geometry::ANCHOR_BYTES]).expect("a page has the struct's size");
        raw.magic = MAGIC;
        raw.version = VERSION.into();
        raw.parts_len = parts.len() as u8;
        raw.opened_len = self.opened.len() as u8;
        raw.device = device.0;
        raw.sequence = self.sequence.into();
        raw.boot = self.boot.into();
        if let Some(checkpoint) = &self.checkpoint {
            assert!(!self.partial, "a checkpoint stands for whatever is not named");
            raw.has_checkpoint = 1;
            raw.checkpoint_sequence = checkpoint.sequence.into();
            raw.checkpoint_bytes = checkpoint.bytes.into();
            raw.checkpoint_crc = checkpoint.crc.into();
        }
        if self.partial {
            raw.has_checkpoint = 2;
        }
        for (slot, part) in raw.parts.iter_mut().zip(parts) {
            *slot = RawPart { generation: part.generation.into(), extent: part.extent.into(), zero: [0; 4] };
        }
        for (slot, opened) in raw.opened.iter_mut().zip(&self.opened) {
            *slot = RawOpened {
                generation: opened.generation.into(),
                extent: opened.extent.into(),
                stream: opened.stream.to_byte(),
                zero: [0; 3],
            };
        }
        raw.crc = crc(salt, &[&raw.as_bytes()[..CRC_AT]]).into();
        raw.as_bytes().to_vec()
    }

    /// The page in `bytes`, checked.
    ///
    /// # Errors
    /// [`FormatError`]; a page of another device is `Absent`.
    pub fn decode(bytes: &[u8], device: DeviceId, salt: u32) -> Result<Self, FormatError> {
        let (raw, _) = RawAnchor::ref_from_prefix(bytes).map_err(|_| FormatError::Absent(WHAT))?;
        if raw.magic != MAGIC {
            return Err(FormatError::Absent(WHAT));
        }
        if crc(salt, &[&raw.as_bytes()[..CRC_AT]]) != raw.crc.get() {
            return Err(FormatError::Checksum(WHAT));
        }
        match raw.version.get() {
            VERSION => {}
            found if found > VERSION => return Err(FormatError::Newer { what: WHAT, found, known: VERSION }),
            _ => return Err(FormatError::Invalid { what: WHAT, field: "a version that is no longer read" }),
        }
        if raw.device != device.0 {
            return Err(FormatError::Absent(WHAT));
        }
        let invalid = |field| FormatError::Invalid { what: WHAT, field };
        let parts = raw.parts.get(..raw.parts_len as usize).ok_or(invalid("parts"))?;
        let opened = raw.opened.get(..raw.opened_len as usize).ok_or(invalid("opened"))?;
        let checkpoint = match raw.has_checkpoint {
            0 | 2 if parts.is_empty() => None,
            1 => Some(CheckpointRef {
                sequence: raw.checkpoint_sequence.get(),
                bytes: raw.checkpoint_bytes.get(),
                crc: raw.checkpoint_crc.get(),
                parts: parts
                    .iter()
                    .map(|part| CheckpointPart { extent: part.extent.get(), generation: part.generation.get() })
                    .collect(),
            }),
            _ => return Err(invalid("checkpoint")),
        };
        let opened = opened
            .iter()
            .map(|raw| {
                let stream = Stream::from_byte(raw.stream).ok_or(invalid("stream"))?;
                Ok(OpenedExtent { extent: raw.extent.get(), generation: raw.generation.get(), stream })
            })
            .collect::<Result<_, _>>()?;
        let partial = raw.has_checkpoint == 2;
        let anchor = Self { sequence: raw.sequence.get(), boot: raw.boot.get(), checkpoint, opened, partial };
        // Everything that is not said is zero, so a page has one form.
        if anchor.encode(device, salt) != raw.as_bytes() {
            return Err(invalid("reserved"));
        }
        Ok(anchor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor() -> Anchor {
        Anchor {
            sequence: 70,
            boot: 2,
            checkpoint: Some(CheckpointRef {
                sequence: 1000,
                bytes: 5000,
                crc: 7,
                parts: vec![CheckpointPart { extent: 4, generation: 11 }],
            }),
            opened: vec![OpenedExtent { extent: 5, generation: 12, stream: Stream::Journal }],
            partial: false,
        }
    }

    #[test]
    fn pages_survive_their_bytes_and_every_flipped_bit_is_noticed() {
        let device = DeviceId([3; 16]);
        let good = anchor().encode(device, 9);
        assert_eq!(good.len(), Geometry::ANCHOR_BYTES);
        assert_eq!(&good[..8], b"HFan\x02\x00\x01\x01");
        assert_eq!(Anchor::decode(&good, device, 9), Ok(anchor()));
        for bit in (0..good.len() * 8).step_by(13) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Anchor::decode(&bad, device, 9).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_page_that_names_not_everything_says_so() {
        let page = Anchor { checkpoint: None, partial: true, ..anchor() };
        let bytes = page.encode(DeviceId([3; 16]), 9);
        assert_eq!(bytes[36], 2);
        assert_eq!(Anchor::decode(&bytes, DeviceId([3; 16]), 9), Ok(page));
    }

    #[test]
    fn a_page_of_another_device_is_not_there() {
        let bytes = anchor().encode(DeviceId([3; 16]), 9);
        assert_eq!(Anchor::decode(&bytes, DeviceId([4; 16]), 9), Err(FormatError::Absent(WHAT)));
    }
}
