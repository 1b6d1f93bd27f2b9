//! The encoding matrix is an on-disk format: these bytes never change. They were computed from the
//! definition in the documentation of `Code::new` by a program that shares no code with this one.

use coding::Code;

/// Parity of `k` shards of 64 bytes, where byte `i` of shard `c` is `i * 7 + c * 29 + 1`.
fn parity(k: usize, m: usize) -> Vec<Vec<u8>> {
    let code = Code::new(k, m).expect("geometry");
    let data: Vec<Vec<u8>> = (0..k).map(|c| (0..64).map(|i| (i * 7 + c * 29 + 1) as u8).collect()).collect();
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let mut parity = vec![vec![0u8; 64]; m];
    let mut slices: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    code.encode(&data, &mut slices).expect("encode");
    parity
}

/// The matrix itself: the parity of unit vectors, byte `c` of shard `c` being 1.
fn matrix(k: usize, m: usize) -> Vec<String> {
    let code = Code::new(k, m).expect("geometry");
    let data: Vec<Vec<u8>> = (0..k).map(|c| (0..k).map(|i| u8::from(i == c)).collect()).collect();
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let mut parity = vec![vec![0u8; k]; m];
    let mut slices: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    code.encode(&data, &mut slices).expect("encode");
    parity.iter().map(|row| hex(row)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_matrix_of_4_plus_2() {
    let rows = ["47a77aba", "a747ba7a"];
    assert_eq!(matrix(4, 2), rows);
}

#[test]
fn the_parity_of_4_plus_2() {
    let rows = [
        "4733c6321888897df1811606e5acd63e88b59e1bef9c46ba066e7bb5175bbbd7\
         693d699db7a5b145c9a9ac42a1e8492096ab80154033e9253e56438d8d1fff93",
        "1a43bb34abfec6206d61d29c56781e087f5152385c4875ca9a7de6537a8f8850\
         7eb6a52ab53b82642997caa46e40a4a7d0fefdcd42566b1fde39a2179cb7b068",
    ];
    let found: Vec<String> = parity(4, 2).iter().map(|row| hex(row)).collect();
    assert_eq!(found, rows);
}

#[test]
fn the_matrix_of_8_plus_3() {
    let rows = ["ad9ddd983daa5d96", "9dad98ddaa3d965d", "dd98ad9d5d963daa"];
    assert_eq!(matrix(8, 3), rows);
}

#[test]
fn the_parity_of_8_plus_3() {
    let rows = [
        "660d37004286ea37929be76c1637e799df33e4f8b3f8add929ee7b12ed67ac64\
         53c041c684ccbf796e6f6c5a3819603ce31ec935a7506b077c7e87ee8d51304a",
        "54e8a53e9f28fd3449f74a294eac54ffaab72d4cc9928bd3119daf5ffb26fe2b\
         335e3813b2ac5b65674dbee3b25024900071ebfa4461a65fb7a2817149ec7dd7",
        "7822863b80aca26f1ad21683a0d52924601ed729c85a5ff5cacf88e6e4765063\
         6f7b8615aea0072037a6b3596613f07159e22b707aa171306f7ba5cb59acf4a5",
    ];
    let found: Vec<String> = parity(8, 3).iter().map(|row| hex(row)).collect();
    assert_eq!(found, rows);
}

#[test]
fn the_matrix_of_17_plus_3() {
    let rows = [
        "72d858c03ee0664cde90805583a02a4b01",
        "c058d8724c66e03e558090de4b2aa0838e",
        "58c072d8664c3ee08055de902a4b83a0f4",
    ];
    assert_eq!(matrix(17, 3), rows);
}

#[test]
fn the_parity_of_17_plus_3() {
    let rows = [
        "cb5075e936e435d82cfa6ca08dc2c445a0d1e73713e83943cc8a7bd4af69981b\
         08eaf27c1d0f602d4c3fa280391c62efd304ae3c6f971265cbc7adc096100f36",
        "bce64ac8dfa6f2955da1a1a65be01b33a7f54846e3467ae3a410c4a861340299\
         b9bec3f84a5dfa8337f5c7e271a93e1f5d2b0ae8bf4defc2c3a49fb659b96557",
        "530fa1c397642f035d0c12472d579e298a8c263e7d6bcdc03446b837f3d0e620\
         2e768cbc4df0787f4ee11205736a4031731d301e73b617e824013f59aa2343f9",
    ];
    let found: Vec<String> = parity(17, 3).iter().map(|row| hex(row)).collect();
    assert_eq!(found, rows);
}
