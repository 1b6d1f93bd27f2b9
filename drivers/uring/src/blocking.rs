//! The engine for where io_uring is refused: one system call at a time, on the device's own thread.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use disk::DiskResult;

use crate::errno::disk_error;
use crate::ring::{PUNCH, fill_iovecs};
use crate::slab::{Slot, Work};

/// Runs what is left of the operation in `slot` once; the kernel's result as the ring gives it (bytes, or -errno).
pub(crate) fn attempt(file: &File, slot: &mut Slot) -> i32 {
    let (done, offset) = (slot.done, slot.offset + slot.done as u64);
    let result = match &mut slot.work {
        Work::Read(buf) => file.read_at(&mut buf[done..], offset),
        Work::Write(parts) if parts.len() == 1 => file.write_at(&parts[0][done..], offset),
        Work::Write(parts) => {
            fill_iovecs(&mut slot.iovecs, parts, done);
            pwritev(file, &slot.iovecs, offset)
        }
        Work::Flush => file.sync_data().map(|()| 0),
        Work::Discard => punch(file, offset, slot.len).map(|()| 0),
    };
    match result {
        // No call moves 2 GiB or more.
        Ok(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
        Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
    }
}

fn pwritev(file: &File, iovecs: &[libc::iovec], offset: u64) -> io::Result<usize> {
    // SAFETY: the iovecs point into parts that the caller's slot owns.
    #[allow(unsafe_code)]
    let written = unsafe { libc::pwritev(file.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as i32, offset as i64) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: no pointers are involved.
    #[allow(unsafe_code)]
    let result = unsafe { libc::fallocate(file.as_raw_fd(), PUNCH, offset as i64, len as i64) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Discards a range of a block device by its own ioctl, for where the kernel cannot punch it.
pub(crate) fn discard_ioctl(file: &File, op: disk::DiskOp, offset: u64, len: u64) -> DiskResult<()> {
    const BLKDISCARD: libc::Ioctl = 0x1277;
    let range = [offset, len];
    // SAFETY: the ioctl reads two u64 from the pointer.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKDISCARD, range.as_ptr()) };
    if result == 0 {
        return Ok(());
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Err(disk_error(op, offset, len as usize, errno))
}
