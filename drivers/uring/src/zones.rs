//! Zoned block devices: what the kernel reports of their zones, and the two ways to change one.
//!
//! The calls block the device's thread: io_uring has no operation for them. A report is a look into what the kernel
//! or the drive keeps in memory; a reset takes milliseconds on spinning media.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use disk::{DiskError, DiskOp, DiskResult, IO_ALIGN, ZoneFacts, ZoneFault};

use crate::errno::disk_error;

/// The kernel's unit in all of this, whatever the sectors of the device.
const SECTOR_BYTES: u64 = 512;
/// Zones asked for at once: 64 KiB of answer.
const BATCH: usize = 1024;

/// `struct blk_zone` of linux/blkzoned.h; places are in units of [`SECTOR_BYTES`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Zone {
    start: u64,
    len: u64,
    pointer: u64,
    kind: u8,
    condition: u8,
    non_seq: u8,
    reset: u8,
    reserved: [u8; 4],
    capacity: u64,
    reserved_more: [u8; 24],
}

/// `struct blk_zone_report`, with what follows it.
#[repr(C)]
struct Report {
    head: ReportHead,
    zones: [Zone; BATCH],
}

#[repr(C)]
struct ReportHead {
    sector: u64,
    nr_zones: u32,
    flags: u32,
}

/// `struct blk_zone_range`.
#[repr(C)]
struct Range {
    sector: u64,
    nr_sectors: u64,
}

const _: () = assert!(size_of::<Zone>() == 64 && size_of::<ReportHead>() == 16 && size_of::<Range>() == 16);

const BLKREPORTZONE: libc::Ioctl = libc::_IOWR::<ReportHead>(0x12, 130);
const BLKRESETZONE: libc::Ioctl = libc::_IOW::<Range>(0x12, 131);
const BLKFINISHZONE: libc::Ioctl = libc::_IOW::<Range>(0x12, 136);

/// The report says how much of each zone can be written.
const HAS_CAPACITY: u32 = 1;
/// A zone that must be written at its pointer; the other kinds take writes anywhere.
const KIND_SEQUENTIAL: u8 = 2;
const EMPTY: u8 = 0x1;
const READ_ONLY: u8 = 0xd;
const FULL: u8 = 0xe;
const OFFLINE: u8 = 0xf;

/// The zones from the one at `sector` on, at most [`BATCH`] of them; none at the end.
fn report(file: &File, sector: u64, at_most: usize) -> io::Result<Vec<Zone>> {
    let wanted = at_most.min(BATCH) as u32;
    let head = ReportHead { sector, nr_zones: wanted, flags: 0 };
    let mut report = Box::new(Report { head, zones: [Zone::default(); BATCH] });
    // SAFETY: the kernel writes at most `nr_zones` zones behind the head, for which there is room.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKREPORTZONE, &raw mut *report) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let count = report.head.nr_zones.min(wanted) as usize;
    let mut zones = report.zones[..count].to_vec();
    if report.head.flags & HAS_CAPACITY == 0 {
        zones.iter_mut().for_each(|zone| zone.capacity = zone.len);
    }
    Ok(zones)
}

/// The zones of the device, of which `max_open` may be written in part at once; none when all of it takes writes
/// anywhere.
///
/// # Errors
/// When the kernel does not tell, or the zones are not as the door describes them.
pub(crate) fn gather(file: &File, max_open: Option<u32>) -> io::Result<Option<ZoneFacts>> {
    let mut zones = Vec::new();
    loop {
        let next = zones.last().map_or(0, |zone: &Zone| zone.start + zone.len);
        let mut more = report(file, next, BATCH)?;
        // Some drivers answer a question beyond the end with the last zone again.
        more.retain(|zone| zone.start >= next);
        if more.is_empty() {
            return facts_of(&zones, max_open).map_err(|what| io::Error::new(io::ErrorKind::Unsupported, what));
        }
        zones.append(&mut more);
    }
}

fn facts_of(zones: &[Zone], max_open: Option<u32>) -> Result<Option<ZoneFacts>, &'static str> {
    let Some(first) = zones.iter().find(|zone| zone.kind == KIND_SEQUENTIAL) else { return Ok(None) };
    let len = zones[0].len;
    // A smaller last zone is left out by whoever counts whole zones.
    let whole = &zones[..zones.len() - usize::from(zones[zones.len() - 1].len != len)];
    if whole.iter().any(|zone| zone.len != len) {
        return Err("its zones are of different sizes");
    }
    let conventional = whole.iter().take_while(|zone| zone.kind != KIND_SEQUENTIAL).count();
    let sequential = &whole[conventional..];
    if sequential.iter().any(|zone| zone.kind != KIND_SEQUENTIAL) {
        return Err("it has conventional zones behind sequential ones");
    }
    if sequential.iter().any(|zone| zone.capacity != first.capacity) {
        return Err("its zones are of different capacities");
    }
    let (zone_bytes, capacity_bytes) = (len * SECTOR_BYTES, first.capacity * SECTOR_BYTES);
    let page = IO_ALIGN as u64;
    if !zone_bytes.is_multiple_of(page) || !capacity_bytes.is_multiple_of(page) || capacity_bytes == 0 {
        return Err("its zones are no whole pages");
    }
    let conventional_zones = u32::try_from(conventional).map_err(|_| "it has too many zones")?;
    Ok(Some(ZoneFacts { zone_bytes, capacity_bytes, conventional_zones, max_open }))
}

