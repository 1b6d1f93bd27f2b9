//! From the kernel's error numbers to the door's errors.

use std::io;

use disk::{DiskError, DiskOp};

/// The error for `errno` on `len` bytes at `offset`.
pub(crate) fn disk_error(op: DiskOp, offset: u64, len: usize, errno: i32) -> DiskError {
    match errno {
        libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EREMOTEIO => DiskError::Medium { op, offset, len, errno },
        libc::ENODEV | libc::ENXIO | libc::EBADF => DiskError::Gone { op },
        libc::ENOSPC | libc::EDQUOT => DiskError::NoSpace { op, offset },
        _ => DiskError::Os { op, reason: io::Error::from_raw_os_error(errno).to_string() },
    }
}

/// The error for a failure to open, inspect or drive `path`.
pub(crate) fn open_error(path: &str, what: &str, error: &io::Error) -> DiskError {
    DiskError::Os { op: DiskOp::Open, reason: format!("{path}: {what}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_means_what_the_door_says() {
        let of = |errno| disk_error(DiskOp::Read, 4096, 8192, errno);
        for errno in [libc::EIO, libc::ENODATA, libc::EILSEQ, libc::EREMOTEIO] {
            assert_eq!(of(errno), DiskError::Medium { op: DiskOp::Read, offset: 4096, len: 8192, errno });
        }
        for errno in [libc::ENODEV, libc::ENXIO, libc::EBADF] {
            assert!(of(errno).is_gone());
        }
        assert_eq!(of(libc::ENOSPC), DiskError::NoSpace { op: DiskOp::Read, offset: 4096 });
        assert!(matches!(of(libc::EPERM), DiskError::Os { .. }));
    }
}
