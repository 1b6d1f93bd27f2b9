//! The ring itself: set-up with whatever the kernel has, submission of slots, completions.
//!
//! Invariant: an entry is pushed only for a slot whose buffers stay where they are until its completion is seen.

use std::io;
use std::os::fd::RawFd;

use disk::{AlignedBytes, MAX_WRITE_PARTS};
use io_uring::{IoUring, opcode, squeue, types};

use crate::slab::{Slot, Work};

/// Names the completion of the eventfd's read; no slot has this number.
pub(crate) const WAKE: u64 = u64::MAX;
/// Bytes asked of the kernel at once; it moves no more than 2 GiB less a page in one call.
const TRANSFER_BYTES_MAX: usize = 1 << 30;

/// How a range is freed: of a file, its blocks; of a block device, by zeroing it without writing.
pub(crate) const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

/// See the file's header.
pub(crate) struct Ring {
    ring: IoUring,
    fd: RawFd,
    /// The device is registered as file 0.
    fixed: bool,
    wake_fd: RawFd,
    /// Where the eventfd's counter goes; on the heap, so that it stays when the ring moves.
    wake_counter: Box<u64>,
    wake_armed: bool,
}

impl Ring {
    /// A ring for `depth` operations on `fd`, and the wakes of `wake_fd`; bound to the current thread.
    pub(crate) fn new(depth: u32, fd: RawFd, wake_fd: RawFd) -> io::Result<Self> {
        let ring = build(depth + 1)?;
        let fixed = ring.submitter().register_files(&[fd]).is_ok();
        Ok(Self { ring, fd, fixed, wake_fd, wake_counter: Box::new(0), wake_armed: false })
    }

    /// Sees to it that a read of the eventfd is under way.
    pub(crate) fn arm_wake(&mut self) {
        if !self.wake_armed {
            let target: *mut u64 = &raw mut *self.wake_counter;
            let entry = opcode::Read::new(types::Fd(self.wake_fd), target.cast(), 8).build().user_data(WAKE);
            self.push(&entry);
            self.wake_armed = true;
        }
    }

    pub(crate) fn wake_armed(&self) -> bool {
        self.wake_armed
    }

    /// Lets go of the device. The kernel takes a ring apart some time after it was closed, and would own the
    /// registered file, and with it our claim to the device, until then.
    pub(crate) fn release_file(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.fixed) { self.ring.submitter().unregister_files() } else { Ok(()) }
    }

    /// Queues what is left of the operation in `slot`, known to the kernel as `index`.
    pub(crate) fn push_slot(&mut self, index: u32, slot: &mut Slot) {
        let entry = match self.fixed {
            true => entry(types::Fd(0), slot).flags(squeue::Flags::FIXED_FILE),
            false => entry(types::Fd(self.fd), slot),
        };
        self.push(&entry.user_data(u64::from(index)));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: buffers and iovecs belong to the slot (or to `wake_counter`), which outlives the operation.
        #[allow(unsafe_code)]
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.expect("the queue has an entry for each operation that may be under way");
    }

    /// Hands queued entries to the kernel, if any, and lets it post completions; waits for none.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        let queue = self.ring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if idle { Ok(()) } else { tolerate(self.ring.submit()) }
    }

    /// Entries that the kernel has not been told of.
    pub(crate) fn queued(&mut self) -> usize {
        self.ring.submission().len()
    }

    /// As [`Self::submit`], and waits for a completion.
    pub(crate) fn submit_and_wait(&mut self) -> io::Result<()> {
        tolerate(self.ring.submit_and_wait(1))
    }

    /// The next completion: the slot's number, or none for a wake, and the kernel's result.
    pub(crate) fn next(&mut self) -> Option<(Option<u32>, i32)> {
        let completion = self.ring.completion().next()?;
        if completion.user_data() == WAKE {
            self.wake_armed = false;
            return Some((None, completion.result()));
        }
        Some((Some(completion.user_data() as u32), completion.result()))
    }
}

/// Interruptions and a full completion queue are passed over: the caller reaps and comes back.
fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Task work is cooperative but not deferred: deferral measured dearer per read (docs/decisions/0001-ring.md).
fn build(entries: u32) -> io::Result<IoUring> {
    let newest =
        IoUring::builder().setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag().dontfork().build(entries);
    newest.or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => IoUring::builder().dontfork().build(entries),
        _ => Err(error),
    })
}

/// What is left of the operation, on descriptor `fd`. Leaves the iovecs of a gathered write in the slot.
fn entry(fd: types::Fd, slot: &mut Slot) -> squeue::Entry {
    let (done, offset) = (slot.done, slot.offset + slot.done as u64);
    match &mut slot.work {
        Work::Read(buf) => {
            let left = &mut buf[done..];
            let len = left.len().min(TRANSFER_BYTES_MAX) as u32;
            opcode::Read::new(fd, left.as_mut_ptr(), len).offset(offset).build()
        }
        Work::Write(parts) if parts.len() == 1 => {
            let left = &parts[0][done..];
            let len = left.len().min(TRANSFER_BYTES_MAX) as u32;
            opcode::Write::new(fd, left.as_ptr(), len).offset(offset).build()
        }
        Work::Write(parts) => {
            fill_iovecs(&mut slot.iovecs, parts, done);
            opcode::Writev::new(fd, slot.iovecs.as_ptr(), slot.iovecs.len() as u32).offset(offset).build()
        }
        Work::Flush => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        Work::Discard => opcode::Fallocate::new(fd, slot.len).offset(offset).mode(PUNCH).build(),
    }
}

/// Points `iovecs` at what is left of `parts` after the first `done` bytes.
pub(crate) fn fill_iovecs(iovecs: &mut Vec<libc::iovec>, parts: &[AlignedBytes], mut done: usize) {
    iovecs.clear();
    for part in parts {
        let skipped = done.min(part.len());
        done -= skipped;
        if skipped < part.len() {
            let left = &part[skipped..];
            // The kernel only reads through it, though the type says otherwise.
            iovecs.push(libc::iovec { iov_base: left.as_ptr().cast_mut().cast(), iov_len: left.len() });
        }
    }
    debug_assert!(iovecs.len() <= MAX_WRITE_PARTS, "checked at the door");
}
