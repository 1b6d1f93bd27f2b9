//! MD5 in the lanes of vector registers: lane `i` of every register belongs to message `i`.
//!
//! A block of each message is transposed on loading, so that register `w` holds word `w` of all
//! messages; then the 64 steps run as in RFC 1321, 3.4.
#![allow(unsafe_code)]
// The loops over words and rows must unroll into straight-line code: indices say so plainly.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use crate::{BLOCK_BYTES, Kernel, LANES_MAX, State};

/// Advances two to `kernel.lanes()` states by `len` bytes each.
pub(crate) fn compress(kernel: Kernel, states: &mut [State], data: &[&[u8]], len: usize) {
    assert!((2..=kernel.lanes()).contains(&states.len()));
    assert_eq!(states.len(), data.len());
    assert!(data.iter().all(|slice| slice.len() == len));
    // Lanes without a message read the first one's and are thrown away.
    let pointers: [*const u8; LANES_MAX] = std::array::from_fn(|lane| data.get(lane).unwrap_or(&data[0]).as_ptr());
    let mut words = [[0u32; LANES_MAX]; 4];
    for (lane, state) in states.iter().enumerate() {
        for word in 0..4 {
            words[word][lane] = state[word];
        }
    }
    // SAFETY: `Kernel::compress` has checked that the processor has the kernel's instructions; all
    // pointers are good for `len` bytes, a whole number of blocks.
    unsafe {
        match kernel {
            Kernel::Scalar => unreachable!("the scalar kernel has one lane"),
            Kernel::Avx2 => avx2(&mut words, &pointers, len),
            Kernel::Avx512 => avx512(&mut words, &pointers, len),
        }
    }
    for (lane, state) in states.iter_mut().enumerate() {
        for word in 0..4 {
            state[word] = words[word][lane];
        }
    }
}

