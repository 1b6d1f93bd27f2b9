//! Memory behind the buffers: blocks, and a short list of large used ones for each thread.
//!
//! A fresh megabyte costs some 240 page faults, several times what filling it costs; a used one costs none. A transfer
//! to or from huge pages takes a third less time than one of scattered small pages, and a fraction of the CPU (both:
//! docs/decisions/0008-device-specifics.md). So large blocks are pieces of chunks of huge pages, where the kernel
//! gives them (`transparent_hugepage` other than `never`); elsewhere the same memory is of small ones. A block goes back to the list of the thread that made it, wherever it is
//! dropped: a device's thread makes the buffers of reads, and the network's threads drop them.
//!
//! Invariants: a block's memory is initialised from its first to its last byte, with zeros or with old bytes; a list
//! holds at most [`KEPT_BYTES_MAX`]; the list of a thread that has ended holds nothing; a chunk is unmapped when the last
//! of its blocks was dropped, so a block in use may hold two or three of its size back.

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

/// Blocks of as many bytes or more are pieces of chunks; of smaller ones a chunk would be too many at once.
const CHUNKED_BYTES_MIN: usize = 256 * 1024;
/// The huge page of x86-64 and of ARM with 4 KiB pages.
const HUGE_BYTES: usize = 2 * 1024 * 1024;
/// Huge pages in a chunk at most; with as many, no size of block leaves more than a fifth of its chunk unused.
const CHUNK_PAGES_MAX: usize = 3;

/// Initialised memory, aligned to [`IO_ALIGN`].
pub(crate) struct Block {
    ptr: NonNull<u8>,
    capacity: usize,
    is_zero: bool,
    /// What the memory is a piece of; none when it came from the allocator.
    chunk: Option<Arc<Chunk>>,
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
        Self { ptr, capacity, is_zero: true, chunk: None }
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
        if self.chunk.is_some() {
            return;
        }
        // SAFETY: allocated in `zeroed` with this very layout, freed once.
        #[allow(unsafe_code)]
        unsafe {
            dealloc(self.ptr.as_ptr(), Self::layout(self.capacity));
        }
    }
}

/// A mapping of whole huge pages, aligned to them. Its blocks own its bytes, each byte one block.
struct Chunk {
    ptr: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the chunk itself touches no byte of its memory.
#[allow(unsafe_code)]
unsafe impl Send for Chunk {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Chunk {}

impl Chunk {
    /// Fresh zeroed memory; none when the system has no more.
    fn map(bytes: usize) -> Option<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping that nothing else knows of; what is unmapped again are its two ends, outside the
        // piece that is kept.
        #[allow(unsafe_code)]
        unsafe {
            let mapped = libc::mmap(std::ptr::null_mut(), bytes + HUGE_BYTES, protection, flags, -1, 0);
            if mapped == libc::MAP_FAILED {
                return None;
            }
            let mapped = mapped.cast::<u8>();
            let lead = mapped.align_offset(HUGE_BYTES);
            let start = mapped.add(lead);
            if lead > 0 {
                libc::munmap(mapped.cast(), lead);
            }
            libc::munmap(start.add(bytes).cast(), HUGE_BYTES - lead);
            // Without huge pages the memory serves as well.
            libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
            Some(Self { ptr: NonNull::new_unchecked(start), bytes })
        }
    }

    /// As many blocks of `capacity` bytes as fit a fresh chunk.
    fn cut(capacity: usize) -> Option<Vec<Block>> {
        let chunk = Arc::new(Self::map(chunk_bytes_for(capacity))?);
        let piece = |i: usize| {
            // SAFETY: the piece lies inside the chunk, beside all others.
            #[allow(unsafe_code)]
            let ptr = unsafe { chunk.ptr.add(i * capacity) };
            Block { ptr, capacity, is_zero: true, chunk: Some(Arc::clone(&chunk)) }
        };
        Some((0..chunk.bytes / capacity).map(piece).collect())
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`, whole; no block is left.
        #[allow(unsafe_code)]
        unsafe {
            libc::munmap(self.ptr.as_ptr().cast(), self.bytes);
        }
    }
}

/// The fewest huge pages of which blocks of `capacity` bytes leave no more than a fifth.
fn chunk_bytes_for(capacity: usize) -> usize {
    let fits = |bytes: &usize| bytes / capacity > 0 && bytes % capacity * 5 <= *bytes;
    (1..=CHUNK_PAGES_MAX).map(|pages| pages * HUGE_BYTES).find(fits).expect("three pages fit every size")
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
        return Taken { is_zero: block.is_zero, block, home };
    }
    let cut = if capacity >= CHUNKED_BYTES_MIN { Chunk::cut(capacity) } else { None };
    let mut blocks = cut.unwrap_or_default();
    let block = blocks.pop().unwrap_or_else(|| Block::zeroed(capacity));
    if let Some(pool) = &home {
        blocks.into_iter().for_each(|block| pool.keep(block));
    }
    Taken { block, is_zero: true, home }
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

    /// Takes a used block back.
    pub(crate) fn give_back(&self, mut block: Block) {
        block.is_zero = false;
        self.keep(block);
    }

    /// Keeps a block, at the price of those longest unused.
    fn keep(&self, block: Block) {
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
    fn chunks_are_used_up_but_for_a_fifth_and_their_blocks_keep_apart() {
        for step in (POOLED_BYTES_MIN..=POOLED_BYTES_MAX).step_by(IO_ALIGN) {
            let capacity = capacity_for(step);
            let bytes = chunk_bytes_for(capacity);
            assert!(bytes / capacity * capacity * 5 >= bytes * 4, "{capacity} of {bytes}");
        }
        for capacity in [CHUNKED_BYTES_MIN, 5 << 18, 3 << 20, POOLED_BYTES_MAX] {
            let mut blocks = Chunk::cut(capacity).expect("memory");
            assert_eq!(blocks.len(), chunk_bytes_for(capacity) / capacity);
            assert!(blocks.iter().all(|block| block.ptr.as_ptr().align_offset(IO_ALIGN) == 0));
            for (i, block) in blocks.iter_mut().enumerate() {
                assert!(block.bytes().iter().all(|b| *b == 0), "fresh");
                block.bytes_mut().fill(i as u8 + 1);
            }
            // Each outlives its neighbours.
            for i in (0..blocks.len()).rev() {
                let block = blocks.remove(i);
                blocks.iter().for_each(|other| assert!(other.bytes().iter().all(|b| *b != i as u8 + 1)));
                assert!(block.bytes().iter().all(|b| *b == i as u8 + 1));
            }
        }
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
