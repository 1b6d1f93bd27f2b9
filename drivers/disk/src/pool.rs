//! Memory behind the buffers: blocks, and a short list of large used ones for each thread.
//!
//! A fresh megabyte costs some 240 page faults, several times what filling it costs; a used one costs none
//! (docs/decisions/0008-device-specifics.md). A block goes back to the list of the thread that made it, wherever it is
//! dropped: a device's thread makes the buffers of reads, and the network's threads drop them.
//!
//! Invariants: a block's memory is initialised from its first to its last byte, with zeros or with old bytes; a list
//! holds at most [`KEPT_BYTES_MAX`]; the list of a thread that has ended holds nothing.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::IO_ALIGN;

/// Blocks of fewer bytes are left to the allocator, which keeps used ones itself; what remains is clearing them, about
/// what a list would cost.
pub(crate) const POOLED_BYTES_MIN: usize = 64 * 1024;
/// Blocks of more bytes are not kept, so that one cannot drive out all others.
pub(crate) const POOLED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that one thread's list holds at most: what is free at a moment, not what is in use, so a few buffers of the
/// largest size; a box of 30 devices keeps 240 MiB at the worst.
pub(crate) const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Initialised memory, aligned to [`IO_ALIGN`].
pub(crate) struct Block {
    ptr: NonNull<u8>,
    capacity: usize,
}

// SAFETY: the block owns its memory and has no interior mutability.
#[allow(unsafe_code)]
unsafe impl Send for Block {}
// SAFETY: shared references only read.
#[allow(unsafe_code)]
unsafe impl Sync for Block {}

impl Block {
    /// Fresh zeroed memory of `capacity` bytes, more than none.
    fn zeroed(capacity: usize) -> Self {
        let layout = Self::layout(capacity);
        assert!(capacity > 0, "a block has memory");
        // SAFETY: the layout has a non-zero size.
        #[allow(unsafe_code)]
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr) else { handle_alloc_error(layout) };
        Self { ptr, capacity }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, IO_ALIGN).expect("a buffer is far smaller than isize::MAX")
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `ptr` points to `capacity` initialised bytes that we own.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.ptr.as_ptr(), self.capacity)
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes us the only user.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.capacity)
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout, freed once.
        #[allow(unsafe_code)]
        unsafe {
            dealloc(self.ptr.as_ptr(), Self::layout(self.capacity));
        }
    }
}

/// One thread's list.
pub(crate) struct Pool {
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    /// The longest unused come first, and go first.
    free: Vec<Block>,
    bytes: usize,
    /// The thread has ended: nobody will take anything any more.
    closed: bool,
}

/// The thread's own hold on its list.
struct Home(Arc<Pool>);

impl Drop for Home {
    fn drop(&mut self) {
        let mut list = self.0.lock();
        list.closed = true;
        list.bytes = 0;
        let free = std::mem::take(&mut list.free);
        drop(list);
        drop(free);
    }
}

thread_local! {
    static HOME: Home = Home(Arc::new(Pool { list: Mutex::new(List::default()) }));
}

/// What was come by: whether the memory is known to be zero, and the list it goes back to.
pub(crate) struct Taken {
    pub(crate) block: Block,
    pub(crate) is_zero: bool,
    pub(crate) home: Option<Arc<Pool>>,
}

/// Memory for `len` bytes or somewhat more: used, if this thread's list has some, or else fresh.
pub(crate) fn take(len: usize) -> Taken {
    if !(POOLED_BYTES_MIN..=POOLED_BYTES_MAX).contains(&len) {
        return Taken { block: Block::zeroed(len), is_zero: true, home: None };
    }
    let capacity = capacity_for(len);
    // A thread that is just ending has no list any more.
    let home = HOME.try_with(|home| Arc::clone(&home.0)).ok();
    if let Some(block) = home.as_ref().and_then(|pool| pool.lock().take(capacity)) {
        return Taken { block, is_zero: false, home };
    }
    Taken { block: Block::zeroed(capacity), is_zero: true, home }
}

/// Quarters of the power of two below: few sizes, so that used blocks fit again, at the price of a quarter at most.
fn capacity_for(len: usize) -> usize {
    let step = (1 << len.ilog2()) / 4;
    len.next_multiple_of(step)
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, List> {
        // Nothing under the lock leaves it half done.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a block back, at the price of those longest unused.
    pub(crate) fn give_back(&self, block: Block) {
        let mut list = self.lock();
        // Freed after the lock is.
        let surplus = list.put(block);
        drop(list);
        drop(surplus);
    }
}

impl List {
    fn take(&mut self, capacity: usize) -> Option<Block> {
        let found = self.free.iter().rposition(|block| block.capacity == capacity)?;
        self.bytes -= capacity;
        Some(self.free.remove(found))
    }

    /// Gives the blocks for which there is no room.
    fn put(&mut self, block: Block) -> Vec<Block> {
        if self.closed {
            return vec![block];
        }
        self.bytes += block.capacity;
        self.free.push(block);
        let mut surplus = 0;
        while self.bytes > KEPT_BYTES_MAX {
            self.bytes -= self.free[surplus].capacity;
            surplus += 1;
        }
        self.free.drain(..surplus).collect()
    }
}

#[cfg(test)]
pub(crate) fn kept_bytes() -> usize {
    HOME.with(|home| {
        let list = home.0.lock();
        assert_eq!(list.bytes, list.free.iter().map(|block| block.capacity).sum::<usize>());
        list.bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_are_few_whole_pages_and_at_most_a_quarter_over() {
        let mut sizes = std::collections::BTreeSet::new();
        for len in (POOLED_BYTES_MIN..=POOLED_BYTES_MAX).step_by(512) {
            let capacity = capacity_for(len);
            assert!(capacity >= len && capacity.is_multiple_of(IO_ALIGN) && (capacity - len) * 4 < len, "{len}");
            assert_eq!(capacity_for(capacity), capacity, "a size is its own size");
            sizes.insert(capacity);
        }
        assert_eq!(sizes.len(), 25);
    }

    #[test]
    fn the_longest_unused_make_room_and_the_bound_holds() {
        let mut list = List::default();
        let sizes = [1, 1, 2, 4, 1, 4, 2, 2].map(|mib: usize| mib << 20);
        for size in sizes {
            drop(list.put(Block::zeroed(size)));
            assert!(list.bytes <= KEPT_BYTES_MAX, "{} bytes", list.bytes);
        }
        let kept: Vec<usize> = list.free.iter().map(|block| block.capacity >> 20).collect();
        assert_eq!(kept, [4, 2, 2]);
        assert!(list.take(1 << 20).is_none());
        assert_eq!(list.take(2 << 20).expect("one of two").capacity, 2 << 20);
        assert_eq!(list.bytes, 6 << 20);
        list.closed = true;
        assert_eq!(list.put(Block::zeroed(IO_ALIGN)).len(), 1, "nothing is kept for nobody");
    }
}
