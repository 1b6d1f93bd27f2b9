//! One device under its executor: admits operations, keeps the kernel supplied, and settles what comes back.
//!
//! Invariant: `waiting` holds operations in the order of their calls, and none waits while the kernel has room.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::task::Waker;

use disk::{DiskError, DiskOp, DiskResult, IO_ALIGN, ZoneFacts};

use crate::blocking;
use crate::errno::disk_error;
use crate::ring::Ring;
use crate::slab::{Slab, Work};
use crate::unpark::Unpark;
use crate::zones;

/// Times one operation is tried again when the kernel asks for it, before that counts as its failure.
const RETRIES_MAX: u32 = 1000;

/// Operations that are handed to the kernel at once, before the executor's turn has ended: the device works while
/// the rest of a long turn is computed.
const SUBMIT_BATCH: usize = 4;

/// What carries the operations out.
#[allow(clippy::large_enum_variant, reason = "there is one per device, and the ring is the case that matters")]
pub(crate) enum Backend {
    Ring(Ring),
    Blocking,
    /// The device was given back.
    Closed,
}

/// See the file's header.
pub(crate) struct Core {
    pub(crate) slab: Slab,
    backend: Backend,
    /// None once closed.
    file: Option<File>,
    is_block: bool,
    /// What reads go on at a multiple of when the kernel gave less than was asked.
    read_align: usize,
    zones: Option<ZoneFacts>,
    depth: u32,
    in_kernel: u32,
    waiting: VecDeque<u32>,
    /// The device turned out not to discard; there is no use in asking again.
    no_discard: bool,
    /// Nothing drives the device any more.
    closed: bool,
    /// Whom to wake, collected while the core is borrowed.
    woken: Vec<Waker>,
}

impl Core {
    pub(crate) fn new(
        backend: Backend,
        file: File,
        is_block: bool,
        read_align: usize,
        zones: Option<ZoneFacts>,
        depth: u32,
    ) -> Self {
        Self {
            slab: Slab::default(),
            backend,
            file: Some(file),
            is_block,
            read_align,
            zones,
            depth,
            in_kernel: 0,
            waiting: VecDeque::new(),
            no_discard: false,
            closed: false,
            woken: Vec::new(),
        }
    }

    /// Begins an operation that the door has checked; gives its slot.
    pub(crate) fn begin(&mut self, work: Work, offset: u64, len: u64) -> DiskResult<u32> {
        if self.closed {
            return Err(DiskError::Gone { op: work.op() });
        }
        let index = self.slab.insert(work, offset, len);
        self.enqueue(index);
        Ok(index)
    }

    fn enqueue(&mut self, index: u32) {
        match &mut self.backend {
            Backend::Ring(ring) if self.in_kernel < self.depth => {
                self.in_kernel += 1;
                ring.push_slot(index, self.slab.get(index));
                if ring.queued() >= SUBMIT_BATCH {
                    // A failure shows again where the executor submits.
                    let _ = ring.submit();
                }
            }
            _ => self.waiting.push_back(index),
        }
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_kernel == 0 && self.waiting.is_empty()
    }

    /// Moves work along without waiting: hands queued entries to the kernel and settles what has completed. The
    /// blocking engine carries out one operation.
    pub(crate) fn advance(&mut self) -> io::Result<()> {
        match &mut self.backend {
            Backend::Ring(ring) => {
                ring.submit()?;
                self.reap();
            }
            Backend::Blocking => {
                if let Some(index) = self.waiting.pop_front() {
                    let file = self.file.as_ref().expect("open until closed");
                    let result = blocking::attempt(file, self.slab.get(index));
                    self.settle(index, result);
                }
            }
            Backend::Closed => {}
        }
        Ok(())
    }

    /// As [`Self::advance`], but sleeps until something completes or `unpark` is signalled. The caller has
    /// parked `unpark`.
    pub(crate) fn sleep(&mut self, unpark: &Unpark) -> io::Result<()> {
        match &mut self.backend {
            Backend::Ring(ring) => {
                ring.arm_wake();
                ring.submit_and_wait()?;
                self.reap();
                Ok(())
            }
            Backend::Blocking if self.waiting.is_empty() => unpark.wait(),
            Backend::Blocking | Backend::Closed => self.advance(),
        }
    }

