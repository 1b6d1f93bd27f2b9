//! What is known of an opened device: sizes by ioctl or file length, the rest from sysfs.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use disk::{AlignedBuf, DeviceFacts, DeviceKind, IO_ALIGN, READ_ALIGN_MIN};

use crate::{sysfs, zones};

/// Facts of `file`, found at `path` and opened for I/O that is `direct` or not; `size_bytes` limits what is used of it.
///
/// # Errors
/// When sizes cannot be asked, or the limit is beyond the device, or not even one page is left.
pub(crate) fn gather(
    file: &File,
    path: &str,
    is_block: bool,
    direct: bool,
    size_bytes: Option<u64>,
) -> io::Result<DeviceFacts> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    // The end of a block device is its size (BLKGETSIZE64 says the same), so one call serves both kinds.
    let found = { file }.seek(SeekFrom::End(0))?;
    let usable = size_bytes.unwrap_or(found);
    if usable > found {
        return Err(invalid(format!("{usable} bytes were asked for, but it holds {found}")));
    }
    let usable = usable / IO_ALIGN as u64 * IO_ALIGN as u64;
    if usable == 0 {
        return Err(invalid(format!("{found} bytes are less than one page of {IO_ALIGN}")));
    }
    let sys = if is_block { block_sysfs(file)? } else { sysfs::BlockFacts::default() };
    let sector_bytes = if is_block { sector_bytes(file)? } else { 512 };
    if sector_bytes as usize > IO_ALIGN {
        return Err(invalid(format!("sectors of {sector_bytes} bytes are larger than a page of {IO_ALIGN}")));
    }
    let zones = if sys.zoned == Some(true) { zones::gather(file, sys.max_open_zones)? } else { None };
    let usable = zones.map_or(usable, |zones| usable - usable % zones.zone_bytes);
    if usable == 0 {
        return Err(invalid("less than one zone is left of it".to_owned()));
    }
    Ok(DeviceFacts {
        kind: if is_block { DeviceKind::Block } else { DeviceKind::File },
        path: path.to_owned(),
        size_bytes: usable,
        sector_bytes,
        read_align_bytes: read_align(file, is_block, direct, sector_bytes),
        rotational: sys.rotational.unwrap_or(false),
        zoned: sys.zoned.unwrap_or(false),
        zones,
        volatile_cache: sys.volatile_cache,
        fua: sys.fua,
        atomic_write_bytes: sys.atomic_write_bytes,
        polled: sys.polled,
        // A file's blocks can be punched out on every file system worth standing on.
        discard: sys.discard.unwrap_or(!is_block),
        discard_granularity_bytes: sys.discard_granularity_bytes,
        passthrough: sys.passthrough,
        model: sys.model,
        serial: sys.serial,
        wwn: sys.wwn,
        engine: "",
    })
}

/// What reads must be aligned to: of a raw device its sectors, of a file what direct I/O asks for. A short read goes on
/// in the middle of its buffer, so the alignment of memory counts as well.
fn read_align(file: &File, is_block: bool, direct: bool, sector_bytes: u32) -> u32 {
    let finest = READ_ALIGN_MIN as u32;
    let needed = match direct_io_align(file) {
        _ if !direct => finest,
        Some(told) => told.max(sector_bytes),
        None if is_block => sector_bytes,
        None if takes_reads_of(file, READ_ALIGN_MIN) => finest,
        None => IO_ALIGN as u32,
    };
    // Anything between the two is served by the coarser one.
    if needed <= finest { finest } else { IO_ALIGN as u32 }
}

/// The alignment of direct I/O in bytes, of places and of memory, where the kernel (6.1 on) and the file system tell.
fn direct_io_align(file: &File) -> Option<u32> {
    // SAFETY: all zeros is a value of this plain structure.
    #[allow(unsafe_code)]
    let mut told: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
    // SAFETY: the path is an empty C string, and the kernel writes one `statx` to the pointer.
    #[allow(unsafe_code)]
    let result = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut told) };
    let known = result == 0 && told.stx_mask & mask != 0 && told.stx_dio_offset_align > 0;
    known.then(|| told.stx_dio_offset_align.max(told.stx_dio_mem_align))
}

/// Whether reads of `len` bytes, at a multiple of it and into memory at one, are accepted.
fn takes_reads_of(file: &File, len: usize) -> bool {
    let mut buf = AlignedBuf::zeroed(2 * len);
    let read = file.read_at(&mut buf[len..2 * len], len as u64);
    !matches!(read, Err(error) if error.raw_os_error() == Some(libc::EINVAL))
}

fn block_sysfs(file: &File) -> io::Result<sysfs::BlockFacts> {
    let number = file.metadata()?.rdev();
    let directory = sysfs::directory_of(libc::major(number), libc::minor(number));
    Ok(directory.map(|d| sysfs::block_facts(&d)).unwrap_or_default())
}

fn sector_bytes(file: &File) -> io::Result<u32> {
    const BLKSSZGET: libc::Ioctl = 0x1268;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the ioctl writes one int to the pointer.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKSSZGET, &raw mut bytes) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(bytes).map_err(|_| io::Error::other("the kernel gave a negative sector size"))
}
