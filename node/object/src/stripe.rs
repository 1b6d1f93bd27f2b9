//! One stripe in memory: filled from a body, encoded, checked by the inverse.
//!
//! All shards lie in one aligned buffer, each at a multiple of the device's unit, so that they are
//! written to the devices from where they are. The data's checksum is taken as it comes in at the door;
//! after encoding, the data is computed back from k shards (a changing choice, parity included) and
//! compared: what memory or a processor got wrong on the way is found before the ack.

use coding::Code;
use disk::{AlignedBuf, AlignedBytes, IO_ALIGN};

/// A stripe being filled.
pub(crate) struct StripeBuf {
    buf: AlignedBuf,
    shard_len: usize,
    stride: usize,
    capacity: usize,
    len: usize,
    door: crc32fast::Hasher,
}

/// A stripe ready to be written.
pub(crate) struct EncodedStripe {
    bytes: AlignedBytes,
    pub(crate) shard_len: usize,
    stride: usize,
    pub(crate) data_len: usize,
}

/// The shards do not give back what came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mismatch;

/// Bytes of memory that a stripe of so many data bytes takes.
pub(crate) fn memory_bytes(code: &Code, data_len: usize) -> usize {
    code.shard_len(data_len).next_multiple_of(IO_ALIGN).max(IO_ALIGN) * code.total()
}

impl StripeBuf {
    /// A stripe for exactly `capacity` data bytes; it may end up with fewer. `spare` is a used buffer.
    pub(crate) fn new(code: &Code, capacity: usize, spare: Option<AlignedBuf>) -> Self {
        assert!(capacity > 0, "an empty stripe is never written");
        let shard_len = code.shard_len(capacity);
        let stride = shard_len.next_multiple_of(IO_ALIGN);
        let wanted = stride * code.total();
        let buf = match spare {
            Some(mut buf) if buf.len() == wanted => {
                // A used buffer holds old bytes: what padding there is must be zero again.
                if shard_len != stride || shard_len * code.k() != capacity {
                    buf.fill(0);
                }
                buf
            }
            _ => AlignedBuf::zeroed(wanted),
        };
        Self { buf, shard_len, stride, capacity, len: 0, door: crc32fast::Hasher::new() }
    }

    pub(crate) fn room(&self) -> usize {
        self.capacity - self.len
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends bytes, at most [`Self::room`] of them.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        assert!(bytes.len() <= self.room());
        self.door.update(bytes);
        while !bytes.is_empty() {
            let (shard, at) = (self.len / self.shard_len, self.len % self.shard_len);
            let take = bytes.len().min(self.shard_len - at);
            let start = shard * self.stride + at;
            self.buf[start..start + take].copy_from_slice(&bytes[..take]);
            self.len += take;
            bytes = &bytes[take..];
        }
    }

    /// The same data laid out for its true length, when fewer bytes came than were expected.
    fn fitted(self, code: &Code) -> Self {
        if self.len == self.capacity {
            return self;
        }
        let mut fitted = Self::new(code, self.len, None);
        let mut left = self.len;
        for shard in 0..code.k() {
            let take = left.min(self.shard_len);
            fitted.push(&self.buf[shard * self.stride..][..take]);
            left -= take;
        }
        fitted
    }

    /// Computes the parity and checks everything by the inverse; `choice` picks the shards to decode from.
    pub(crate) fn encode(self, code: &Code, choice: u64) -> Result<EncodedStripe, Mismatch> {
        let door = self.door.clone().finalize();
        let mut this = self.fitted(code);
        let (k, stride, shard_len) = (code.k(), this.stride, this.shard_len);
        let (data, parity) = this.buf.split_at_mut(k * stride);
        let data: Vec<&[u8]> = data.chunks(stride).map(|shard| &shard[..shard_len]).collect();
        let mut parity: Vec<&mut [u8]> = parity.chunks_mut(stride).map(|shard| &mut shard[..shard_len]).collect();
        code.encode(&data, &mut parity).map_err(|_| Mismatch)?;
        let stripe = EncodedStripe { bytes: this.buf.freeze(), shard_len, stride, data_len: this.len };
        if stripe.decoded_crc(code, choice)? == door { Ok(stripe) } else { Err(Mismatch) }
    }
}

