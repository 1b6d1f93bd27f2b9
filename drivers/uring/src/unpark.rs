//! Wakes of the executor's root future, from its own thread or any other, at one system call at most.
//!
//! The state says whether the executor sleeps. A wake of a running executor only sets a flag; the first wake of a
//! parked one writes the eventfd on which the executor (through the ring, or directly) waits.

// `cfg(loom)` is set by the interleaving checks alone, which include this file with an eventfd of their own.
#![allow(unexpected_cfgs)]

use std::io;
use std::task::Wake;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, Ordering};

#[cfg(loom)]
use crate::eventfd::EventFd;
#[cfg(not(loom))]
use eventfd::EventFd;

const RUNNING: u8 = 0;
const WOKEN: u8 = 1;
const PARKED: u8 = 2;

/// See the file's header.
pub(crate) struct Unpark {
    state: AtomicU8,
    eventfd: EventFd,
}

impl Unpark {
    /// A state that counts as woken, so that the root is polled at least once.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { state: AtomicU8::new(WOKEN), eventfd: EventFd::new()? })
    }

    /// Whether a wake came since the last call; the executor counts as running from here on.
    pub(crate) fn take(&self) -> bool {
        self.state.swap(RUNNING, Ordering::AcqRel) == WOKEN
    }

    /// Declares that the executor is about to sleep; false when a wake came first.
    pub(crate) fn park(&self) -> bool {
        self.state.compare_exchange(RUNNING, PARKED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Declares that the executor no longer sleeps, keeping a wake that came meanwhile.
    pub(crate) fn unpark(&self) {
        // Failure means that it was woken, which stays.
        let _ = self.state.compare_exchange(PARKED, RUNNING, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Sleeps until the eventfd is written.
    pub(crate) fn wait(&self) -> io::Result<()> {
        self.eventfd.read()
    }

    /// Writes the eventfd whatever the state, to end a read that is under way.
    pub(crate) fn signal(&self) -> io::Result<()> {
        self.eventfd.write()
    }

    #[cfg(not(loom))]
    pub(crate) fn raw_fd(&self) -> std::os::fd::RawFd {
        self.eventfd.as_raw_fd()
    }
}

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &std::sync::Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == PARKED {
            // An eventfd of ours accepts a write as long as its counter is below 2^64 - 1.
            self.signal().expect("the executor's eventfd takes a wake");
        }
    }
}

#[cfg(not(loom))]
mod eventfd {
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::os::fd::{AsRawFd, FromRawFd, RawFd};

    pub(super) struct EventFd(File);

    impl EventFd {
        pub(super) fn new() -> io::Result<Self> {
            // Not non-blocking: the ring's read must wait rather than fail.
            // SAFETY: no pointers are involved.
            #[allow(unsafe_code)]
            let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the descriptor is fresh and ours alone.
            #[allow(unsafe_code)]
            let file = unsafe { File::from_raw_fd(fd) };
            Ok(Self(file))
        }

        pub(super) fn read(&self) -> io::Result<()> {
            match (&self.0).read(&mut [0; 8]) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
                _ => Ok(()),
            }
        }

        pub(super) fn write(&self) -> io::Result<()> {
            (&self.0).write_all(&1u64.to_ne_bytes())
        }

        pub(super) fn as_raw_fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }
}
