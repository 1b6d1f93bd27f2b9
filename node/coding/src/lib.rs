//! Erasure coding: systematic Reed-Solomon, `k` data shards and `m` parity shards, any `k` of which
//! give back the rest.
//!
//! Pure: no I/O, no clock, no randomness. The encoding matrix is part of the on-disk format (see
//! [`Code::new`]) and never changes: golden tests hold its bytes.
//!
//! Left out on purpose: checksums. A shard that was altered decodes to garbage without an error;
//! whoever reads a shard verifies it before it comes here.
#![forbid(unsafe_code)]

mod cache;
mod error;
mod matrix;

use std::sync::Arc;

use gf::Product;

pub use error::CodingError;

/// The most shards, data and parity together, of one stripe. A set of slots fits 64 bits, and a
/// group wider than this would need more fault domains than a rack has.
pub const SHARDS_MAX: usize = 64;

/// Shards are a multiple of this many bytes: whole vector registers, whole cache lines.
pub const SHARD_ALIGN_BYTES: usize = 64;

/// A `k + m` code. Clones share the prepared matrices; all methods take `&self` from any thread.
///
/// Slots `0..k` are the data shards, slots `k..k + m` the parity shards.
#[derive(Clone)]
pub struct Code {
    inner: Arc<Inner>,
}

struct Inner {
    k: usize,
    m: usize,
    /// The `m` parity rows, prepared.
    encoder: Product,
    decoders: cache::Decoders,
}

impl Code {
    /// A code of `k` data and `m` parity shards.
    ///
    /// # The matrix (on-disk format)
    /// The field is GF(2^8) with polynomial `0x11d`. Data shard `c` is stored as it is. Parity shard `r`
    /// (slot `k + r`) is the sum over `c` in `0..k` of `data[c] / ((k + r) xor c)`, byte by byte: a
    /// Cauchy matrix under an identity matrix. Every square submatrix of a Cauchy matrix is
    /// invertible, so any `k` slots suffice (J. Bloemer et al., "An XOR-Based Erasure-Resilient
    /// Coding Scheme", 1995).
    ///
    /// # Errors
    /// [`CodingError::Geometry`] when `k` is zero or `k + m` is above [`SHARDS_MAX`].
    pub fn new(k: usize, m: usize) -> Result<Self, CodingError> {
        let fits = k.checked_add(m).is_some_and(|total| total <= SHARDS_MAX);
        if k == 0 || !fits {
            return Err(CodingError::Geometry { k, m });
        }
        let parity = matrix::parity_rows(k, m);
        let inner = Inner { k, m, encoder: Product::new(m, k, &parity), decoders: cache::Decoders::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Data shards.
    #[must_use]
    pub fn k(&self) -> usize {
        self.inner.k
    }

    /// Parity shards: how many may be lost.
    #[must_use]
    pub fn m(&self) -> usize {
        self.inner.m
    }

    /// Data and parity shards together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.inner.k + self.inner.m
    }

    /// Bytes a shard of a stripe that holds `data_len` bytes: the k-th part, rounded up to
    /// [`SHARD_ALIGN_BYTES`]. Shard `i` holds bytes `i * shard_len .. (i + 1) * shard_len` of the data,
    /// zeros after its end. Zero for no data.
    #[must_use]
    pub fn shard_len(&self, data_len: usize) -> usize {
        let blocks = data_len.div_ceil(self.inner.k).div_ceil(SHARD_ALIGN_BYTES);
        blocks.saturating_mul(SHARD_ALIGN_BYTES)
    }

    /// Computes the `m` parity shards of the `k` data shards, overwriting `parity`.
    ///
    /// # Errors
    /// [`CodingError::ShardCount`] and [`CodingError::ShardLength`] when the slices do not fit the code.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), CodingError> {
        expect_count(self.inner.k, data.len())?;
        expect_count(self.inner.m, parity.len())?;
        let len = data[0].len();
        expect_lengths(len, data.iter().map(|shard| shard.len()))?;
        expect_lengths(len, parity.iter().map(|shard| shard.len()))?;
        self.inner.encoder.apply(data, parity);
        Ok(())
    }

    /// Computes the shards of the slots in `want` (data or parity, in any order) from exactly `k`
    /// shards of distinct slots (in any order), overwriting the buffers in `want`.
    ///
    /// # Errors
    /// A [`CodingError`] when a slot is out of range or appears twice in one list, when there are
    /// not exactly `k` shards, or when lengths differ. The buffers are then untouched.
    pub fn reconstruct(&self, present: &[(usize, &[u8])], want: &mut [(usize, &mut [u8])]) -> Result<(), CodingError> {
        expect_count(self.inner.k, present.len())?;
        let len = present[0].1.len();
        expect_lengths(len, present.iter().map(|(_, shard)| shard.len()))?;
        expect_lengths(len, want.iter().map(|(_, shard)| shard.len()))?;
        let present_slots = self.slot_set(present.iter().map(|(slot, _)| *slot))?;
        let want_slots = self.slot_set(want.iter().map(|(slot, _)| *slot))?;
        if want.is_empty() {
            return Ok(());
        }

        let decoder = self.inner.decoders.get(present_slots, want_slots, || {
            matrix::decoder(self.inner.k, &slots(present_slots), &slots(want_slots))
        });
        let mut inputs = present.to_vec();
        inputs.sort_unstable_by_key(|(slot, _)| *slot);
        let inputs: Vec<&[u8]> = inputs.into_iter().map(|(_, shard)| shard).collect();
        let mut outputs: Vec<(usize, &mut [u8])> = want.iter_mut().map(|(slot, shard)| (*slot, &mut **shard)).collect();
        outputs.sort_unstable_by_key(|(slot, _)| *slot);
        let mut outputs: Vec<&mut [u8]> = outputs.into_iter().map(|(_, shard)| shard).collect();
        decoder.apply(&inputs, &mut outputs);
        Ok(())
    }

    /// The slots as a bit set, each checked.
    fn slot_set(&self, slots: impl Iterator<Item = usize>) -> Result<u64, CodingError> {
        let total = self.total();
        let mut set = 0u64;
        for slot in slots {
            if slot >= total {
                return Err(CodingError::NoSuchSlot { slot, total });
            }
            let bit = 1 << slot;
            if set & bit != 0 {
                return Err(CodingError::SlotTwice { slot });
            }
            set |= bit;
        }
        Ok(set)
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Code({}+{})", self.inner.k, self.inner.m)
    }
}

/// The members of a bit set, ascending.
fn slots(set: u64) -> Vec<usize> {
    (0..SHARDS_MAX).filter(|slot| set >> slot & 1 == 1).collect()
}

fn expect_count(expected: usize, found: usize) -> Result<(), CodingError> {
    if expected == found { Ok(()) } else { Err(CodingError::ShardCount { expected, found }) }
}

fn expect_lengths(expected: usize, mut lengths: impl Iterator<Item = usize>) -> Result<(), CodingError> {
    match lengths.find(|found| *found != expected) {
        None => Ok(()),
        Some(found) => Err(CodingError::ShardLength { expected, found }),
    }
}
