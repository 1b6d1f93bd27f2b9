//! The encoding matrix, and the matrices that undo it.

use gf::{inv, mul};

/// The `m` parity rows, row by row: `1 / ((k + r) xor c)`. On-disk format: never change it.
///
/// `k + r >= k > c`, so the two differ and the inverse exists.
pub(crate) fn parity_rows(k: usize, m: usize) -> Vec<u8> {
    (0..m).flat_map(|r| (0..k).map(move |c| inv(((k + r) ^ c) as u8))).collect()
}

/// The row of the encoding matrix that makes `slot` out of the data shards.
fn row(k: usize, slot: usize) -> Vec<u8> {
    if slot < k {
        return (0..k).map(|c| u8::from(c == slot)).collect();
    }
    (0..k).map(|c| inv((slot ^ c) as u8)).collect()
}

/// The matrix that makes the `want` slots out of the `k` `present` ones, row by row.
pub(crate) fn decoder(k: usize, present: &[usize], want: &[usize]) -> Vec<u8> {
    assert_eq!(present.len(), k);
    let rows: Vec<u8> = present.iter().flat_map(|slot| row(k, *slot)).collect();
    let data_from_present = invert(k, rows);
    want.iter().flat_map(|slot| times(k, &row(k, *slot), &data_from_present)).collect()
}

/// A row vector times a `k` x `k` matrix.
fn times(k: usize, vector: &[u8], matrix: &[u8]) -> Vec<u8> {
    let cell = |c: usize| (0..k).fold(0, |sum, i| sum ^ mul(vector[i], matrix[i * k + c]));
    (0..k).map(cell).collect()
}

/// Inverts a `k` x `k` matrix by Gauss-Jordan elimination.
///
/// Panics when it is singular, which no choice of `k` distinct rows of our encoding matrix is.
fn invert(k: usize, mut matrix: Vec<u8>) -> Vec<u8> {
    let mut inverse: Vec<u8> = (0..k * k).map(|i| u8::from(i / k == i % k)).collect();
    for column in 0..k {
        let pivot = (column..k)
            .find(|r| matrix[r * k + column] != 0)
            .expect("any k rows of the encoding matrix are independent");
        for c in 0..k {
            matrix.swap(pivot * k + c, column * k + c);
            inverse.swap(pivot * k + c, column * k + c);
        }
        let scale = inv(matrix[column * k + column]);
        for c in 0..k {
            matrix[column * k + c] = mul(matrix[column * k + c], scale);
            inverse[column * k + c] = mul(inverse[column * k + c], scale);
        }
        for r in (0..k).filter(|r| *r != column) {
            let factor = matrix[r * k + column];
            if factor == 0 {
                continue;
            }
            for c in 0..k {
                matrix[r * k + c] ^= mul(factor, matrix[column * k + c]);
                inverse[r * k + c] ^= mul(factor, inverse[column * k + c]);
            }
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_from_the_data_shards_is_the_encoder() {
        let present: Vec<usize> = (0..8).collect();
        assert_eq!(decoder(8, &present, &[8, 9, 10]), parity_rows(8, 3));
    }

    #[test]
    fn a_matrix_times_its_inverse_is_the_identity() {
        let present = [1, 4, 5, 7, 8, 9, 10, 3];
        let rows: Vec<u8> = present.iter().flat_map(|slot| row(8, *slot)).collect();
        let inverse = invert(8, rows.clone());
        for (r, vector) in rows.chunks(8).enumerate() {
            let unit: Vec<u8> = (0..8).map(|c| u8::from(c == r)).collect();
            assert_eq!(times(8, vector, &inverse), unit);
        }
    }
}
