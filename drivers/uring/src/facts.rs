//! What is known of an opened device: sizes by ioctl or file length, the rest from sysfs.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use disk::{DeviceFacts, DeviceKind, IO_ALIGN};

use crate::sysfs;

/// Facts of `file`, found at `path`; `size_bytes` limits what is used of it.
///
/// # Errors
/// When sizes cannot be asked, or the limit is beyond the device, or not even one page is left.
pub(crate) fn gather(file: &File, path: &str, is_block: bool, size_bytes: Option<u64>) -> io::Result<DeviceFacts> {
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
    Ok(DeviceFacts {
        kind: if is_block { DeviceKind::Block } else { DeviceKind::File },
        path: path.to_owned(),
        size_bytes: usable,
        sector_bytes,
        rotational: sys.rotational.unwrap_or(false),
        zoned: sys.zoned.unwrap_or(false),
        volatile_cache: sys.volatile_cache,
        // A file's blocks can be punched out on every file system worth standing on.
        discard: sys.discard.unwrap_or(!is_block),
        model: sys.model,
        serial: sys.serial,
        wwn: sys.wwn,
        engine: "",
    })
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
