//! The device label: who this device is. Two copies, in the first and the last 4 KiB of the device.
//!
//! Written once, when the device is formatted; never rewritten in place afterwards. A zoned device, where nothing can
//! be rewritten in place, has its labels at the start of the zones of its anchor log.

use base::{ClusterId, DeviceId};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{FormatError, crc};

const MAGIC: [u8; 8] = *b"HOLDFAST";
/// 1: the first. 2: a zoned device; programs that do not know zones must not take it for another.
const VERSION: u16 = 2;
const UNZONED: u16 = 1;
const WHAT: &str = "device label";

/// [`Label`] on the device: 4,096 bytes.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawLabel {
    magic: [u8; 8],       // 0
    version: U16,         // 8, at this offset for ever
    zero: [u8; 2],        // 10
    salt: U32,            // 12
    cluster: [u8; 16],    // 16
    device: [u8; 16],     // 32
    size_bytes: U64,      // 48
    extent_bytes: U32,    // 56
    extents: U32,         // 60
    created_ms: U64,      // 64
    zone_bytes: U64,      // 72, version 2; zero before
    reserved: [u8; 4012], // 80
    crc: U32,             // 4092
}

const _: () = assert!(size_of::<RawLabel>() == Geometry::LABEL_BYTES);

/// Where things are on a device. All offsets and lengths are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Usable size of the device.
    pub size_bytes: u64,
    /// Size of one extent; on a zoned device, what can be written of it.
    pub extent_bytes: u32,
    /// Number of extents.
    pub extents: u32,
    /// Size of a zone, on a zoned device: extent `n` is zone `n`.
    pub zone_bytes: Option<u64>,
}

impl Geometry {
    /// A label copy.
    pub const LABEL_BYTES: usize = 4096;
    /// An anchor page.
    pub const ANCHOR_BYTES: usize = 4096;
    /// Pages in one anchor ring. A crash damages at most the newest; the rest is history for people.
    pub const ANCHOR_SLOTS: u64 = 64;
    /// Where the two anchor rings start.
    pub const ANCHOR_RINGS: [u64; 2] = [64 << 10, 512 << 10];
    /// Where the extents start.
    pub const EXTENTS_START: u64 = 1 << 20;
    /// Fewest extents a device may have: the four streams, two checkpoints, their successors and a reserve.
    pub const MIN_EXTENTS: u32 = 24;
    /// Smallest extent. Records that do not fit into an extent are refused.
    pub const MIN_EXTENT_BYTES: u32 = 256 << 10;
    /// Smallest extent that is chosen unasked: the largest record fits with room to spare.
    pub const USUAL_MIN_EXTENT_BYTES: u32 = 16 << 20;
    /// Largest extent.
    pub const MAX_EXTENT_BYTES: u32 = 1 << 30;
    /// Zones of the anchor log, the last of a zoned device: two hold every page, the third is what the next of them to
    /// be full is written into.
    pub const LOG_ZONES: usize = 3;
    /// Least bytes that a zone must hold: a label, the anchor pages of a ring, and some more before the next is begun.
    pub const MIN_ZONE_BYTES: u32 =
        (Self::LABEL_BYTES + (Self::ANCHOR_SLOTS + Self::ANCHOR_SLOTS / 4) as usize * Self::ANCHOR_BYTES) as u32;
    /// Most bytes of a zone that are used.
    pub const MAX_ZONE_BYTES: u32 = 2 << 30;

    /// The layout of a device of `size_bytes` with extents of `extent_bytes`; `None` when it is too small.
    #[must_use]
    pub fn new(size_bytes: u64, extent_bytes: u32) -> Option<Self> {
        let room = size_bytes.checked_sub(Self::EXTENTS_START + Self::LABEL_BYTES as u64)?;
        let extents = u32::try_from(room / u64::from(extent_bytes)).ok()?;
        let geometry = Self { size_bytes, extent_bytes, extents, zone_bytes: None };
        geometry.is_valid().then_some(geometry)
    }

    /// The layout of a zoned device of `size_bytes`, of which each zone takes up `zone_bytes` and holds
    /// `capacity_bytes`; `None` when it is too small, or its zones are.
    #[must_use]
    pub fn in_zones(size_bytes: u64, zone_bytes: u64, capacity_bytes: u64) -> Option<Self> {
        let zones = u32::try_from(size_bytes.checked_div(zone_bytes)?).ok()?;
        let geometry = Self {
            size_bytes: u64::from(zones) * zone_bytes,
            extent_bytes: capacity_bytes.min(Self::MAX_ZONE_BYTES.into()) as u32,
            extents: zones.checked_sub(Self::LOG_ZONES as u32)?,
            zone_bytes: Some(zone_bytes),
        };
        geometry.is_valid().then_some(geometry)
    }

    /// The usual layout: 64 MiB extents on flash, 256 MiB on disks, smaller ones where a device would
    /// have fewer than 256.
    #[must_use]
    pub fn for_device(size_bytes: u64, rotational: bool) -> Option<Self> {
        let usual: u32 = if rotational { 256 << 20 } else { 64 << 20 };
        let wanted = (size_bytes / 256).next_power_of_two().min(u64::from(usual)) as u32;
        Self::new(size_bytes, wanted.max(Self::USUAL_MIN_EXTENT_BYTES))
    }

