//! Buffers that carry their alignment in their type and travel by ownership.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;

/// Alignment in bytes of every buffer, and of every write and discard: fits 512- and 4096-byte sectors.
pub const IO_ALIGN: usize = 4096;

/// The finest grain of reads, in bytes; [`crate::DeviceFacts::read_align_bytes`] says what one device takes.
pub const READ_ALIGN_MIN: usize = 512;

/// An owned buffer that starts at a multiple of [`IO_ALIGN`]. Its length is a multiple of that too, unless it was made
/// to be read into: then of [`READ_ALIGN_MIN`].
pub struct AlignedBuf {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer owns its memory and has no interior mutability.
#[allow(unsafe_code)]
unsafe impl Send for AlignedBuf {}
// SAFETY: shared references only read.
#[allow(unsafe_code)]
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A zeroed buffer of `len` bytes, rounded up to [`IO_ALIGN`]; at least one unit long.
    ///
    /// # Panics
    /// When `len` is near `isize::MAX`.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self::allocate(len.max(1).next_multiple_of(IO_ALIGN))
    }

    /// A buffer for a read of `len` bytes, rounded up to [`READ_ALIGN_MIN`]; at least one unit long. What it holds
    /// before the read says nothing.
    ///
    /// # Panics
    /// When `len` is near `isize::MAX`.
    #[must_use]
    pub fn for_read(len: usize) -> Self {
        Self::allocate(len.max(1).next_multiple_of(READ_ALIGN_MIN))
    }

    fn allocate(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout has a non-zero size.
        #[allow(unsafe_code)]
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr) else { handle_alloc_error(layout) };
        Self { ptr, len }
    }

    /// A buffer that starts with `bytes` and is zero after them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len());
        buf[..bytes.len()].copy_from_slice(bytes);
        buf
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, IO_ALIGN).expect("a buffer is far smaller than isize::MAX")
    }

    /// Gives up the right to change the buffer; the result is shared cheaply.
    #[must_use]
    pub fn freeze(self) -> AlignedBytes {
        let len = self.len;
        AlignedBytes { buf: Arc::new(self), start: 0, len }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `allocate` with this very layout, freed once.
        #[allow(unsafe_code)]
        unsafe {
            dealloc(self.ptr.as_ptr(), Self::layout(self.len));
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `ptr` points to `len` initialised bytes that we own.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.ptr.as_ptr(), self.len)
        }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes us the only user.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len)
        }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len)
    }
}

/// A shared, immutable piece of an [`AlignedBuf`]; it starts at a multiple of [`IO_ALIGN`], and its length is one, too,
/// unless it is the whole of a buffer that was made to be read into.
#[derive(Clone)]
pub struct AlignedBytes {
    buf: Arc<AlignedBuf>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// A piece of this piece.
    ///
    /// # Panics
    /// When the range is not aligned or lies outside.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} lies outside {} bytes", self.len);
        assert!(range.start.is_multiple_of(IO_ALIGN) && range.end.is_multiple_of(IO_ALIGN), "{range:?} is not aligned");
        Self { buf: Arc::clone(&self.buf), start: self.start + range.start, len: range.end - range.start }
    }

    /// Any range of the piece, as ordinary shared bytes, without copying.
    ///
    /// # Panics
    /// When the range lies outside.
    #[must_use]
    pub fn to_bytes(&self, range: Range<usize>) -> Bytes {
        Bytes::from_owner(self.clone()).slice(range)
    }

    /// The buffer itself, when this is its only piece and covers it whole.
    #[must_use]
    pub fn try_into_mut(self) -> Option<AlignedBuf> {
        Arc::try_unwrap(self.buf).ok()
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buf[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBytes({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_and_rounded_up() {
        for (asked, got) in [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192)] {
            let buf = AlignedBuf::zeroed(asked);
            assert_eq!(buf.len(), got);
            assert_eq!(buf.as_ptr() as usize % IO_ALIGN, 0);
            assert!(buf.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn buffers_for_reads_are_aligned_and_rounded_to_sectors() {
        for (asked, got) in [(0, 512), (1, 512), (512, 512), (513, 1024), (4096, 4096), (4097, 4608)] {
            let buf = AlignedBuf::for_read(asked);
            assert_eq!(buf.len(), got);
            assert_eq!(buf.as_ptr() as usize % IO_ALIGN, 0);
            assert_eq!(buf.freeze().try_into_mut().expect("the only piece").len(), got);
        }
    }

    #[test]
    fn pieces_share_one_buffer() {
        let mut buf = AlignedBuf::zeroed(3 * IO_ALIGN);
        buf[IO_ALIGN] = 7;
        let whole = buf.freeze();
        let piece = whole.slice(IO_ALIGN..2 * IO_ALIGN);
        assert_eq!(piece[0], 7);
        assert_eq!(&whole.to_bytes(IO_ALIGN..IO_ALIGN + 1)[..], &[7]);
        drop(whole);
        assert_eq!(piece.len(), IO_ALIGN);
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn an_unaligned_piece_is_refused() {
        let _ = AlignedBuf::zeroed(IO_ALIGN).freeze().slice(1..IO_ALIGN);
    }
}