impl EncodedStripe {
    /// The shard in `slot`, with its padding.
    pub(crate) fn shard(&self, slot: usize) -> AlignedBytes {
        self.bytes.slice(slot * self.stride..(slot + 1) * self.stride)
    }

    /// The buffer, when nobody else holds it.
    pub(crate) fn into_buf(self) -> Option<AlignedBuf> {
        self.bytes.try_into_mut()
    }

    /// The checksum of the data, computed back from k of the shards.
    fn decoded_crc(&self, code: &Code, choice: u64) -> Result<u32, Mismatch> {
        let (k, m) = (code.k(), code.m());
        // m consecutive slots are left out; from which one on changes from stripe to stripe.
        let first = (choice % code.total() as u64) as usize;
        let is_out = |slot: usize| (slot + code.total() - first) % code.total() < m;
        let shard = |slot: usize| &self.bytes[slot * self.stride..][..self.shard_len];
        let present: Vec<(usize, &[u8])> = (0..code.total()).filter(|s| !is_out(*s)).map(|s| (s, shard(s))).collect();
        let lost: Vec<usize> = (0..k).filter(|slot| is_out(*slot)).collect();
        let mut scratch = vec![0; lost.len() * self.shard_len];
        let mut want: Vec<(usize, &mut [u8])> =
            lost.iter().copied().zip(scratch.chunks_mut(self.shard_len.max(1))).collect();
        if !want.is_empty() {
            code.reconstruct(&present, &mut want).map_err(|_| Mismatch)?;
        }
        let (mut crc, mut left) = (crc32fast::Hasher::new(), self.data_len);
        for slot in 0..k {
            let take = left.min(self.shard_len);
            match lost.iter().position(|l| *l == slot) {
                Some(at) => crc.update(&scratch[at * self.shard_len..][..take]),
                None => crc.update(&shard(slot)[..take]),
            }
            left -= take;
        }
        Ok(crc.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> Code {
        Code::new(4, 2).expect("a code")
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    #[test]
    fn shards_hold_the_data_in_order_whatever_was_expected() {
        for (expected, got) in [(1000, 1000), (1 << 20, 300_000), (300_001, 1), (70_000, 69_999)] {
            let mut stripe = StripeBuf::new(&code(), expected, None);
            let data = bytes(got);
            data.chunks(777).for_each(|chunk| stripe.push(chunk));
            let stripe = stripe.encode(&code(), 3).expect("checks");
            assert_eq!((stripe.data_len, stripe.shard_len), (got, code().shard_len(got)));
            let joined: Vec<u8> = (0..4).flat_map(|slot| stripe.shard(slot)[..stripe.shard_len].to_vec()).collect();
            assert_eq!(joined[..got], data);
            assert!(joined[got..].iter().all(|b| *b == 0), "padding is zero");
        }
    }

    #[test]
    fn a_used_buffer_leaks_nothing() {
        let mut stripe = StripeBuf::new(&code(), 100_000, None);
        stripe.push(&vec![0xee; 100_000]);
        let used = stripe.encode(&code(), 0).expect("checks").into_buf().expect("held by nobody else");
        let mut stripe = StripeBuf::new(&code(), 99_999, Some(used));
        stripe.push(&bytes(99_999));
        let stripe = stripe.encode(&code(), 1).expect("checks");
        assert!(stripe.shard(3)[99_999 - 3 * stripe.shard_len..].iter().all(|b| *b == 0));
    }

    #[test]
    fn a_bit_that_flips_in_memory_is_found_before_the_ack() {
        for choice in 0..6 {
            let mut stripe = StripeBuf::new(&code(), 100_000, None);
            stripe.push(&bytes(100_000));
            stripe.buf[5000] ^= 1;
            assert_eq!(stripe.encode(&code(), choice).err(), Some(Mismatch), "choice {choice}");
        }
    }
}
