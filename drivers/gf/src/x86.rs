//! The x86-64 kernels. Each handles whole blocks and reports how many bytes it has done; the
//! scalar loop finishes the rest.
//!
//! Every kernel keeps the sums of its rows in registers, walks the columns once for each block, and
//! writes each output byte exactly once. Loads and stores are unaligned: on the processors that
//! matter they cost nothing when the data happens to be aligned.
#![allow(unsafe_code)]
// The loops over rows and registers must unroll into straight-line code: indices say so plainly.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use crate::Kernel;
use crate::product::Group;

/// Multiplies as many leading bytes as `kernel` has whole blocks for, and returns their number.
///
/// The caller has made sure that the machine has the kernel and that all vectors are `len` long.
pub(crate) fn apply(kernel: Kernel, group: &Group, inputs: &[&[u8]], outputs: &mut [&mut [u8]], len: usize) -> usize {
    assert_eq!(outputs.len(), group.rows);
    match group.rows {
        1 => apply_rows::<1>(kernel, group, inputs, outputs, len),
        2 => apply_rows::<2>(kernel, group, inputs, outputs, len),
        3 => apply_rows::<3>(kernel, group, inputs, outputs, len),
        4 => apply_rows::<4>(kernel, group, inputs, outputs, len),
        _ => unreachable!("a group has one to four rows"),
    }
}

fn apply_rows<const ROWS: usize>(
    kernel: Kernel,
    group: &Group,
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    len: usize,
) -> usize {
    // What the kernels rely on, checked where it is cheap: once a call.
    assert_eq!(outputs.len(), ROWS);
    assert_eq!(group.affine.len(), inputs.len() * ROWS);
    assert_eq!(group.nibbles.len(), inputs.len() * ROWS);
    assert!(inputs.iter().all(|input| input.len() == len));
    assert!(outputs.iter().all(|output| output.len() == len));
    let out: [*mut u8; ROWS] = std::array::from_fn(|row| outputs[row].as_mut_ptr());
    // SAFETY: `Product::with_kernel` has checked that the processor has the kernel's instructions;
    // every input and output is `len` bytes long and the outputs are distinct `&mut` slices.
    unsafe {
        match kernel {
            Kernel::Scalar => 0,
            Kernel::Ssse3 => ssse3::<ROWS>(group, inputs, out, len),
            Kernel::Avx2 => avx2::<ROWS>(group, inputs, out, len),
            Kernel::Gfni => gfni::<ROWS>(group, inputs, out, len),
        }
    }
}

/// Registers a row in one block: four rows of two leave half of the 16 registers for the rest.
const WIDE: usize = 2;

#[target_feature(enable = "avx2,gfni")]
unsafe fn gfni<const ROWS: usize>(group: &Group, inputs: &[&[u8]], out: [*mut u8; ROWS], len: usize) -> usize {
    let mut at = 0;
    while at + 32 * WIDE <= len {
        let mut sums = [[_mm256_setzero_si256(); WIDE]; ROWS];
        for (input, constants) in inputs.iter().zip(group.affine.as_chunks::<ROWS>().0) {
            let mut data = [_mm256_setzero_si256(); WIDE];
            for n in 0..WIDE {
                // SAFETY: `at + 32 * WIDE <= len`, the length of every input.
                data[n] = unsafe { _mm256_loadu_si256(input.as_ptr().add(at + 32 * n).cast()) };
            }
            for row in 0..ROWS {
                let matrix = _mm256_set1_epi64x(constants[row] as i64);
                for n in 0..WIDE {
                    let product = _mm256_gf2p8affine_epi64_epi8::<0>(data[n], matrix);
                    sums[row][n] = _mm256_xor_si256(sums[row][n], product);
                }
            }
        }
        for row in 0..ROWS {
            for n in 0..WIDE {
                // SAFETY: `at + 32 * WIDE <= len`, the length of every output.
                unsafe { _mm256_storeu_si256(out[row].add(at + 32 * n).cast(), sums[row][n]) };
            }
        }
        at += 32 * WIDE;
    }
    at
}

#[target_feature(enable = "avx2")]
unsafe fn avx2<const ROWS: usize>(group: &Group, inputs: &[&[u8]], out: [*mut u8; ROWS], len: usize) -> usize {
    let low_nibble = _mm256_set1_epi8(15);
    let mut at = 0;
    while at + 32 * WIDE <= len {
        let mut sums = [[_mm256_setzero_si256(); WIDE]; ROWS];
        for (input, tables) in inputs.iter().zip(group.nibbles.as_chunks::<ROWS>().0) {
            let mut low = [_mm256_setzero_si256(); WIDE];
            let mut high = low;
            for n in 0..WIDE {
                // SAFETY: `at + 32 * WIDE <= len`, the length of every input.
                let data = unsafe { _mm256_loadu_si256(input.as_ptr().add(at + 32 * n).cast()) };
                low[n] = _mm256_and_si256(data, low_nibble);
                high[n] = _mm256_and_si256(_mm256_srli_epi64::<4>(data), low_nibble);
            }
            for row in 0..ROWS {
                let table = tables[row].as_ptr();
                // SAFETY: a table has 32 bytes.
                let (table_low, table_high) =
                    unsafe { (_mm_loadu_si128(table.cast()), _mm_loadu_si128(table.add(16).cast())) };
                let table_low = _mm256_broadcastsi128_si256(table_low);
                let table_high = _mm256_broadcastsi128_si256(table_high);
                for n in 0..WIDE {
                    let product = _mm256_xor_si256(
                        _mm256_shuffle_epi8(table_low, low[n]),
                        _mm256_shuffle_epi8(table_high, high[n]),
                    );
                    sums[row][n] = _mm256_xor_si256(sums[row][n], product);
                }
            }
        }
        for row in 0..ROWS {
            for n in 0..WIDE {
                // SAFETY: `at + 32 * WIDE <= len`, the length of every output.
                unsafe { _mm256_storeu_si256(out[row].add(at + 32 * n).cast(), sums[row][n]) };
            }
        }
        at += 32 * WIDE;
    }
    at
}

#[target_feature(enable = "ssse3")]
unsafe fn ssse3<const ROWS: usize>(group: &Group, inputs: &[&[u8]], out: [*mut u8; ROWS], len: usize) -> usize {
    let low_nibble = _mm_set1_epi8(15);
    let mut at = 0;
    while at + 16 <= len {
        let mut sums = [_mm_setzero_si128(); ROWS];
        for (input, tables) in inputs.iter().zip(group.nibbles.as_chunks::<ROWS>().0) {
            // SAFETY: `at + 16 <= len`, the length of every input.
            let data = unsafe { _mm_loadu_si128(input.as_ptr().add(at).cast()) };
            let low = _mm_and_si128(data, low_nibble);
            let high = _mm_and_si128(_mm_srli_epi64::<4>(data), low_nibble);
            for row in 0..ROWS {
                let table = tables[row].as_ptr();
                // SAFETY: a table has 32 bytes.
                let (table_low, table_high) =
                    unsafe { (_mm_loadu_si128(table.cast()), _mm_loadu_si128(table.add(16).cast())) };
                let product = _mm_xor_si128(_mm_shuffle_epi8(table_low, low), _mm_shuffle_epi8(table_high, high));
                sums[row] = _mm_xor_si128(sums[row], product);
            }
        }
        for row in 0..ROWS {
            // SAFETY: `at + 16 <= len`, the length of every output.
            unsafe { _mm_storeu_si128(out[row].add(at).cast(), sums[row]) };
        }
        at += 16;
    }
    at
}
