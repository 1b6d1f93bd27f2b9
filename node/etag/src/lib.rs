//! The MD5 that S3 wants of every object, computed for all uploads under way together.
//!
//! MD5 is the dearest thing on the path of a put, and it cannot be made faster for one message; but
//! sixteen messages in vector lanes take as long as one (see `md5lanes`). So an upload does not hash what
//! it is given at once. It leaves the chunk waiting, and hashes when it brings the next: then it takes
//! along, at no cost of its own, whatever the others have left waiting. A lone upload hashes its
//! own chunks and loses nothing. There is no thread, no timer and no queue to be tuned; the busier the
//! node, the fuller the lanes.
//!
//! Invariants:
//! - an upload holds at most one chunk waiting, so memory is bounded by uploads times chunk length;
//! - a call works no longer than the caller's own chunk takes alone, whatever the others have;
//! - a chunk is hashed by one thread at a time, and an upload's chunks in order.
//!
//! Left out on purpose: what an ETag looks like. That is the object layer's.
#![forbid(unsafe_code)]

mod pool;

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use md5lanes::{BLOCK_BYTES, Kernel, State};

use pool::{Pool, Slot, Work};

/// The uploads that hash together: one for a process.
#[derive(Clone)]
pub struct Md5Lanes {
    pool: Arc<Pool>,
}

impl Md5Lanes {
    /// For the best instructions of this machine.
    #[must_use]
    pub fn new() -> Self {
        Self::with_kernel(Kernel::best())
    }

    /// For these instructions. Panics when this machine does not have them.
    #[must_use]
    pub fn with_kernel(kernel: Kernel) -> Self {
        assert!(kernel.is_available(), "{kernel:?} is not available here");
        Self { pool: Arc::new(Pool::new(kernel)) }
    }

    /// Begins the MD5 of one upload.
    #[must_use]
    pub fn start(&self) -> Md5Stream {
        Md5Stream {
            slot: self.pool.open(),
            pool: Arc::clone(&self.pool),
            partial: [0; BLOCK_BYTES],
            partial_len: 0,
            total_len: 0,
        }
    }

    /// Figures since the start, for the metrics page.
    #[must_use]
    pub fn stats(&self) -> Md5Stats {
        self.pool.stats()
    }
}

impl Default for Md5Lanes {
    fn default() -> Self {
        Self::new()
    }
}

/// How well the lanes are used: `lane_blocks / steps` is their mean filling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Md5Stats {
    /// Steps of the machinery: each hashes one block of every lane in use.
    pub steps: u64,
    /// Blocks of 64 bytes hashed.
    pub lane_blocks: u64,
}

/// The MD5 of one upload, fed in order. Dropping it abandons the upload.
pub struct Md5Stream {
    pool: Arc<Pool>,
    slot: Slot,
    /// The last bytes, fewer than a block.
    partial: [u8; BLOCK_BYTES],
    partial_len: usize,
    /// Bytes fed.
    total_len: u64,
}

impl Md5Stream {
    /// Appends `data`. The chunk is kept until the next call, so a slice of a larger buffer keeps that
    /// buffer alive. Chunks of 64 KiB to 1 MiB are best: a call may hash on the caller's thread for
    /// as long as one chunk takes alone, about 1.5 ms a MiB.
    ///
    /// A future that is dropped before it is ready has appended nothing.
    pub async fn update(&mut self, data: Bytes) {
        self.settle().await;
        self.append(data);
    }

    /// The digest of all that was appended.
    pub async fn finish(mut self) -> [u8; 16] {
        self.settle().await;
        let state = self.pool.state(&self.slot);
        self.pad(state)
    }

    /// Makes sure that nothing of this upload is waiting or under way.
    async fn settle(&mut self) {
        poll_fn(|context| self.pool.poll_settled(&self.slot, context)).await;
    }

    /// Leaves the whole blocks of what has come waiting, and keeps the rest.
    fn append(&mut self, mut data: Bytes) {
        self.total_len = self.total_len.wrapping_add(data.len() as u64);
        let mut head = None;
        if self.partial_len > 0 {
            let taken = data.split_to(data.len().min(BLOCK_BYTES - self.partial_len));
            self.partial[self.partial_len..][..taken.len()].copy_from_slice(&taken);
            self.partial_len += taken.len();
            if self.partial_len < BLOCK_BYTES {
                return;
            }
            head = Some(self.partial);
        }
        let rest = data.split_off(data.len() - data.len() % BLOCK_BYTES);
        self.partial[..rest.len()].copy_from_slice(&rest);
        self.partial_len = rest.len();
        self.pool.submit(&self.slot, Work { head, body: data });
    }

    /// The last one or two blocks (RFC 1321, 3.1 to 3.3).
    fn pad(&self, state: State) -> [u8; 16] {
        let mut last = [0u8; 2 * BLOCK_BYTES];
        last[..self.partial_len].copy_from_slice(&self.partial[..self.partial_len]);
        last[self.partial_len] = 0x80;
        let blocks = if self.partial_len < BLOCK_BYTES - 8 { 1 } else { 2 };
        let end = blocks * BLOCK_BYTES;
        let bits = self.total_len.wrapping_mul(8);
        last[end - 8..end].copy_from_slice(&bits.to_le_bytes());
        let mut states = [state];
        Kernel::Scalar.compress(&mut states, &[&last[..end]]);
        let mut digest = [0u8; 16];
        for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(states[0]) {
            *bytes = word.to_le_bytes();
        }
        digest
    }
}

impl Drop for Md5Stream {
    fn drop(&mut self) {
        self.pool.close(&self.slot);
    }
}