/// The 64 steps: which function, which word, which rotation, which constant (RFC 1321, 3.4).
macro_rules! steps {
    ($step:ident, $m:ident, $a:ident, $b:ident, $c:ident, $d:ident) => {
        $step!(f, $a, $b, $c, $d, $m[0], 7, 0xd76aa478u32);
        $step!(f, $d, $a, $b, $c, $m[1], 12, 0xe8c7b756u32);
        $step!(f, $c, $d, $a, $b, $m[2], 17, 0x242070dbu32);
        $step!(f, $b, $c, $d, $a, $m[3], 22, 0xc1bdceeeu32);
        $step!(f, $a, $b, $c, $d, $m[4], 7, 0xf57c0fafu32);
        $step!(f, $d, $a, $b, $c, $m[5], 12, 0x4787c62au32);
        $step!(f, $c, $d, $a, $b, $m[6], 17, 0xa8304613u32);
        $step!(f, $b, $c, $d, $a, $m[7], 22, 0xfd469501u32);
        $step!(f, $a, $b, $c, $d, $m[8], 7, 0x698098d8u32);
        $step!(f, $d, $a, $b, $c, $m[9], 12, 0x8b44f7afu32);
        $step!(f, $c, $d, $a, $b, $m[10], 17, 0xffff5bb1u32);
        $step!(f, $b, $c, $d, $a, $m[11], 22, 0x895cd7beu32);
        $step!(f, $a, $b, $c, $d, $m[12], 7, 0x6b901122u32);
        $step!(f, $d, $a, $b, $c, $m[13], 12, 0xfd987193u32);
        $step!(f, $c, $d, $a, $b, $m[14], 17, 0xa679438eu32);
        $step!(f, $b, $c, $d, $a, $m[15], 22, 0x49b40821u32);
        $step!(g, $a, $b, $c, $d, $m[1], 5, 0xf61e2562u32);
        $step!(g, $d, $a, $b, $c, $m[6], 9, 0xc040b340u32);
        $step!(g, $c, $d, $a, $b, $m[11], 14, 0x265e5a51u32);
        $step!(g, $b, $c, $d, $a, $m[0], 20, 0xe9b6c7aau32);
        $step!(g, $a, $b, $c, $d, $m[5], 5, 0xd62f105du32);
        $step!(g, $d, $a, $b, $c, $m[10], 9, 0x02441453u32);
        $step!(g, $c, $d, $a, $b, $m[15], 14, 0xd8a1e681u32);
        $step!(g, $b, $c, $d, $a, $m[4], 20, 0xe7d3fbc8u32);
        $step!(g, $a, $b, $c, $d, $m[9], 5, 0x21e1cde6u32);
        $step!(g, $d, $a, $b, $c, $m[14], 9, 0xc33707d6u32);
        $step!(g, $c, $d, $a, $b, $m[3], 14, 0xf4d50d87u32);
        $step!(g, $b, $c, $d, $a, $m[8], 20, 0x455a14edu32);
        $step!(g, $a, $b, $c, $d, $m[13], 5, 0xa9e3e905u32);
        $step!(g, $d, $a, $b, $c, $m[2], 9, 0xfcefa3f8u32);
        $step!(g, $c, $d, $a, $b, $m[7], 14, 0x676f02d9u32);
        $step!(g, $b, $c, $d, $a, $m[12], 20, 0x8d2a4c8au32);
        $step!(h, $a, $b, $c, $d, $m[5], 4, 0xfffa3942u32);
        $step!(h, $d, $a, $b, $c, $m[8], 11, 0x8771f681u32);
        $step!(h, $c, $d, $a, $b, $m[11], 16, 0x6d9d6122u32);
        $step!(h, $b, $c, $d, $a, $m[14], 23, 0xfde5380cu32);
        $step!(h, $a, $b, $c, $d, $m[1], 4, 0xa4beea44u32);
        $step!(h, $d, $a, $b, $c, $m[4], 11, 0x4bdecfa9u32);
        $step!(h, $c, $d, $a, $b, $m[7], 16, 0xf6bb4b60u32);
        $step!(h, $b, $c, $d, $a, $m[10], 23, 0xbebfbc70u32);
        $step!(h, $a, $b, $c, $d, $m[13], 4, 0x289b7ec6u32);
        $step!(h, $d, $a, $b, $c, $m[0], 11, 0xeaa127fau32);
        $step!(h, $c, $d, $a, $b, $m[3], 16, 0xd4ef3085u32);
        $step!(h, $b, $c, $d, $a, $m[6], 23, 0x04881d05u32);
        $step!(h, $a, $b, $c, $d, $m[9], 4, 0xd9d4d039u32);
        $step!(h, $d, $a, $b, $c, $m[12], 11, 0xe6db99e5u32);
        $step!(h, $c, $d, $a, $b, $m[15], 16, 0x1fa27cf8u32);
        $step!(h, $b, $c, $d, $a, $m[2], 23, 0xc4ac5665u32);
        $step!(i, $a, $b, $c, $d, $m[0], 6, 0xf4292244u32);
        $step!(i, $d, $a, $b, $c, $m[7], 10, 0x432aff97u32);
        $step!(i, $c, $d, $a, $b, $m[14], 15, 0xab9423a7u32);
        $step!(i, $b, $c, $d, $a, $m[5], 21, 0xfc93a039u32);
        $step!(i, $a, $b, $c, $d, $m[12], 6, 0x655b59c3u32);
        $step!(i, $d, $a, $b, $c, $m[3], 10, 0x8f0ccc92u32);
        $step!(i, $c, $d, $a, $b, $m[10], 15, 0xffeff47du32);
        $step!(i, $b, $c, $d, $a, $m[1], 21, 0x85845dd1u32);
        $step!(i, $a, $b, $c, $d, $m[8], 6, 0x6fa87e4fu32);
        $step!(i, $d, $a, $b, $c, $m[15], 10, 0xfe2ce6e0u32);
        $step!(i, $c, $d, $a, $b, $m[6], 15, 0xa3014314u32);
        $step!(i, $b, $c, $d, $a, $m[13], 21, 0x4e0811a1u32);
        $step!(i, $a, $b, $c, $d, $m[4], 6, 0xf7537e82u32);
        $step!(i, $d, $a, $b, $c, $m[11], 10, 0xbd3af235u32);
        $step!(i, $c, $d, $a, $b, $m[2], 15, 0x2ad7d2bbu32);
        $step!(i, $b, $c, $d, $a, $m[9], 21, 0xeb86d391u32);
    };
}

