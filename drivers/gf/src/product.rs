//! A constant matrix, prepared once and multiplied by many byte vectors.
//!
//! Rows are taken in groups of at most [`GROUP_ROWS_MAX`]: a group's sums stay in registers while
//! the sources stream by once. Within a group the constants lie column by column, in the order in
//! which the loop reads them.

use crate::{Kernel, mul};

/// Rows summed in one pass over the sources: what fits the registers of every kernel.
pub(crate) const GROUP_ROWS_MAX: usize = 4;

/// The products of a constant with the 16 low and the 16 high nibbles.
pub(crate) type Nibbles = [u8; 32];

/// The constants of one group of rows, in the forms the kernels want. Index `column * rows + row`.
pub(crate) struct Group {
    pub(crate) rows: usize,
    pub(crate) affine: Vec<u64>,
    pub(crate) nibbles: Vec<Nibbles>,
}

/// A `rows` x `columns` matrix over GF(2^8), ready to multiply.
pub struct Product {
    rows: usize,
    columns: usize,
    kernel: Kernel,
    groups: Vec<Group>,
}

impl Product {
    /// Prepares `matrix` (row by row) for the fastest kernel of this machine.
    ///
    /// Panics when `matrix` does not hold `rows * columns` constants.
    #[must_use]
    pub fn new(rows: usize, columns: usize, matrix: &[u8]) -> Self {
        Self::with_kernel(Kernel::best(), rows, columns, matrix)
    }

    /// The same for a kernel of the caller's choice. Panics when this machine does not have it.
    #[must_use]
    pub fn with_kernel(kernel: Kernel, rows: usize, columns: usize, matrix: &[u8]) -> Self {
        // The kernels' safety rests on this line.
        assert!(kernel.is_available(), "{kernel:?} is not available here");
        assert_eq!(matrix.len(), rows * columns, "matrix shape");
        // Five rows go as 3 + 2 and not 4 + 1: passes of equal weight.
        let passes = rows.div_ceil(GROUP_ROWS_MAX).max(1);
        let group_rows = rows.div_ceil(passes).max(1);
        let groups = matrix.chunks((group_rows * columns).max(1)).map(|chunk| Group::new(chunk, columns)).collect();
        Self { rows, columns, kernel, groups }
    }

    /// Output vectors.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input vectors.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Computes `outputs[r] = sum over c of matrix[r][c] * inputs[c]`, overwriting the outputs.
    ///
    /// Panics when the number of vectors is not the matrix's or their lengths differ.
    pub fn apply(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        assert_eq!(inputs.len(), self.columns, "one input a column");
        assert_eq!(outputs.len(), self.rows, "one output a row");
        let Some(first) = outputs.first() else {
            return;
        };
        let len = first.len();
        assert!(inputs.iter().all(|input| input.len() == len), "one length");
        assert!(outputs.iter().all(|output| output.len() == len), "one length");
        if self.columns == 0 {
            outputs.iter_mut().for_each(|output| output.fill(0));
            return;
        }
        let mut rest = outputs;
        for group in &self.groups {
            let (now, later) = rest.split_at_mut(group.rows);
            group.apply(self.kernel, inputs, now, len);
            rest = later;
        }
        debug_assert!(rest.is_empty());
    }
}

impl Group {
    fn new(rows: &[u8], columns: usize) -> Self {
        let row_count = rows.len() / columns;
        debug_assert!(row_count <= GROUP_ROWS_MAX);
        let constants = || (0..columns).flat_map(move |c| (0..row_count).map(move |r| rows[r * columns + c]));
        Self { rows: row_count, affine: constants().map(affine).collect(), nibbles: constants().map(nibbles).collect() }
    }

    fn apply(&self, kernel: Kernel, inputs: &[&[u8]], outputs: &mut [&mut [u8]], len: usize) {
        #[cfg(target_arch = "x86_64")]
        let done = crate::x86::apply(kernel, self, inputs, outputs, len);
        #[cfg(not(target_arch = "x86_64"))]
        let done = {
            debug_assert_eq!(kernel, Kernel::Scalar);
            0
        };
        self.apply_scalar(inputs, outputs, done..len);
    }