    fn is_valid(&self) -> bool {
        let fits = match self.zone_bytes {
            None => {
                (Self::MIN_EXTENT_BYTES..=Self::MAX_EXTENT_BYTES).contains(&self.extent_bytes)
                    && u64::from(self.extents) * u64::from(self.extent_bytes)
                        + Self::EXTENTS_START
                        + Self::LABEL_BYTES as u64
                        <= self.size_bytes
            }
            Some(zone_bytes) => {
                (Self::MIN_ZONE_BYTES..=Self::MAX_ZONE_BYTES).contains(&self.extent_bytes)
                    && zone_bytes.is_multiple_of(4096)
                    && zone_bytes >= u64::from(self.extent_bytes)
                    && self.size_bytes.is_multiple_of(zone_bytes)
                    && self.size_bytes / zone_bytes == u64::from(self.extents) + Self::LOG_ZONES as u64
            }
        };
        fits && self.extent_bytes.is_multiple_of(4096)
            && self.extents >= Self::MIN_EXTENTS
            && self.size_bytes.is_multiple_of(4096)
    }

    /// Where label copies are; on a zoned device, where they may be.
    #[must_use]
    pub fn label_offsets(&self) -> Vec<u64> {
        match self.log_offsets() {
            Some(zones) => zones.to_vec(),
            None => vec![0, self.size_bytes - Self::LABEL_BYTES as u64],
        }
    }

    /// Where the zones of the anchor log start, on a zoned device.
    #[must_use]
    pub fn log_offsets(&self) -> Option<[u64; Self::LOG_ZONES]> {
        Self::log_offsets_of(self.size_bytes, self.zone_bytes?)
    }

    /// As [`Self::log_offsets`], of a device that is not known yet.
    #[must_use]
    pub fn log_offsets_of(size_bytes: u64, zone_bytes: u64) -> Option<[u64; Self::LOG_ZONES]> {
        let first = size_bytes.checked_div(zone_bytes)?.checked_sub(Self::LOG_ZONES as u64)?;
        Some(std::array::from_fn(|i| (first + i as u64) * zone_bytes))
    }

    /// Where the two copies of the anchor page with this sequence number are, on a device without zones.
    #[must_use]
    pub fn anchor_offsets(sequence: u64) -> [u64; 2] {
        Self::ANCHOR_RINGS.map(|ring| ring + (sequence % Self::ANCHOR_SLOTS) * Self::ANCHOR_BYTES as u64)
    }

    /// Where an extent starts.
    ///
    /// # Panics
    /// When there is no such extent.
    #[must_use]
    pub fn extent_offset(&self, extent: u32) -> u64 {
        assert!(extent < self.extents, "extent {extent} of {}", self.extents);
        match self.zone_bytes {
            Some(zone_bytes) => u64::from(extent) * zone_bytes,
            None => Self::EXTENTS_START + u64::from(extent) * u64::from(self.extent_bytes),
        }
    }
}

/// Who a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The device.
    pub device: DeviceId,
    /// Its layout.
    pub geometry: Geometry,
    /// Seed of every header checksum on this device, drawn when it was formatted: bytes that a client
    /// stores cannot pass for a record.
    pub salt: u32,
    /// When it was formatted; milliseconds since 1970.
    pub created_ms: u64,
}

