//! Zoned media: what a device is divided into, and what a write to a zone may be refused for.
//!
//! The rules of a sequential zone, which every zoned device keeps:
//! - one operation that changes a zone is under way at a time; others are refused as [`ZoneFault::Busy`], or by a real
//!   device as written elsewhere than at the pointer, since the system may pass them on in any order;
//! - a write begins at the zone's write pointer and ends within its capacity; it moves the pointer to its end;
//! - a read beyond the pointer fails, or gives a pattern of the device's own there: zeros mostly, ones on others;
//! - a failed write leaves the pointer anywhere from where it was to where it would have gone;
//! - a crash takes the pointer back to some place not before the last flushed write's end, at the grain of *sectors*:
//!   a zone whose pointer is no multiple of [`crate::IO_ALIGN`] takes no more writes until it was reset;
//! - a reset or a finish that no flush has followed may or may not have happened after a crash; zones change in the
//!   order of the operations on them.
//!
//! Conventional zones come first and know none of this.

use std::fmt;

/// How a zoned device is divided. All zones are of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneFacts {
    /// Bytes from one zone's start to the next one's, a multiple of [`crate::IO_ALIGN`].
    pub zone_bytes: u64,
    /// Bytes of a sequential zone that can be written, from its start on, a multiple of [`crate::IO_ALIGN`]; NVMe devices
    /// may leave a hole behind them.
    pub capacity_bytes: u64,
    /// Zones at the start of the device that take writes anywhere.
    pub conventional_zones: u32,
    /// Zones that may be written in part at once, neither empty nor full nor finished; none for no limit.
    pub max_open: Option<u32>,
}

impl ZoneFacts {
    /// The number of the zone that the byte at `offset` lies in.
    #[must_use]
    pub fn zone_of(&self, offset: u64) -> u64 {
        offset / self.zone_bytes
    }

    /// Where the zone of the byte at `offset` starts.
    #[must_use]
    pub fn start_of(&self, offset: u64) -> u64 {
        offset - offset % self.zone_bytes
    }

    /// Whether the byte at `offset` lies in a zone with a write pointer.
    #[must_use]
    pub fn is_sequential(&self, offset: u64) -> bool {
        self.zone_of(offset) >= u64::from(self.conventional_zones)
    }

    /// Where what can be written of the zone of the byte at `offset` ends.
    #[must_use]
    pub fn writable_end_of(&self, offset: u64) -> u64 {
        let room = if self.is_sequential(offset) { self.capacity_bytes } else { self.zone_bytes };
        self.start_of(offset).saturating_add(room)
    }

    /// Whether a write of `len_bytes` at `offset` keeps to what its zone's bounds allow; conventional zones, being alike,
    /// may be crossed.
    #[must_use]
    pub fn holds(&self, offset: u64, len_bytes: u64) -> bool {
        let Some(end) = offset.checked_add(len_bytes) else { return false };
        if self.is_sequential(offset) {
            return end <= self.writable_end_of(offset);
        }
        end <= u64::from(self.conventional_zones) * self.zone_bytes
    }
}

/// Why a zone refused an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneFault {
    /// The write does not begin at the write pointer, which is at byte `pointer`.
    NotAtPointer {
        /// Where a write would have to begin.
        pointer: u64,
    },
    /// The write goes beyond what can be written of its zone.
    Crosses,
    /// As many zones as may be are written in part.
    TooManyOpen,
    /// An operation that changes the zone is under way.
    Busy,
    /// The zone has no write pointer.
    Conventional,
    /// The device has no zones.
    NotZoned,
}

impl fmt::Display for ZoneFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAtPointer { pointer } => write!(f, "the zone's write pointer is at byte {pointer}"),
            Self::Crosses => f.write_str("it goes beyond what can be written of its zone"),
            Self::TooManyOpen => f.write_str("as many zones as may be are written in part"),
            Self::Busy => f.write_str("another operation is changing the zone"),
            Self::Conventional => f.write_str("the zone has no write pointer"),
            Self::NotZoned => f.write_str("the device has no zones"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_zones() {
        let zones = ZoneFacts { zone_bytes: 100, capacity_bytes: 60, conventional_zones: 2, max_open: None };
        assert_eq!((zones.zone_of(199), zones.start_of(199), zones.zone_of(200)), (1, 100, 2));
        assert_eq!((zones.is_sequential(199), zones.is_sequential(200)), (false, true));
        assert_eq!((zones.writable_end_of(150), zones.writable_end_of(250)), (200, 260));
        let table = [(0, 200, true), (50, 100, true), (150, 51, false), (200, 60, true), (200, 61, false)];
        let more = [(259, 1, true), (260, 1, false), (300, 60, true), (250, 60, false), (u64::MAX, 1, false)];
        for (offset, len, holds) in table.into_iter().chain(more) {
            assert_eq!(zones.holds(offset, len), holds, "{len} bytes at {offset}");
        }
    }
}