/// The write pointer of the sequential zone that holds the byte at `offset`.
pub(crate) fn write_pointer(file: &File, facts: &ZoneFacts, offset: u64) -> DiskResult<u64> {
    let op = DiskOp::ReportZone;
    let start = facts.start_of(offset);
    let failed = |errno| disk_error(op, offset, 0, errno);
    let zones =
        report(file, start / SECTOR_BYTES, 1).map_err(|error| failed(error.raw_os_error().unwrap_or(libc::EIO)))?;
    match zones.first() {
        Some(zone) if zone.start * SECTOR_BYTES == start => pointer_of(zone, facts).ok_or_else(|| failed(libc::EIO)),
        _ => Err(failed(libc::EIO)),
    }
}

/// None of a zone that can no longer be written.
fn pointer_of(zone: &Zone, facts: &ZoneFacts) -> Option<u64> {
    let start = zone.start * SECTOR_BYTES;
    match zone.condition {
        EMPTY => Some(start),
        // The pointer of a full zone is unspecified.
        FULL => Some(start + facts.capacity_bytes),
        READ_ONLY | OFFLINE => None,
        _ => Some(zone.pointer * SECTOR_BYTES),
    }
}

/// Empties the zone that holds the byte at `offset` (`op` a reset), or fills it up (a finish).
pub(crate) fn change(file: &File, facts: &ZoneFacts, op: DiskOp, offset: u64) -> DiskResult<()> {
    let sector = facts.start_of(offset) / SECTOR_BYTES;
    let range = Range { sector, nr_sectors: facts.zone_bytes / SECTOR_BYTES };
    let request = if op == DiskOp::ResetZone { BLKRESETZONE } else { BLKFINISHZONE };
    // SAFETY: the kernel reads one range from the pointer.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw const range) };
    if result == 0 {
        return Ok(());
    }
    Err(disk_error(op, offset, 0, io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)))
}

/// The error for a failed write at `offset`: devices say no more than EIO of one that began elsewhere than at the pointer.
pub(crate) fn write_error(file: &File, facts: &ZoneFacts, offset: u64, error: DiskError) -> DiskError {
    if !facts.is_sequential(offset) || error.is_gone() {
        return error;
    }
    match write_pointer(file, facts, offset) {
        Ok(pointer) if pointer != offset => {
            DiskError::Zone { op: DiskOp::Write, offset, fault: ZoneFault::NotAtPointer { pointer } }
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(index: u64, kind: u8) -> Zone {
        Zone {
            start: index * 1024,
            len: 1024,
            pointer: index * 1024,
            kind,
            condition: EMPTY,
            capacity: 800,
            ..Zone::default()
        }
    }

    #[test]
    fn zones_are_as_the_door_describes_them_or_refused() {
        let zones: Vec<Zone> = (0..6).map(|i| zone(i, if i < 2 { 1 } else { KIND_SEQUENTIAL })).collect();
        let facts = facts_of(&zones, Some(3)).unwrap().unwrap();
        let expected =
            ZoneFacts { zone_bytes: 512 << 10, capacity_bytes: 400 << 10, conventional_zones: 2, max_open: Some(3) };
        assert_eq!(facts, expected);
        let altered = |alter: &dyn Fn(&mut Vec<Zone>)| {
            let mut zones = zones.clone();
            alter(&mut zones);
            facts_of(&zones, Some(3))
        };
        assert_eq!(altered(&|zones| zones[5].len = 8), Ok(Some(expected)), "a smaller last zone");
        assert!(altered(&|zones| zones[3].len = 8).is_err());
        assert!(altered(&|zones| zones[4].kind = 1).is_err());
        assert!(altered(&|zones| zones[4].capacity = 792).is_err());
        assert!(altered(&|zones| zones.iter_mut().for_each(|zone| zone.capacity = 801)).is_err());
        assert_eq!(altered(&|zones| zones.iter_mut().for_each(|zone| zone.kind = 3)), Ok(None), "host-aware");
    }

    #[test]
    fn pointers_by_condition() {
        let facts =
            ZoneFacts { zone_bytes: 512 << 10, capacity_bytes: 400 << 10, conventional_zones: 0, max_open: None };
        let of = |condition| pointer_of(&Zone { pointer: 2056, condition, ..zone(2, KIND_SEQUENTIAL) }, &facts);
        let start = 1024 << 10;
        assert_eq!((of(EMPTY), of(FULL)), (Some(start), Some(start + (400 << 10))));
        for written in [2, 3, 4] {
            assert_eq!(of(written), Some(start + 8 * 512), "open or closed");
        }
        assert_eq!((of(READ_ONLY), of(OFFLINE)), (None, None));
    }
}
