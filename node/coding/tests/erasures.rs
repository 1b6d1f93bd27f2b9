//! What is lost comes back: every pattern for small codes, random ones for wide codes, and every
//! wrong request refused by name.

use coding::{Code, CodingError, SHARD_ALIGN_BYTES, SHARDS_MAX};
use proptest::prelude::*;
use proptest::sample::subsequence;

/// A whole stripe: `k` shards of pseudo-random data from `seed`, and their parity.
fn stripe(code: &Code, len: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut shards: Vec<Vec<u8>> = (0..code.total()).map(|_| (0..len).map(|_| next()).collect()).collect();
    let (data, parity) = shards.split_at_mut(code.k());
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    code.encode(&data, &mut parity).expect("encode");
    shards
}

/// Reconstructs the `lost` slots from the `present` ones and compares.
fn check(code: &Code, shards: &[Vec<u8>], present: &[usize], lost: &[usize]) {
    let present_shards: Vec<(usize, &[u8])> = present.iter().map(|s| (*s, shards[*s].as_slice())).collect();
    let mut buffers: Vec<(usize, Vec<u8>)> = lost.iter().map(|s| (*s, vec![0xee; shards[0].len()])).collect();
    let mut want: Vec<(usize, &mut [u8])> = buffers.iter_mut().map(|(s, b)| (*s, b.as_mut_slice())).collect();
    code.reconstruct(&present_shards, &mut want).expect("reconstruct");
    for (slot, buffer) in &buffers {
        assert!(*buffer == shards[*slot], "{code:?}: slot {slot} from {present:?} differs");
    }
}

/// Every pattern of one to `m` losses, each repaired from the first and from the last `k` survivors.
fn check_every_pattern(k: usize, m: usize) {
    let code = Code::new(k, m).expect("geometry");
    let shards = stripe(&code, 64 * 3 + 5, 42);
    let mut patterns = 0;
    for set in 1u32..1 << (k + m) {
        if set.count_ones() as usize > m {
            continue;
        }
        let (lost, alive): (Vec<usize>, Vec<usize>) = (0..k + m).partition(|slot| set >> slot & 1 == 1);
        check(&code, &shards, &alive[..k], &lost);
        check(&code, &shards, &alive[alive.len() - k..], &lost);
        patterns += 1;
    }
    let choose = |r: usize| (0..r).fold(1, |product, i| product * (k + m - i) / (i + 1));
    assert_eq!(patterns, (1..=m).map(choose).sum::<usize>());
}

#[test]
fn every_loss_of_4_plus_2() {
    check_every_pattern(4, 2);
}

#[test]
fn every_loss_of_8_plus_3() {
    check_every_pattern(8, 3);
}

#[test]
fn one_data_shard_is_mirrored() {
    check_every_pattern(1, 2);
}

#[test]
fn a_code_without_parity_copies() {
    let code = Code::new(3, 0).expect("geometry");
    let shards = stripe(&code, 100, 7);
    check(&code, &shards, &[2, 0, 1], &[1, 0]);
}

#[test]
fn the_widest_code_survives_losing_its_data() {
    let code = Code::new(SHARDS_MAX / 2, SHARDS_MAX / 2).expect("geometry");
    let shards = stripe(&code, 128, 9);
    let parity: Vec<usize> = (SHARDS_MAX / 2..SHARDS_MAX).collect();
    let data: Vec<usize> = (0..SHARDS_MAX / 2).collect();
    check(&code, &shards, &parity, &data);
}

#[test]
fn clones_share_their_decoders_across_threads() {
    let code = Code::new(4, 2).expect("geometry");
    let shards = stripe(&code, 640, 3);
    std::thread::scope(|scope| {
        for lost in 0..4 {
            let (code, shards) = (code.clone(), &shards);
            scope.spawn(move || {
                for round in 0..100 {
                    let gone = [lost, 4 + round % 2];
                    let present: Vec<usize> = (0..6).filter(|s| !gone.contains(s)).collect();
                    check(&code, shards, &present, &gone);
                }
            });
        }
    });
}

#[test]
fn a_shard_is_the_kth_part_rounded_up() {
    let code = Code::new(4, 2).expect("geometry");
    for (data_len, shard_len) in
        [(0, 0), (1, 64), (256, 64), (257, 128), (4 << 20, 1 << 20), ((4 << 20) + 1, (1 << 20) + 64)]
    {
        assert_eq!(code.shard_len(data_len), shard_len, "{data_len} bytes");
    }
    assert_eq!(Code::new(3, 1).expect("geometry").shard_len(100), 64);
}

