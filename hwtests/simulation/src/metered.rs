//! The simulated disk with a meter: a poll that never returns is caught where it asks the device once too often.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use disk::{AlignedBuf, AlignedBytes, BlockDevice, DeviceFacts, DiskResult};
use simdisk::SimDisk;

/// Operations that one poll of the store may begin. The longest honest ones begin a tenth of it.
const OPS_PER_POLL_MAX: u64 = 4_000;

/// A [`SimDisk`] that a store owns.
#[derive(Debug)]
pub(crate) struct Metered {
    disk: SimDisk,
    /// Number of the executor's present poll.
    turn: Rc<Cell<u64>>,
    last_turn: Cell<u64>,
    begun: Cell<u64>,
}

impl Metered {
    pub(crate) fn new(disk: SimDisk, turn: Rc<Cell<u64>>) -> Self {
        Self { disk, turn, last_turn: Cell::new(0), begun: Cell::new(0) }
    }

    fn count(&self) {
        if self.last_turn.replace(self.turn.get()) != self.turn.get() {
            self.begun.set(0);
        }
        self.begun.set(self.begun.get() + 1);
        assert!(self.begun.get() <= OPS_PER_POLL_MAX, "one poll has begun {OPS_PER_POLL_MAX} device operations");
    }
}

impl BlockDevice for Metered {
    fn facts(&self) -> &DeviceFacts {
        self.disk.facts()
    }

    fn read(&self, offset: u64, buf: AlignedBuf) -> impl Future<Output = DiskResult<AlignedBuf>> {
        self.count();
        self.disk.read(offset, buf)
    }

    fn write(&self, offset: u64, parts: Vec<AlignedBytes>) -> impl Future<Output = DiskResult<()>> {
        self.count();
        self.disk.write(offset, parts)
    }

    fn flush(&self) -> impl Future<Output = DiskResult<()>> {
        self.count();
        self.disk.flush()
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> impl Future<Output = DiskResult<()>> {
        self.count();
        self.disk.discard(offset, len_bytes)
    }

    fn write_pointer(&self, offset: u64) -> impl Future<Output = DiskResult<u64>> {
        self.count();
        self.disk.write_pointer(offset)
    }

    fn reset_zone(&self, offset: u64) -> impl Future<Output = DiskResult<()>> {
        self.count();
        self.disk.reset_zone(offset)
    }

    fn finish_zone(&self, offset: u64) -> impl Future<Output = DiskResult<()>> {
        self.count();
        self.disk.finish_zone(offset)
    }
}