/// Word `w` of the block at `at` of sixteen messages, for `w` in `0..16`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transpose512(pointers: &[*const u8; LANES_MAX], at: usize) -> [__m512i; 16] {
    let mut words = [_mm512_setzero_si512(); 16];
    for quarter in 0..4 {
        let mut rows = [_mm512_setzero_si512(); 4];
        for row in 0..4 {
            // SAFETY: the block at `at` lies inside every message, 16 bytes of it are read.
            let part = |lane: usize| unsafe { _mm_loadu_si128(pointers[lane].add(at + 16 * quarter).cast()) };
            let mut four = _mm512_castsi128_si512(part(row));
            four = _mm512_inserti32x4::<1>(four, part(row + 4));
            four = _mm512_inserti32x4::<2>(four, part(row + 8));
            rows[row] = _mm512_inserti32x4::<3>(four, part(row + 12));
        }
        let low01 = _mm512_unpacklo_epi32(rows[0], rows[1]);
        let low23 = _mm512_unpacklo_epi32(rows[2], rows[3]);
        let high01 = _mm512_unpackhi_epi32(rows[0], rows[1]);
        let high23 = _mm512_unpackhi_epi32(rows[2], rows[3]);
        words[4 * quarter] = _mm512_unpacklo_epi64(low01, low23);
        words[4 * quarter + 1] = _mm512_unpackhi_epi64(low01, low23);
        words[4 * quarter + 2] = _mm512_unpacklo_epi64(high01, high23);
        words[4 * quarter + 3] = _mm512_unpackhi_epi64(high01, high23);
    }
    words
}

#[target_feature(enable = "avx512f")]
unsafe fn avx512(state: &mut [[u32; LANES_MAX]; 4], pointers: &[*const u8; LANES_MAX], len: usize) {
    // The functions F, G, H and I as truth tables over (x, y, z).
    macro_rules! function {
        (f, $x:ident, $y:ident, $z:ident) => {
            _mm512_ternarylogic_epi32::<0xca>($x, $y, $z)
        };
        (g, $x:ident, $y:ident, $z:ident) => {
            _mm512_ternarylogic_epi32::<0xe4>($x, $y, $z)
        };
        (h, $x:ident, $y:ident, $z:ident) => {
            _mm512_ternarylogic_epi32::<0x96>($x, $y, $z)
        };
        (i, $x:ident, $y:ident, $z:ident) => {
            _mm512_ternarylogic_epi32::<0x39>($x, $y, $z)
        };
    }
    macro_rules! step {
        ($f:ident, $a:ident, $b:ident, $c:ident, $d:ident, $m:expr, $s:literal, $k:literal) => {
            let known = _mm512_add_epi32(_mm512_add_epi32($a, _mm512_set1_epi32($k as i32)), $m);
            let sum = _mm512_add_epi32(known, function!($f, $b, $c, $d));
            $a = _mm512_add_epi32(_mm512_rol_epi32::<$s>(sum), $b);
        };
    }
    // SAFETY: each row is 64 bytes long.
    let [mut a, mut b, mut c, mut d] =
        unsafe { [0, 1, 2, 3].map(|w: usize| _mm512_loadu_si512(state[w].as_ptr().cast())) };
    let mut at = 0;
    while at < len {
        // SAFETY: the block at `at` lies inside every message.
        let m = unsafe { transpose512(pointers, at) };
        let before = [a, b, c, d];
        steps!(step, m, a, b, c, d);
        a = _mm512_add_epi32(a, before[0]);
        b = _mm512_add_epi32(b, before[1]);
        c = _mm512_add_epi32(c, before[2]);
        d = _mm512_add_epi32(d, before[3]);
        at += BLOCK_BYTES;
    }
    for (row, register) in state.iter_mut().zip([a, b, c, d]) {
        // SAFETY: each row is 64 bytes long.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), register) };
    }
}