#[test]
fn geometry_is_bounded() {
    for (k, m) in [(0, 2), (SHARDS_MAX, 1), (1, SHARDS_MAX), (usize::MAX, 2)] {
        assert_eq!(Code::new(k, m).err(), Some(CodingError::Geometry { k, m }));
    }
    assert!(Code::new(1, 0).is_ok());
    assert!(Code::new(SHARDS_MAX - 1, 1).is_ok());
}

#[test]
fn wrong_requests_are_refused_by_name_and_change_nothing() {
    let code = Code::new(2, 1).expect("geometry");
    let (a, b, short) = ([1u8; 64], [2u8; 64], [3u8; 32]);
    let count = |expected, found| CodingError::ShardCount { expected, found };
    let length = CodingError::ShardLength { expected: 64, found: 32 };

    let mut out = [9u8; 64];
    let mut encode = |data: &[&[u8]]| code.encode(data, &mut [&mut out]);
    assert_eq!(encode(&[&a]), Err(count(2, 1)));
    assert_eq!(encode(&[&a, &b, &a]), Err(count(2, 3)));
    assert_eq!(encode(&[&a, &short]), Err(length));
    assert_eq!(code.encode(&[&a, &b], &mut []), Err(count(1, 0)));
    assert_eq!(code.encode(&[&a, &b], &mut [&mut [0; 32]]), Err(length));

    let mut rebuild = |present: &[(usize, &[u8])], slot| code.reconstruct(present, &mut [(slot, &mut out)]);
    let no_slot = CodingError::NoSuchSlot { slot: 3, total: 3 };
    assert_eq!(rebuild(&[(0, &a)], 1), Err(count(2, 1)));
    assert_eq!(rebuild(&[(0, &a), (1, &b), (2, &b)], 1), Err(count(2, 3)));
    assert_eq!(rebuild(&[(0, &a), (2, &short)], 1), Err(length));
    assert_eq!(rebuild(&[(0, &a), (3, &b)], 1), Err(no_slot));
    assert_eq!(rebuild(&[(0, &a), (2, &b)], 3), Err(no_slot));
    let twice = CodingError::SlotTwice { slot: 2 };
    assert_eq!(rebuild(&[(2, &a), (2, &b)], 1), Err(twice));
    let (mut x, mut y) = ([9u8; 64], [9u8; 64]);
    let mut want: [(usize, &mut [u8]); 2] = [(1, &mut x), (1, &mut y)];
    assert_eq!(code.reconstruct(&[(0, &a), (2, &b)], &mut want), Err(CodingError::SlotTwice { slot: 1 }));
    assert_eq!((out, x, y), ([9; 64], [9; 64], [9; 64]));
}

/// A code, a length, a seed, and `k` survivors out of all slots.
fn any_loss() -> impl Strategy<Value = (usize, usize, usize, u64, Vec<usize>)> {
    let codes = prop_oneof![Just((10, 4)), Just((17, 3)), (1usize..12, 0usize..6),];
    (codes, 0usize..2000, any::<u64>()).prop_flat_map(|((k, m), len, seed)| {
        let survivors = subsequence((0..k + m).collect::<Vec<_>>(), k).prop_shuffle();
        (Just(k), Just(m), Just(len), Just(seed), survivors)
    })
}

proptest! {
    #[test]
    fn any_k_shards_give_back_all((k, m, len, seed, survivors) in any_loss()) {
        let code = Code::new(k, m).expect("geometry");
        let shards = stripe(&code, len, seed);
        let mut lost: Vec<usize> = (0..k + m).filter(|s| !survivors.contains(s)).collect();
        lost.reverse();
        check(&code, &shards, &survivors, &lost);
        // All slots, the present ones among them.
        let all: Vec<usize> = (0..k + m).collect();
        check(&code, &shards, &survivors, &all);
    }

    #[test]
    fn shards_hold_all_the_data(k in 1usize..40, data_len in 0usize..10_000_000) {
        let len = Code::new(k, 2).expect("geometry").shard_len(data_len);
        prop_assert!(len * k >= data_len);
        prop_assert!(len.is_multiple_of(SHARD_ALIGN_BYTES));
        prop_assert!(len < data_len.div_ceil(k) + SHARD_ALIGN_BYTES);
    }
}
