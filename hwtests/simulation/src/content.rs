//! What is stored: every value is unique, and any stretch of it can be told from any other value's.
//!
//! A value is a number and a length; its bytes follow from both. Values of a length below 8 may agree by chance
//! (all empty ones do), so what was read is compared with every value its key ever had, never parsed.

use std::ops::Range;

use bytes::Bytes;
use disk::AlignedBuf;
use format::RecordLayout;
use shards::Payload;

/// One value: what a put stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// Unique in its run.
    pub id: u64,
    /// Payload bytes.
    pub len: u32,
}

/// What a key holds: a value, or nothing.
pub type Held = Option<Value>;

impl Value {
    /// Bytes `range` of the payload.
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        let mut out = Vec::with_capacity(range.len() + 16);
        let first = range.start / 8;
        for index in first..range.end.div_ceil(8) {
            out.extend_from_slice(&word(self.id, index as u64).to_le_bytes());
        }
        out.drain(..range.start - first * 8);
        out.truncate(range.len());
        out
    }

    /// Whether `got` is what a read of `range` (end cut to the length) gives for this value.
    #[must_use]
    pub fn reads_as(&self, range: &Range<u32>, got: &[u8]) -> bool {
        let (start, end) = (range.start.min(self.len) as usize, range.end.min(self.len) as usize);
        if got.len() != end.saturating_sub(start) {
            return false;
        }
        // The first bytes tell nearly every other value apart; only a match is compared whole.
        let lead = got.len().min(16);
        got[..lead] == self.bytes(start..start + lead) && got[lead..] == self.bytes(start + lead..end)
    }

    /// What lies beside the payload: the number, padded for some values to the corners of the format.
    #[must_use]
    pub fn descriptor(&self) -> Bytes {
        let len = match self.id % 31 {
            7 => format::DESCRIPTOR_MAX_BYTES,
            11 => 377,
            _ => 8,
        };
        let mut bytes = self.id.to_le_bytes().to_vec();
        bytes.resize(len, 0xd5);
        bytes.into()
    }

    /// Bytes that its record takes on the device.
    #[must_use]
    pub fn record_bytes(&self, journal: bool) -> usize {
        let descriptor = if journal { 0 } else { self.descriptor().len() };
        RecordLayout::new(descriptor, self.len as usize).record_bytes
    }

    /// The payload, in one of the forms that the store takes.
    #[must_use]
    pub fn payload(&self) -> Payload {
        let len = self.len as usize;
        let bytes = self.bytes(0..len);
        match self.id % 4 {
            0 if len > 0 => Payload::Aligned { bytes: AlignedBuf::from_bytes(&bytes).freeze(), len },
            1 => {
                let bytes = Bytes::from(bytes);
                let cut = len / 3;
                Payload::Parts(vec![bytes.slice(..cut), bytes.slice(cut..)])
            }
            _ => Payload::Parts(vec![bytes.into()]),
        }
    }
}

/// SplitMix64's output function over the value's own sequence: a bijection of `id` for each `index`.
fn word(id: u64, index: u64) -> u64 {
    let mut z = id.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_piece_of_the_whole_and_nobody_elses() {
        let (value, other) = (Value { id: 5, len: 100 }, Value { id: 6, len: 100 });
        let whole = value.bytes(0..100);
        for range in [0..0, 0..1, 3..11, 8..16, 7..100, 99..100] {
            let piece = value.bytes(range.clone());
            assert_eq!(piece, whole[range.clone()]);
            let asked = range.start as u32..range.end as u32;
            assert!(value.reads_as(&asked, &piece));
            assert!(range.len() < 8 || !other.reads_as(&asked, &piece));
        }
        assert!(value.reads_as(&(0..u32::MAX), &whole) && !value.reads_as(&(0..u32::MAX), &whole[..99]));
        assert!(value.reads_as(&(200..300), &[]));
        let mut mixed = whole.clone();
        mixed[90] ^= 1;
        assert!(!value.reads_as(&(0..100), &mixed));
    }
}
