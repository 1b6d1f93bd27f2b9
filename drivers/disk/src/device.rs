//! The door itself.

use std::future::{Future, ready};

use crate::{AlignedBuf, AlignedBytes, DiskError, DiskOp, DiskResult, ZoneFacts, ZoneFault};

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
    /// Its zones, when some of them must be written in order.
    pub zones: Option<ZoneFacts>,
    /// Whether a volatile write cache stands between a write and the medium.
    pub volatile_cache: Option<bool>,
    /// Whether the device can make one write durable without flushing its cache (FUA), where it tells.
    pub fua: Option<bool>,
    /// Bytes of a write that happens whole or not at all when the power goes, at most; none where nothing is promised.
    pub atomic_write_bytes: Option<u32>,
    /// Whether the device has queues to poll for completions, where it tells.
    pub polled: Option<bool>,
    /// Whether the device can discard.
    pub discard: bool,
    /// What a discard is rounded inward to, in bytes, where the device tells.
    pub discard_granularity_bytes: Option<u32>,
    /// The character device for commands past the block layer (NVMe's `/dev/ngXnY`), where there is one.
    pub passthrough: Option<String>,
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

    /// Where the next write to the sequential zone that holds the byte at `offset` must begin; the end of the zone's
    /// capacity when it is full. After a crash it may be no multiple of [`crate::IO_ALIGN`]; see [`ZoneFacts`].
    ///
    /// # Errors
    /// [`DiskError::Zone`] where there is no write pointer.
    fn write_pointer(&self, offset: u64) -> impl Future<Output = DiskResult<u64>> {
        ready(Err(DiskError::Zone { op: DiskOp::ReportZone, offset, fault: ZoneFault::NotZoned }))
    }

    /// Empties the sequential zone that holds the byte at `offset`; its write pointer is then at its start. Durable
    /// when flushed.
    ///
    /// # Errors
    /// [`DiskError::Zone`] where there is no write pointer, or the zone is being changed.
    fn reset_zone(&self, offset: u64) -> impl Future<Output = DiskResult<()>> {
        ready(Err(DiskError::Zone { op: DiskOp::ResetZone, offset, fault: ZoneFault::NotZoned }))
    }

    /// Makes the sequential zone that holds the byte at `offset` full without writing, so that it no longer counts as
    /// written in part; what was written stays. Durable when flushed.
    ///
    /// # Errors
    /// As [`Self::reset_zone`].
    fn finish_zone(&self, offset: u64) -> impl Future<Output = DiskResult<()>> {
        ready(Err(DiskError::Zone { op: DiskOp::FinishZone, offset, fault: ZoneFault::NotZoned }))
    }
}
