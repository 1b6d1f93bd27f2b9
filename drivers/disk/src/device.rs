//! The door itself.

use std::future::Future;

use crate::{AlignedBuf, AlignedBytes, DiskResult};

/// Parts one gathered write may have; both `writev` and the ring accept far more.
pub const MAX_WRITE_PARTS: usize = 64;

/// What stands behind the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// A raw block device.
    Block,
    /// A preallocated or sparse file standing in for one.
    File,
    /// Memory, from a seed.
    Simulated,
}

/// What is known of a device; absent facts are `None` (files and loop devices have few).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    /// What stands behind the door.
    pub kind: DeviceKind,
    /// Where it was found, for people.
    pub path: String,
    /// Usable bytes, a multiple of [`crate::IO_ALIGN`].
    pub size_bytes: u64,
    /// Logical sector size in bytes.
    pub sector_bytes: u32,
    /// What offsets and lengths of reads are multiples of: 512 or 4096, never less than a sector of a raw device.
    pub read_align_bytes: u32,
    /// Spinning medium.
    pub rotational: bool,
    /// Zoned medium.
    pub zoned: bool,
    /// Whether a volatile write cache stands between a write and the medium.
    pub volatile_cache: Option<bool>,
    /// Whether the device can discard.
    pub discard: bool,
    /// Model, where the device tells.
    pub model: Option<String>,
    /// Serial number, where the device tells.
    pub serial: Option<String>,
    /// World-wide name, where the device tells.
    pub wwn: Option<String>,
    /// The I/O engine in use, for people (`io_uring`, `blocking`, `simulated`).
    pub engine: &'static str,
}

/// One device. Futures need not be `Send`: each device has an executor of its own.
///
/// Dropping a future does not take an operation back; the device finishes it.
pub trait BlockDevice: 'static {
    /// What is known of the device.
    fn facts(&self) -> &DeviceFacts;

    /// Fills `buf` from `offset` (bytes) on; both `offset` and the buffer's length are multiples of
    /// [`DeviceFacts::read_align_bytes`]. On error the contents of the buffer say nothing.
    ///
    /// # Errors
    /// [`crate::DiskError`] with the place.
    fn read(&self, offset: u64, buf: AlignedBuf) -> impl Future<Output = DiskResult<AlignedBuf>>;

    /// Writes `parts` one after the other from `offset` (bytes) on; at most [`MAX_WRITE_PARTS`] of them. `offset`
    /// and the length of each are multiples of [`crate::IO_ALIGN`]. Not durable until flushed.
    ///
    /// # Errors
    /// [`crate::DiskError`] with the place; any part of the range may then hold old or new bytes.
    fn write(&self, offset: u64, parts: Vec<AlignedBytes>) -> impl Future<Output = DiskResult<()>>;

    /// Makes every write that finished before this call durable.
    ///
    /// # Errors
    /// After an error nothing may be assumed of any write since the last good flush.
    fn flush(&self) -> impl Future<Output = DiskResult<()>>;

    /// Tells the device that a range is free; its contents are then unspecified. Both numbers are multiples of
    /// [`crate::IO_ALIGN`].
    ///
    /// # Errors
    /// [`crate::DiskError`] with the place.
    fn discard(&self, offset: u64, len_bytes: u64) -> impl Future<Output = DiskResult<()>>;
}
