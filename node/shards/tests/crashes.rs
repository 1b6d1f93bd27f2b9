//! Random work, several requests at a time, cut short at every device write and flush.
//!
//! Two properties, checked against a map of what each key may hold:
//! - *persistence*: what was acknowledged is there, unchanged, after any number of crashes;
//! - *forward progress*: the recovered store takes work, and an orderly close keeps all of it.
//!
//! `HOLDFAST_SEEDS` widens the search; a failure prints the seed and the operation it was cut at.

mod harness;

use std::collections::BTreeMap;

use base::{SeededEntropy, StripeId};
use bytes::Bytes;
use disk::ZoneFacts;
use format::{Geometry, ShardKey};
use futures::future::join_all;
use harness::{EXTENT_BYTES, format, parts, pattern, run};
use shards::{StoreError, StoreHandle};
use simdisk::{FaultAtlas, Shape, SimDisk};

const KEYS: u64 = 12;

fn key(id: u64) -> ShardKey {
    match id % 3 {
        0 => ShardKey::region(0, id),
        _ => ShardKey::stripe(StripeId(id), 0),
    }
}

/// What a key may hold: the versions (`None` is absence) that no acknowledged operation has ruled out.
type Model = BTreeMap<u64, Vec<Option<(u64, usize)>>>;

#[derive(Debug, Clone, Copy)]
enum Op {
    Put { id: u64, version: u64, len: usize },
    Delete { id: u64 },
    Checkpoint,
}

fn draw(rng: &SeededEntropy, version: u64) -> Op {
    let id = rng.below(KEYS);
    match rng.below(20) {
        0 => Op::Checkpoint,
        1..=4 => Op::Delete { id },
        _ => {
            let corner = [0, 1, 511, 512, 4095, 4096, 4097, 32_767, 32_768, 40_000, 65_536][rng.below(11) as usize];
            let len = if rng.one_in(3) { rng.below(50_000) as usize } else { corner };
            Op::Put { id, version, len }
        }
    }
}

async fn apply(store: &StoreHandle, op: Op) -> bool {
    match op {
        Op::Put { id, version, len } => {
            store.put(key(id), Bytes::new(), parts(&pattern(id, version, len))).await.is_ok()
        }
        Op::Delete { id } => store.delete(vec![key(id)]).await.is_ok(),
        Op::Checkpoint => store.checkpoint().await.is_ok(),
    }
}

/// One wave: operations on distinct keys, side by side.
fn wave(rng: &SeededEntropy, version: &mut u64) -> Vec<Op> {
    let mut ops: BTreeMap<u64, Op> = BTreeMap::new();
    for _ in 0..1 + rng.below(5) {
        *version += 1;
        match draw(rng, *version) {
            op @ (Op::Put { id, .. } | Op::Delete { id }) => _ = ops.insert(id, op),
            Op::Checkpoint => _ = ops.insert(u64::MAX, Op::Checkpoint),
        }
    }
    ops.into_values().collect()
}

fn learn(model: &mut Model, op: Op, acknowledged: bool) {
    let (id, now) = match op {
        Op::Put { id, version, len } => (id, Some((version, len))),
        Op::Delete { id } => (id, None),
        Op::Checkpoint => return,
    };
    let may = model.entry(id).or_insert_with(|| vec![None]);
    if acknowledged {
        may.clear();
    }
    may.push(now);
}

async fn check(store: &StoreHandle, model: &mut Model) {
    for (id, may) in model {
        let got = match store.get(key(*id), 0..u32::MAX).await {
            Ok(bytes) => Some(bytes),
            Err(StoreError::NotFound) => None,
            Err(error) => panic!("key {id}: {error}"),
        };
        let fits = |want: &&Option<(u64, usize)>| {
            want.map(|(version, len)| pattern(*id, version, len)) == got.as_deref().map(<[u8]>::to_vec)
        };
        let held = *may.iter().find(fits).unwrap_or_else(|| {
            panic!("key {id} holds {:?} bytes, may hold one of {may:?}", got.as_ref().map(Bytes::len))
        });
        // Once seen, it must stay: a crash may not bring another version back later.
        *may = vec![held];
    }
}

