//! Buffers that carry their alignment in their type and travel by ownership.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use bytes::Bytes;

use crate::pool::{self, Block, Pool, Taken};

/// Alignment in bytes of every buffer, and of every write and discard: fits 512- and 4096-byte sectors.
pub const IO_ALIGN: usize = 4096;

/// The finest grain of reads, in bytes; [`crate::DeviceFacts::read_align_bytes`] says what one device takes.
pub const READ_ALIGN_MIN: usize = 512;

/// An owned buffer that starts at a multiple of [`IO_ALIGN`]. Its length is a multiple of that too, unless it was made
/// to be read into: then of [`READ_ALIGN_MIN`].
pub struct AlignedBuf {
    /// Present until the drop.
    block: Option<Block>,
    len: usize,
    /// Where the memory goes back to.
    home: Option<Arc<Pool>>,
}

impl AlignedBuf {
    /// A zeroed buffer of `len` bytes, rounded up to [`IO_ALIGN`]; at least one unit long.
    ///
    /// # Panics
    /// When `len` is near `isize::MAX`.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let (mut buf, is_zero) = Self::take(len.max(1).next_multiple_of(IO_ALIGN));
        if !is_zero {
            buf.fill(0);
        }
        buf
    }

    /// A buffer for a read of `len` bytes, rounded up to [`READ_ALIGN_MIN`]; at least one unit long. What it holds
    /// before the read is unspecified, and may be what an earlier buffer held: it is for devices to fill.
    ///
    /// # Panics
    /// When `len` is near `isize::MAX`.
    #[must_use]
    pub fn for_read(len: usize) -> Self {
        let (mut buf, _) = Self::take(len.max(1).next_multiple_of(READ_ALIGN_MIN));
        // Whoever counts on zeros is found out in tests, and on nothing at random.
        if cfg!(debug_assertions) {
            buf.fill(0xa5);
        }
        buf
    }

    /// A buffer that starts with `bytes` and is zero after them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (mut buf, is_zero) = Self::take(bytes.len().max(1).next_multiple_of(IO_ALIGN));
        let (head, tail) = buf.split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        if !is_zero {
            tail.fill(0);
        }
        buf
    }

    /// A buffer of `len` bytes, and whether they are known to be zero.
    fn take(len: usize) -> (Self, bool) {
        let Taken { block, is_zero, home } = pool::take(len);
        debug_assert!(len <= block.bytes().len());
        (Self { block: Some(block), len, home }, is_zero)
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
        if let (Some(home), Some(block)) = (&self.home, self.block.take()) {
            home.give_back(block);
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block.as_ref().expect("present until the drop").bytes()[..self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.block.as_mut().expect("present until the drop").bytes_mut()[..self.len]
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
    use crate::pool::{KEPT_BYTES_MAX, POOLED_BYTES_MAX, POOLED_BYTES_MIN};

    const MIB: usize = 1 << 20;

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
    fn a_used_buffer_comes_back_to_its_maker_and_is_cleared_unless_read_into() {
        std::thread::spawn(|| {
            let mut buf = AlignedBuf::zeroed(MIB + 1);
            // The rest of its chunk.
            let others = pool::kept_bytes();
            let whole = others + MIB + MIB / 4;
            buf.fill(7);
            let place = buf.as_ptr() as usize;
            let (start, len) = (buf.freeze().slice(IO_ALIGN..2 * IO_ALIGN), MIB + IO_ALIGN);
            std::thread::spawn(move || drop(start)).join().unwrap();
            assert_eq!(pool::kept_bytes(), whole, "dropped elsewhere, kept here");
            let buf = AlignedBuf::for_read(MIB + 513);
            assert_eq!((buf.as_ptr() as usize, buf.len()), (place, MIB + 1024), "used again");
            assert!(buf.iter().all(|b| *b == buf[0]), "old bytes alone, or those that show up in tests");
            drop(buf);
            // Longer than what was filled last, in the same memory.
            let buf = AlignedBuf::zeroed(MIB + MIB / 4);
            assert!(buf.as_ptr() as usize == place && buf.len() > len && buf.iter().all(|b| *b == 0));
            drop(buf);
            let buf = AlignedBuf::from_bytes(&vec![9; MIB + 5]);
            assert!(buf.as_ptr() as usize == place && buf[..MIB + 5].iter().all(|b| *b == 9));
            assert!(buf.len() == len && buf[MIB + 5..].iter().all(|b| *b == 0), "zero after the bytes");
            assert_eq!(pool::kept_bytes(), others, "in use");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn small_and_huge_buffers_are_not_kept_and_the_rest_is_bounded() {
        std::thread::spawn(|| {
            for len in [IO_ALIGN, POOLED_BYTES_MIN - 512, POOLED_BYTES_MAX + 512] {
                drop(AlignedBuf::for_read(len));
                assert_eq!(pool::kept_bytes(), 0, "{len}");
            }
            drop((0..40).map(|i| AlignedBuf::for_read(MIB + i * 8 * IO_ALIGN)).collect::<Vec<_>>());
            let kept = pool::kept_bytes();
            assert!(kept <= KEPT_BYTES_MAX && kept > KEPT_BYTES_MAX - 2 * MIB, "{kept}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_buffer_may_outlive_its_thread_and_be_dropped_while_threads_end() {
        let late = std::thread::spawn(|| AlignedBuf::from_bytes(&[5; MIB])).join().unwrap();
        assert!(late.iter().all(|b| *b == 5));
        drop(late);
        let (sender, receiver) = std::sync::mpsc::sync_channel(4);
        let makers: Vec<_> = (0..4u8)
            .map(|maker| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for _ in 0..50 {
                        let mut buf = AlignedBuf::zeroed(POOLED_BYTES_MIN);
                        assert!(buf.iter().all(|b| *b == 0));
                        buf.fill(maker);
                        sender.send((maker, buf)).unwrap();
                    }
                })
            })
            .collect();
        drop(sender);
        let seen = receiver.into_iter().filter(|(maker, buf)| buf.iter().all(|b| b == maker)).count();
        makers.into_iter().for_each(|maker| maker.join().unwrap());
        assert_eq!(seen, 200, "no two buffers share memory");
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