/// Word `w` of the block at `at` of the first eight messages, for `w` in `0..16`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn transpose256(pointers: &[*const u8; LANES_MAX], at: usize) -> [__m256i; 16] {
    let mut words = [_mm256_setzero_si256(); 16];
    for quarter in 0..4 {
        let mut rows = [_mm256_setzero_si256(); 4];
        for row in 0..4 {
            // SAFETY: the block at `at` lies inside every message, 16 bytes of it are read.
            let part = |lane: usize| unsafe { _mm_loadu_si128(pointers[lane].add(at + 16 * quarter).cast()) };
            rows[row] = _mm256_set_m128i(part(row + 4), part(row));
        }
        let low01 = _mm256_unpacklo_epi32(rows[0], rows[1]);
        let low23 = _mm256_unpacklo_epi32(rows[2], rows[3]);
        let high01 = _mm256_unpackhi_epi32(rows[0], rows[1]);
        let high23 = _mm256_unpackhi_epi32(rows[2], rows[3]);
        words[4 * quarter] = _mm256_unpacklo_epi64(low01, low23);
        words[4 * quarter + 1] = _mm256_unpackhi_epi64(low01, low23);
        words[4 * quarter + 2] = _mm256_unpacklo_epi64(high01, high23);
        words[4 * quarter + 3] = _mm256_unpackhi_epi64(high01, high23);
    }
    words
}

#[target_feature(enable = "avx2")]
unsafe fn avx2(state: &mut [[u32; LANES_MAX]; 4], pointers: &[*const u8; LANES_MAX], len: usize) {
    let ones = _mm256_set1_epi32(-1);
    macro_rules! function {
        (f, $x:ident, $y:ident, $z:ident) => {
            _mm256_xor_si256($z, _mm256_and_si256($x, _mm256_xor_si256($y, $z)))
        };
        (g, $x:ident, $y:ident, $z:ident) => {
            _mm256_xor_si256($y, _mm256_and_si256($z, _mm256_xor_si256($x, $y)))
        };
        (h, $x:ident, $y:ident, $z:ident) => {
            _mm256_xor_si256($x, _mm256_xor_si256($y, $z))
        };
        (i, $x:ident, $y:ident, $z:ident) => {
            _mm256_xor_si256($y, _mm256_or_si256($x, _mm256_xor_si256($z, ones)))
        };
    }
    macro_rules! step {
        ($f:ident, $a:ident, $b:ident, $c:ident, $d:ident, $m:expr, $s:literal, $k:literal) => {
            let known = _mm256_add_epi32(_mm256_add_epi32($a, _mm256_set1_epi32($k as i32)), $m);
            let sum = _mm256_add_epi32(known, function!($f, $b, $c, $d));
            let left = _mm256_slli_epi32::<$s>(sum);
            let right = _mm256_srli_epi32::<{ 32 - $s }>(sum);
            $a = _mm256_add_epi32(_mm256_or_si256(left, right), $b);
        };
    }
    // SAFETY: the first eight words of each row are read.
    let [mut a, mut b, mut c, mut d] =
        unsafe { [0, 1, 2, 3].map(|w: usize| _mm256_loadu_si256(state[w].as_ptr().cast())) };
    let mut at = 0;
    while at < len {
        // SAFETY: the block at `at` lies inside every message.
        let m = unsafe { transpose256(pointers, at) };
        let before = [a, b, c, d];
        steps!(step, m, a, b, c, d);
        a = _mm256_add_epi32(a, before[0]);
        b = _mm256_add_epi32(b, before[1]);
        c = _mm256_add_epi32(c, before[2]);
        d = _mm256_add_epi32(d, before[3]);
        at += BLOCK_BYTES;
    }
    for (row, register) in state.iter_mut().zip([a, b, c, d]) {
        // SAFETY: the first eight words of each row are written.
        unsafe { _mm256_storeu_si256(row.as_mut_ptr().cast(), register) };
    }
}