/// One life of the disk: work until the cut, then recovery and a check. Gives the operations it took.
fn life(disk: &SimDisk, rng: &SeededEntropy, model: &mut Model, version: &mut u64, cut_at: u64) -> (SimDisk, bool) {
    disk.power_cut_after(cut_at);
    let _ = run(disk, |store, _| {
        let (model, version) = (&mut *model, &mut *version);
        async move {
            for _ in 0..6 {
                let ops = wave(rng, version);
                let done = join_all(ops.iter().map(|op| apply(&store, *op))).await;
                ops.iter().zip(done).for_each(|(op, done)| learn(model, *op, done));
            }
        }
    });
    let was_cut = disk.is_gone();
    if !was_cut {
        disk.crash();
    }
    (disk.reopen(), was_cut)
}

fn scenario(seed: u64, cut_at: u64, zoned: bool) -> bool {
    let rng = SeededEntropy::new(seed);
    let mut disk = if zoned { zoned_disk(seed) } else { SimDisk::new((2 << 20) + 40 * u64::from(EXTENT_BYTES), seed) };
    format(&disk);
    let (mut model, mut version, mut was_cut) = (Model::new(), 0, false);
    for round in 0..3 {
        let cut = if round == 0 { cut_at } else { 1 + rng.below(40) };
        let (next, cut) = life(&disk, &rng, &mut model, &mut version, cut);
        was_cut |= cut && round == 0;
        disk = next;
        // Every other time the checking life closes in order instead of being the next to be cut.
        if rng.one_in(2) {
            run(&disk, |store, _| {
                let model = &mut model;
                async move { check(&store, model).await }
            })
            .expect("a crashed disk opens");
        }
    }
    run(&disk, |store, _| {
        let model = &mut model;
        async move {
            check(&store, model).await;
            for id in 0..KEYS {
                store.put(key(id), Bytes::new(), parts(&pattern(id, 1_000_000, 9000))).await.expect("takes work");
                learn(model, Op::Put { id, version: 1_000_000, len: 9000 }, true);
            }
        }
    })
    .expect("opens");
    run(&disk, |store, report| {
        let model = &mut model;
        async move {
            assert_eq!(report.damage, Vec::new());
            check(&store, model).await;
        }
    })
    .expect("opens");
    was_cut
}

/// The least zones a store takes, with holes behind them; every other disk begins with some that know no order.
fn zoned_disk(seed: u64) -> SimDisk {
    let zones = ZoneFacts {
        zone_bytes: 352 << 10,
        capacity_bytes: Geometry::MIN_ZONE_BYTES.into(),
        conventional_zones: if seed.is_multiple_of(2) { 0 } else { 3 },
        max_open: Some(8),
    };
    let shape = Shape { sector_bytes: 512, zones: Some(zones) };
    SimDisk::with_shape(40 * zones.zone_bytes, seed, FaultAtlas::default(), shape)
}

#[test]
fn cut_at_every_device_operation() {
    every_cut(60, false);
}

#[test]
fn cut_at_every_operation_of_a_zoned_device() {
    every_cut(40, true);
}

fn every_cut(seeds: u64, zoned: bool) {
    let seeds: u64 = std::env::var("HOLDFAST_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(seeds);
    let mut scenarios = 0;
    for seed in 0..seeds {
        for cut_at in 1.. {
            let told = std::panic::catch_unwind(|| scenario(seed, cut_at, zoned));
            scenarios += 1;
            match told {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => panic!("seed {seed}, cut at device operation {cut_at}"),
            }
        }
    }
    println!("{scenarios} scenarios from {seeds} seeds");
    assert!(scenarios > seeds * 20, "the cut reached the middle of the work");
}
