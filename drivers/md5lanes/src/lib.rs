//! The MD5 compression function (RFC 1321) for several messages at once.
//!
//! MD5 is one long chain of dependent additions: a single message leaves most of a processor idle.
//! Sixteen messages in the lanes of a vector register take about as long as one. S3 wants an MD5 of every
//! object (its ETag), so a server with several uploads under way has such messages at hand.
//!
//! Left out on purpose: padding, buffering, and who waits for whom; see `etag`. MD5 is no defence
//! against a forger; nothing here relies on it for that.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

/// Bytes of a block: what one step of the compression function eats.
pub const BLOCK_BYTES: usize = 64;

/// The most messages that any kernel handles at once.
pub const LANES_MAX: usize = 16;

/// The chaining value of a message.
pub type State = [u32; 4];

/// The chaining value of an empty message (RFC 1321, 3.3).
pub const INITIAL: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// One way to compress. All give the same states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// One message after the other.
    Scalar,
    /// Eight messages in 256-bit registers.
    Avx2,
    /// Sixteen messages in 512-bit registers.
    Avx512,
}

impl Kernel {
    /// Every kernel, slowest first.
    pub const ALL: [Kernel; 3] = [Kernel::Scalar, Kernel::Avx2, Kernel::Avx512];

    /// Whether this machine can run it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Kernel::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The fastest kernel of this machine.
    #[must_use]
    pub fn best() -> Kernel {
        static BEST: OnceLock<Kernel> = OnceLock::new();
        *BEST.get_or_init(|| {
            let mut available = Kernel::ALL.into_iter().rev().filter(|k| k.is_available());
            available.next().unwrap_or(Kernel::Scalar)
        })
    }

    /// Messages that it handles in the time of one; more are taken in turns.
    #[must_use]
    pub fn lanes(self) -> usize {
        match self {
            Kernel::Scalar => 1,
            Kernel::Avx2 => 8,
            Kernel::Avx512 => 16,
        }
    }

    /// Advances every state by its data: `states[i]` by `data[i]`.
    ///
    /// Panics when the machine does not have the kernel, when there is not one slice a state, or
    /// when the slices are not all of one length, a multiple of [`BLOCK_BYTES`].
    pub fn compress(self, states: &mut [State], data: &[&[u8]]) {
        assert!(self.is_available(), "{self:?} is not available here");
        assert_eq!(states.len(), data.len(), "one slice a state");
        let Some(len) = data.first().map(|slice| slice.len()) else {
            return;
        };
        assert!(data.iter().all(|slice| slice.len() == len), "one length");
        assert!(len.is_multiple_of(BLOCK_BYTES), "whole blocks");
        let lanes = self.lanes();
        for (states, data) in states.chunks_mut(lanes).zip(data.chunks(lanes)) {
            match self {
                // A lone message is best off without vectors.
                _ if states.len() == 1 => compress_one(&mut states[0], data[0]),
                Kernel::Scalar => unreachable!("the scalar kernel has one lane"),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2 | Kernel::Avx512 => x86::compress(self, states, data, len),
                #[cfg(not(target_arch = "x86_64"))]
                _ => unreachable!("not available on this architecture"),
            }
        }
    }
}

fn compress_one(state: &mut State, data: &[u8]) {
    let (blocks, rest) = data.as_chunks::<BLOCK_BYTES>();
    debug_assert!(rest.is_empty());
    md5::block_api::compress(state, blocks);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(messages: &[Vec<u8>]) {
        let data: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let start: Vec<State> =
            (0..messages.len() as u32).map(|i| INITIAL.map(|word| word.rotate_left(i) ^ i)).collect();
        let mut expected = start.clone();
        for (state, data) in expected.iter_mut().zip(&data) {
            compress_one(state, data);
        }
        for kernel in Kernel::ALL.into_iter().filter(|k| k.is_available()) {
            let mut states = start.clone();
            kernel.compress(&mut states, &data);
            assert_eq!(states, expected, "{kernel:?}, {} messages", messages.len());
        }
    }

    #[test]
    fn every_kernel_takes_any_number_of_messages() {
        for count in 0..=40usize {
            let message = |i: usize| (0..192).map(|b| (b * 7 + i * 13) as u8).collect();
            check(&(0..count).map(message).collect::<Vec<_>>());
        }
    }

    #[test]
    #[should_panic(expected = "whole blocks")]
    fn a_part_of_a_block_is_a_bug_of_the_caller() {
        Kernel::best().compress(&mut [INITIAL], &[&[0; 63]]);
    }

    #[test]
    #[should_panic(expected = "one length")]
    fn unequal_lengths_are_a_bug_of_the_caller() {
        Kernel::best().compress(&mut [INITIAL; 2], &[&[0; 64], &[0; 128]]);
    }

    proptest! {
        #[test]
        fn every_kernel_agrees_with_the_scalar_one(
            count in 1usize..33, blocks in 0usize..6, seed in any::<u64>(),
        ) {
            let mut state = seed | 1;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            };
            let messages: Vec<Vec<u8>> = (0..count)
                .map(|_| (0..blocks * BLOCK_BYTES).map(|_| next()).collect())
                .collect();
            check(&messages);
        }
    }
}
