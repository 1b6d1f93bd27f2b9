//! What is put and what must come back: a stamp that tells the object, then bytes that all objects of a
//! size share, checked by length and CRC-32.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Bytes at the start of every object that tell it from the others of its size.
const STAMP_BYTES: usize = 16;

/// A body of a few pieces, sent without copying.
#[derive(Debug, Clone, Default)]
pub struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// Objects of one size.
#[derive(Debug, Clone)]
pub struct Objects {
    rest: Bytes,
    rest_crc: u32,
}

impl Objects {
    /// Objects of `size_bytes`, at least the stamp's 16.
    #[must_use]
    pub fn of(size_bytes: u64) -> Self {
        let len = usize::try_from(size_bytes).expect("an object fits memory").saturating_sub(STAMP_BYTES);
        let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ size_bytes;
        let mut rest = Vec::with_capacity(len + 8);
        while rest.len() < len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            rest.extend_from_slice(&state.to_le_bytes());
        }
        rest.truncate(len);
        Self { rest_crc: crc32fast::hash(&rest), rest: rest.into() }
    }

    /// Bytes of each.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        (STAMP_BYTES + self.rest.len()) as u64
    }

    /// The object of that number.
    #[must_use]
    pub fn body(&self, number: u64) -> Pieces {
        Pieces(VecDeque::from([Bytes::copy_from_slice(&Self::stamp(number)), self.rest.clone()]))
    }

    fn stamp(number: u64) -> [u8; STAMP_BYTES] {
        let mut stamp = [0u8; STAMP_BYTES];
        stamp[..8].copy_from_slice(&number.to_le_bytes());
        stamp[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        stamp
    }
}

/// Looks at a body as it arrives.
#[derive(Default)]
pub struct Check {
    stamp: Vec<u8>,
    len: u64,
    crc: crc32fast::Hasher,
}

impl Check {
    /// The next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        let taken = bytes.len().min(STAMP_BYTES - self.stamp.len());
        self.stamp.extend_from_slice(&bytes[..taken]);
        bytes = &bytes[taken..];
        self.crc.update(bytes);
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it was that object, whole and unaltered.
    #[must_use]
    pub fn is(self, objects: &Objects, number: u64) -> bool {
        self.len == objects.size_bytes()
            && self.stamp == Objects::stamp(number)
            && self.crc.finalize() == objects.rest_crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(objects: &Objects, number: u64) -> Vec<u8> {
        objects.body(number).0.iter().flat_map(|piece| piece.to_vec()).collect()
    }

    fn is(body: &[u8], objects: &Objects, number: u64, step: usize) -> bool {
        let mut check = Check::default();
        body.chunks(step).for_each(|chunk| check.update(chunk));
        check.is(objects, number)
    }

    #[test]
    fn only_the_very_object_passes() {
        let objects = Objects::of(1000);
        let good = bytes(&objects, 7);
        assert_eq!(good.len(), 1000);
        for step in [1, 7, 16, 1000] {
            assert!(is(&good, &objects, 7, step));
            assert!(!is(&good, &objects, 8, step), "another object's");
            assert!(!is(&good[..999], &objects, 7, step), "cut short");
        }
        for at in [0, 15, 16, 999] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!is(&bad, &objects, 7, 64), "a bit flipped at {at}");
        }
    }
}
