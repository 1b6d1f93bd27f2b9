//! The operations under way, each owning its buffers until it has finished.
//!
//! Invariants: a slot is free, or waits for room in the kernel, or is in the kernel, or has its outcome; it is
//! freed only when it has its outcome and that was taken, or nobody is left to take it.

use std::task::Waker;

use disk::{AlignedBuf, AlignedBytes, DiskOp, DiskResult};

/// What is asked of the device.
pub(crate) enum Work {
    Read(AlignedBuf),
    Write(Vec<AlignedBytes>),
    Flush,
    Discard,
}

impl Work {
    pub(crate) fn op(&self) -> DiskOp {
        match self {
            Self::Read(_) => DiskOp::Read,
            Self::Write(_) => DiskOp::Write,
            Self::Flush => DiskOp::Flush,
            Self::Discard => DiskOp::Discard,
        }
    }
}

/// One operation. Offsets and lengths are bytes.
pub(crate) struct Slot {
    pub(crate) work: Work,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Bytes already transferred, when the kernel answered with less than was asked; whole pages, or units of reads.
    pub(crate) done: usize,
    /// Times the kernel asked to try again.
    pub(crate) retries: u32,
    /// What a gathered write points the kernel to; kept from one use of the slot to the next.
    pub(crate) iovecs: Vec<libc::iovec>,
    pub(crate) outcome: Option<DiskResult<()>>,
    waker: Option<Waker>,
    /// The future was dropped: the outcome is nobody's.
    abandoned: bool,
    free: bool,
}

/// See the file's header.
#[derive(Default)]
pub(crate) struct Slab {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slab {
    /// Takes a slot for `work`.
    pub(crate) fn insert(&mut self, work: Work, offset: u64, len: u64) -> u32 {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            debug_assert!(slot.free, "a slot on the free list is free");
            slot.work = work;
            (slot.offset, slot.len, slot.done, slot.retries) = (offset, len, 0, 0);
            (slot.outcome, slot.waker, slot.abandoned, slot.free) = (None, None, false, false);
            return index;
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 operations are under way");
        let (done, retries, iovecs) = (0, 0, Vec::new());
        let (outcome, waker, abandoned, free) = (None, None, false, false);
        self.slots.push(Slot { work, offset, len, done, retries, iovecs, outcome, waker, abandoned, free });
        index
    }

    /// The operation in slot `index`.
    ///
    /// # Panics
    /// When the slot is free: the kernel or a future named an operation that is over.
    pub(crate) fn get(&mut self, index: u32) -> &mut Slot {
        let slot = &mut self.slots[index as usize];
        assert!(!slot.free, "operation {index} is already over");
        slot
    }

    /// Records the outcome; gives the waker of whoever waits for it.
    pub(crate) fn finish(&mut self, index: u32, outcome: DiskResult<()>) -> Option<Waker> {
        let slot = self.get(index);
        if slot.abandoned {
            self.release(index);
            return None;
        }
        slot.outcome = Some(outcome);
        slot.waker.take()
    }

    /// The outcome with the work it came of, which frees the slot; or leaves `waker` to be woken. A waker that this
    /// replaces goes to `stale`: its drop may run foreign code, which must find the core not borrowed.
    pub(crate) fn take(
        &mut self,
        index: u32,
        waker: &Waker,
        stale: &mut Option<Waker>,
    ) -> Option<(DiskResult<()>, Work)> {
        let slot = self.get(index);
        let Some(outcome) = slot.outcome.take() else {
            if !slot.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
                *stale = slot.waker.replace(waker.clone());
            }
            return None;
        };
        Some((outcome, self.release(index)))
    }

    /// The future of `index` is gone. The waker it left is for the caller to drop, as in [`Self::take`].
    pub(crate) fn abandon(&mut self, index: u32) -> Option<Waker> {
        let slot = self.get(index);
        slot.abandoned = true;
        let stale = slot.waker.take();
        if slot.outcome.is_some() {
            self.release(index);
        }
        stale
    }

    fn release(&mut self, index: u32) -> Work {
        let slot = &mut self.slots[index as usize];
        slot.free = true;
        slot.outcome = None;
        debug_assert!(slot.waker.is_none(), "nobody waits for an operation that is over");
        self.free.push(index);
        std::mem::replace(&mut slot.work, Work::Flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(slab: &Slab) -> usize {
        slab.slots.len() - slab.free.len()
    }

    #[test]
    fn a_slot_is_freed_once_its_outcome_was_taken() {
        let mut slab = Slab::default();
        let index = slab.insert(Work::Read(AlignedBuf::zeroed(1)), 0, 4096);
        let mut stale = None;
        assert!(slab.take(index, Waker::noop(), &mut stale).is_none());
        assert!(slab.finish(index, Ok(())).is_some(), "somebody waits");
        assert_eq!(used(&slab), 1);
        let (outcome, work) = slab.take(index, Waker::noop(), &mut stale).unwrap();
        assert!(outcome.is_ok() && matches!(work, Work::Read(_)));
        assert_eq!(used(&slab), 0);
        assert_eq!(slab.insert(Work::Flush, 0, 0), index, "slots are used again");
    }

    #[test]
    fn an_abandoned_slot_keeps_its_buffers_until_it_has_finished() {
        let mut slab = Slab::default();
        let index = slab.insert(Work::Read(AlignedBuf::zeroed(1)), 0, 4096);
        assert!(slab.abandon(index).is_none());
        assert!(matches!(slab.get(index).work, Work::Read(_)));
        assert!(slab.finish(index, Ok(())).is_none());
        assert_eq!(used(&slab), 0);
        let index = slab.insert(Work::Flush, 0, 0);
        slab.finish(index, Ok(()));
        slab.abandon(index);
        assert_eq!(used(&slab), 0, "abandoned after it had finished");
    }

    #[test]
    #[should_panic(expected = "already over")]
    fn a_completion_for_a_free_slot_is_a_bug() {
        let mut slab = Slab::default();
        let index = slab.insert(Work::Flush, 0, 0);
        slab.abandon(index);
        slab.finish(index, Ok(()));
        slab.finish(index, Ok(()));
    }
}