    /// Takes no more operations, finishes those under way, and gives the device back.
    pub(crate) fn close(&mut self, unpark: &Unpark) -> io::Result<()> {
        self.closed = true;
        while !self.is_idle() {
            if let Backend::Ring(ring) = &mut self.backend {
                ring.submit_and_wait()?;
                self.reap();
            } else {
                self.advance()?;
            }
        }
        if let Backend::Ring(ring) = &mut self.backend {
            if ring.wake_armed() {
                unpark.signal()?;
            }
            while ring.wake_armed() {
                ring.submit_and_wait()?;
                let other = ring.next();
                assert!(!matches!(other, Some((Some(_), _))), "nothing was under way any more");
            }
            ring.release_file()?;
        }
        self.backend = Backend::Closed;
        self.file = None;
        Ok(())
    }

    /// Wakers of what has finished since the last call, into `out`.
    pub(crate) fn take_woken(&mut self, out: &mut Vec<Waker>) {
        out.append(&mut self.woken);
    }

    fn reap(&mut self) {
        while let Backend::Ring(ring) = &mut self.backend {
            let Some((index, result)) = ring.next() else { break };
            let Some(index) = index else { continue };
            self.in_kernel -= 1;
            self.settle(index, result);
            while self.in_kernel < self.depth {
                let Some(next) = self.waiting.pop_front() else { break };
                self.enqueue(next);
            }
        }
    }

    /// Makes an outcome of the kernel's `result` (bytes, or -errno), or sends the operation on its way again.
    fn settle(&mut self, index: u32, result: i32) {
        let slot = self.slab.get(index);
        let op = slot.work.op();
        let len = slot.len as usize;
        let outcome = match usize::try_from(result) {
            Err(_) => {
                let errno = -result;
                if matches!(errno, libc::EAGAIN | libc::EINTR) && slot.retries < RETRIES_MAX {
                    slot.retries += 1;
                    return self.enqueue(index);
                }
                if op == DiskOp::Discard && matches!(errno, libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) {
                    let (offset, len) = (slot.offset, slot.len);
                    self.discard_otherwise(offset, len)
                } else {
                    let (error, at) = (disk_error(op, slot.offset, len, errno), slot.offset + slot.done as u64);
                    Err(self.explained(op, at, error))
                }
            }
            Ok(bytes) if matches!(op, DiskOp::Read | DiskOp::Write) && slot.done + bytes < len => {
                // Only whole units count: direct I/O cannot go on from anywhere else.
                let align = if op == DiskOp::Read { self.read_align } else { IO_ALIGN };
                let progress = bytes / align * align;
                if progress > 0 {
                    slot.done += progress;
                    return self.enqueue(index);
                }
                // The end of a file that shrank under us, or a device that takes nothing.
                Err(disk_error(op, slot.offset + slot.done as u64, len - slot.done, libc::EIO))
            }
            Ok(_) => Ok(()),
        };
        self.woken.extend(self.slab.finish(index, outcome));
    }

    /// The error of `op` at `offset`, and of a write to a zone what the zone has against it.
    fn explained(&self, op: DiskOp, offset: u64, error: DiskError) -> DiskError {
        match (&self.zones, &self.file) {
            (Some(zones), Some(file)) if op == DiskOp::Write => zones::write_error(file, zones, offset, error),
            _ => error,
        }
    }

    /// Does `act` to the device itself, at once, while there is one.
    pub(crate) fn on_file<T>(&self, op: DiskOp, act: impl FnOnce(&File) -> DiskResult<T>) -> DiskResult<T> {
        match &self.file {
            Some(file) if !self.closed => act(file),
            _ => Err(DiskError::Gone { op }),
        }
    }

    /// A discard is advice: where neither way exists, the contents stay, which the door allows.
    fn discard_otherwise(&mut self, offset: u64, len: u64) -> DiskResult<()> {
        if self.is_block && !self.no_discard {
            let file = self.file.as_ref().expect("open until closed");
            match blocking::discard_ioctl(file, DiskOp::Discard, offset, len) {
                Err(DiskError::Os { .. }) => {}
                other => return other,
            }
        }
        self.no_discard = true;
        Ok(())
    }
}

impl Drop for Core {
    /// If operations could not be waited for, the kernel may still write to their buffers: they are leaked.
    fn drop(&mut self) {
        let stuck = match &self.backend {
            Backend::Ring(ring) => self.in_kernel > 0 || ring.wake_armed(),
            Backend::Blocking | Backend::Closed => false,
        };
        if stuck {
            tracing::error!(operations = self.in_kernel, "leaking the buffers of operations that never completed");
            std::mem::forget(std::mem::take(&mut self.slab));
            if let Backend::Ring(ring) = std::mem::replace(&mut self.backend, Backend::Closed) {
                std::mem::forget(ring);
            }
        }
    }
}