    /// The plain loop: the reference for the others, and what finishes their last few bytes.
    fn apply_scalar(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]], range: std::ops::Range<usize>) {
        if range.is_empty() {
            return;
        }
        for (row, output) in outputs.iter_mut().enumerate() {
            let output = &mut output[range.clone()];
            output.fill(0);
            for (column, input) in inputs.iter().enumerate() {
                let table = &self.nibbles[column * self.rows + row];
                for (sum, byte) in output.iter_mut().zip(&input[range.clone()]) {
                    *sum ^= table[usize::from(byte & 15)] ^ table[16 + usize::from(byte >> 4)];
                }
            }
        }
    }
}

fn nibbles(constant: u8) -> Nibbles {
    std::array::from_fn(|i| {
        let i = i as u8;
        if i < 16 { mul(constant, i) } else { mul(constant, (i - 16) << 4) }
    })
}

/// Multiplication by a constant as the 8x8 bit matrix of `gf2p8affineqb`: bit `i` of the result is
/// the parity of `byte[7 - i] & x`.
fn affine(constant: u8) -> u64 {
    let mut matrix = [0u8; 8];
    for bit in 0..8 {
        let column = mul(constant, 1 << bit);
        for (i, row) in matrix.iter_mut().rev().enumerate() {
            *row |= ((column >> i) & 1) << bit;
        }
    }
    u64::from_le_bytes(matrix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, byte by byte.
    fn expected(rows: usize, matrix: &[u8], inputs: &[Vec<u8>], len: usize) -> Vec<Vec<u8>> {
        let columns = inputs.len();
        let cell = |r: usize, i: usize| (0..columns).fold(0, |sum, c| sum ^ mul(matrix[r * columns + c], inputs[c][i]));
        (0..rows).map(|r| (0..len).map(|i| cell(r, i)).collect()).collect()
    }

    fn check(kernel: Kernel, rows: usize, matrix: &[u8], inputs: &[Vec<u8>], len: usize) {
        let product = Product::with_kernel(kernel, rows, inputs.len(), matrix);
        let slices: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        // A guard on both sides of every output, and outputs at odd addresses.
        let mut buffers = vec![vec![0xa5u8; len + 65]; rows];
        let mut outputs: Vec<&mut [u8]> = buffers.iter_mut().map(|b| &mut b[1..=len]).collect();
        product.apply(&slices, &mut outputs);
        let expected = expected(rows, matrix, inputs, len);
        for (buffer, expected) in buffers.iter().zip(&expected) {
            assert_eq!(&buffer[1..=len], expected, "{kernel:?} {rows} rows {len} bytes");
            assert_eq!(buffer[0], 0xa5);
            assert!(buffer[len + 1..].iter().all(|b| *b == 0xa5));
        }
    }

    fn available() -> impl Iterator<Item = Kernel> {
        Kernel::ALL.into_iter().filter(|k| k.is_available())
    }

    #[test]
    fn every_kernel_multiplies_every_pair() {
        let all: Vec<u8> = (0..=255).collect();
        for kernel in available() {
            for constant in 0..=255 {
                check(kernel, 1, &[constant], std::slice::from_ref(&all), 256);
            }
        }
    }

    #[test]
    fn every_kernel_takes_every_shape() {
        let len = 64 * 9 + 37;
        for kernel in available() {
            for rows in 0..=9 {
                for columns in [0usize, 1, 2, 5, 17] {
                    let matrix: Vec<u8> = (0..rows * columns).map(|i| (i * 89 + 3) as u8).collect();
                    let inputs: Vec<Vec<u8>> =
                        (0..columns).map(|c| (0..len).map(|i| (i * 31 + c * 7) as u8).collect()).collect();
                    check(kernel, rows, &matrix, &inputs, len);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "one length")]
    fn unequal_lengths_are_a_bug_of_the_caller() {
        Product::new(1, 2, &[1, 2]).apply(&[&[0; 3], &[0; 4]], &mut [&mut [0; 3]]);
    }

    proptest! {
        #[test]
        fn every_kernel_agrees_with_the_definition(
            rows in 1usize..6, columns in 1usize..8, len in 0usize..700, seed in any::<u64>(),
        ) {
            let mut state = seed | 1;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            };
            let matrix: Vec<u8> = (0..rows * columns).map(|_| next()).collect();
            let inputs: Vec<Vec<u8>> =
                (0..columns).map(|_| (0..len).map(|_| next()).collect()).collect();
            for kernel in available() {
                check(kernel, rows, &matrix, &inputs, len);
            }
        }
    }
}