impl Label {
    /// The label's 4,096 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut raw = RawLabel {
            magic: MAGIC,
            version: if self.geometry.zone_bytes.is_some() { VERSION } else { UNZONED }.into(),
            zero: [0; 2],
            salt: self.salt.into(),
            cluster: self.cluster.0,
            device: self.device.0,
            size_bytes: self.geometry.size_bytes.into(),
            extent_bytes: self.geometry.extent_bytes.into(),
            extents: self.geometry.extents.into(),
            created_ms: self.created_ms.into(),
            zone_bytes: self.geometry.zone_bytes.unwrap_or(0).into(),
            reserved: [0; 4012],
            crc: 0.into(),
        };
        raw.crc = crc(0, &[&raw.as_bytes()[..4092]]).into();
        raw.as_bytes().to_vec()
    }

    /// The label in `bytes`, checked.
    ///
    /// # Errors
    /// [`FormatError`]: absent, newer, damaged or invalid.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (raw, _) = RawLabel::ref_from_prefix(bytes).map_err(|_| FormatError::Absent(WHAT))?;
        if raw.magic != MAGIC {
            return Err(FormatError::Absent(WHAT));
        }
        if raw.crc.get() != crc(0, &[&raw.as_bytes()[..4092]]) {
            return Err(FormatError::Checksum(WHAT));
        }
        if raw.version.get() > VERSION || raw.version.get() == 0 {
            return Err(FormatError::Newer { what: WHAT, found: raw.version.get(), known: VERSION });
        }
        let geometry = Geometry {
            size_bytes: raw.size_bytes.get(),
            extent_bytes: raw.extent_bytes.get(),
            extents: raw.extents.get(),
            zone_bytes: (raw.version.get() > UNZONED).then_some(raw.zone_bytes.get()),
        };
        if !geometry.is_valid() {
            return Err(FormatError::Invalid { what: WHAT, field: "geometry" });
        }
        let stray = raw.version.get() == UNZONED && raw.zone_bytes.get() != 0;
        if stray || raw.zero != [0; 2] || raw.reserved.iter().any(|b| *b != 0) {
            return Err(FormatError::Invalid { what: WHAT, field: "reserved" });
        }
        Ok(Self {
            cluster: ClusterId(raw.cluster),
            device: DeviceId(raw.device),
            geometry,
            salt: raw.salt.get(),
            created_ms: raw.created_ms.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label {
            cluster: ClusterId([1; 16]),
            device: DeviceId([2; 16]),
            geometry: Geometry::new(4 << 30, 16 << 20).expect("fits"),
            salt: 0xdead_beef,
            created_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = label().encode();
        assert_eq!(&bytes[..12], b"HOLDFAST\x01\x00\x00\x00");
        assert_eq!(&bytes[12..16], &[0xef, 0xbe, 0xad, 0xde]);
        assert_eq!(&bytes[48..56], &(4u64 << 30).to_le_bytes());
        assert_eq!(&bytes[56..64], &[0, 0, 0, 1, 255, 0, 0, 0]);
        assert_eq!(crc(0, &[&bytes]), 0x2144_df1c, "a CRC over bytes that end with their own CRC is one constant");
        assert_eq!(&bytes[4092..], &[171, 187, 150, 252], "the checksum of exactly these bytes");
    }

    fn zoned() -> Label {
        // Zones of 2 GiB that hold 1,077 MiB, as the first NVMe devices with zones have them; 904 of them.
        Label { geometry: Geometry::in_zones(904 << 31, 2 << 30, 1077 << 20).expect("fits"), ..label() }
    }

    #[test]
    fn golden_bytes_of_a_zoned_device() {
        let bytes = zoned().encode();
        assert_eq!(&bytes[..12], b"HOLDFAST\x02\x00\x00\x00");
        assert_eq!(&bytes[48..64], &[0, 0, 0, 0, 0xc4, 1, 0, 0, 0, 0, 0x50, 0x43, 0x85, 3, 0, 0]);
        assert_eq!(&bytes[72..84], &[0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[4092..], &[15, 139, 139, 237], "the checksum of exactly these bytes");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for label in [label(), zoned()] {
            let good = label.encode();
            assert_eq!(Label::decode(&good), Ok(label));
            for bit in (0..good.len() * 8).step_by(37) {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Label::decode(&bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_version_and_its_fields_agree() {
        for (label, version) in [(label(), 2), (zoned(), 1)] {
            let mut bytes = label.encode();
            bytes[8] = version;
            let sum = crc(0, &[&bytes[..4092]]);
            bytes[4092..].copy_from_slice(&sum.to_le_bytes());
            assert!(matches!(Label::decode(&bytes), Err(FormatError::Invalid { .. })), "version {version}");
        }
    }

    #[test]
    fn layouts_of_zoned_devices() {
        let g = zoned().geometry;
        assert_eq!((g.extents, g.extent_offset(3)), (901, 6 << 30));
        assert_eq!(g.log_offsets(), Some([901 << 31, 902 << 31, 903 << 31]));
        assert_eq!(Geometry::log_offsets_of((904 << 31) + 4096, 2 << 30), g.log_offsets(), "a smaller last zone");
        let refused = [
            (26 << 20, 1 << 20, 1 << 20, "too few zones"),
            (1 << 30, 256 << 10, 256 << 10, "zones too small"),
            (1 << 30, 1 << 20, (1 << 20) + 4096, "more than a zone"),
            (1 << 30, 0, 1 << 20, "no zones"),
            (2 << 20, 1 << 20, 1 << 20, "fewer than the log's"),
        ];
        for (size, zone, capacity, why) in refused {
            assert_eq!(Geometry::in_zones(size, zone, capacity), None, "{why}");
        }
    }

    #[test]
    fn a_newer_label_is_refused_by_name() {
        let mut bytes = label().encode();
        bytes[8] = 9;
        let sum = crc(0, &[&bytes[..4092]]);
        bytes[4092..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Label::decode(&bytes), Err(FormatError::Newer { what: WHAT, found: 9, known: 2 }));
    }

    #[test]
    fn layouts_fit_their_devices() {
        for size in [512 << 20, 4 << 30, 1 << 40, 20 << 40] {
            for rotational in [false, true] {
                let Some(g) = Geometry::for_device(size, rotational) else {
                    assert!(size < 1 << 30, "{size}");
                    continue;
                };
                assert!(g.extent_offset(g.extents - 1) + u64::from(g.extent_bytes) <= g.label_offsets()[1]);
            }
        }
        assert_eq!(Geometry::new(8 << 20, 16 << 20), None);
        assert_eq!(Geometry::new(1 << 30, 4 << 10), None);
    }
}
