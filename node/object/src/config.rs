//! How objects are kept.

use coding::Code;
use placement::Groups;
use thiserror::Error;

/// Data bytes of one shard of a full stripe. Large enough for a device to stream, small enough that one
/// request's stripes in memory stay few MiB.
pub const SHARD_BYTES: usize = 1 << 20;

/// Bodies up to this many bytes ride in the journal record: one write, no coding. Above it, k+m writes
/// of a stripe cost less than the journal's copies and the packer's second write.
pub const INLINE_MAX_BYTES: usize = 64 << 10;

/// Largest object put in one piece, and largest part: 5 GiB, as at AWS.
pub const PUT_MAX_BYTES: u64 = 5 << 30;

/// Redundancy of one cluster; the fault domain is the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redundancy {
    /// k: shards that hold data.
    pub data_shards: usize,
    /// m: shards that may be lost.
    pub parity_shards: usize,
    /// Shards of a stripe that may be missing when a write is acknowledged; repair owes them.
    pub write_tolerance: usize,
}

/// A redundancy that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Too few devices.
    #[error("{data_shards}+{parity_shards} needs {} devices, there are {devices}", data_shards + parity_shards)]
    TooFewDevices {
        /// k.
        data_shards: usize,
        /// m.
        parity_shards: usize,
        /// Devices.
        devices: usize,
    },
    /// The code does not exist.
    #[error("no erasure code of {data_shards}+{parity_shards}")]
    NoSuchCode {
        /// k.
        data_shards: usize,
        /// m.
        parity_shards: usize,
    },
    /// More shards may be missing at a write than the code can lose.
    #[error("a write tolerance of {write_tolerance} with only {parity_shards} parity shards")]
    Tolerance {
        /// Tolerance.
        write_tolerance: usize,
        /// m.
        parity_shards: usize,
    },
    /// The map's groups are made for another redundancy.
    #[error("groups of {width} slots for {data_shards}+{parity_shards}")]
    Width {
        /// Slots of a group.
        width: usize,
        /// k.
        data_shards: usize,
        /// m.
        parity_shards: usize,
    },
}

impl Redundancy {
    /// The usual tolerance: a write may miss shards as long as one more loss is survived.
    #[must_use]
    pub fn new(data_shards: usize, parity_shards: usize) -> Self {
        Self { data_shards, parity_shards, write_tolerance: parity_shards.saturating_sub(1) }
    }

    /// Shards that must be durable for a write to be acknowledged.
    #[must_use]
    pub fn shards_min(&self) -> usize {
        self.data_shards + self.parity_shards - self.write_tolerance
    }

    /// Data bytes of a full stripe.
    #[must_use]
    pub fn stripe_bytes(&self) -> usize {
        self.data_shards * SHARD_BYTES
    }

    /// The code and the groups over so many devices.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn prepare(&self, devices: usize) -> Result<(Code, Groups), ConfigError> {
        let Self { data_shards, parity_shards, .. } = *self;
        let code = self.code()?;
        let too_few = ConfigError::TooFewDevices { data_shards, parity_shards, devices };
        let groups = Groups::new(devices, data_shards + parity_shards).ok_or(too_few)?;
        Ok((code, groups))
    }

    /// The code alone.
    pub(crate) fn code(&self) -> Result<Code, ConfigError> {
        let Self { data_shards, parity_shards, write_tolerance } = *self;
        if write_tolerance > parity_shards {
            return Err(ConfigError::Tolerance { write_tolerance, parity_shards });
        }
        let no_code = ConfigError::NoSuchCode { data_shards, parity_shards };
        Code::new(data_shards, parity_shards).map_err(|_| no_code)
    }

    /// Whether groups of so many slots hold a stripe each.
    pub(crate) fn check_width(&self, width: usize) -> Result<(), ConfigError> {
        let Self { data_shards, parity_shards, .. } = *self;
        if width == data_shards + parity_shards {
            Ok(())
        } else {
            Err(ConfigError::Width { width, data_shards, parity_shards })
        }
    }
}
