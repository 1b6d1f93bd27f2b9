//! The store on zoned devices: what holds on any device, and what goes round in zones.

mod harness;

use base::StripeId;
use bytes::Bytes;
use disk::{BlockDevice, DiskError, ZoneFacts};
use format::{Anchor, FormatError, Geometry, ShardKey};
use futures::executor::block_on;
use futures::future::join_all;
use harness::{options, parts, pattern, run};
use shards::{Store, StoreError};
use simdisk::{FaultAtlas, Shape, SimDisk};

/// Room for a label and a ring's pages, and eight more.
const CAPACITY: u64 = Geometry::MIN_ZONE_BYTES as u64 - 8 * 4096;
const EXTENTS: u64 = 24;
/// Fewest zones that a store must be able to have written in part.
const OPEN_MIN: u32 = 8;

fn facts(conventional_zones: u32, max_open: Option<u32>) -> ZoneFacts {
    let capacity_bytes = Geometry::MIN_ZONE_BYTES.into();
    ZoneFacts { zone_bytes: 384 << 10, capacity_bytes, conventional_zones, max_open }
}

fn blank(zones: ZoneFacts, count: u64, seed: u64) -> SimDisk {
    let shape = Shape { sector_bytes: 512, zones: Some(zones) };
    SimDisk::with_shape(count * zones.zone_bytes, seed, FaultAtlas::default(), shape)
}

fn fresh(conventional_zones: u32, seed: u64) -> SimDisk {
    let disk = blank(facts(conventional_zones, Some(OPEN_MIN)), EXTENTS + 3, seed);
    harness::format(&disk);
    disk
}

fn key(id: u64) -> ShardKey {
    ShardKey::stripe(StripeId(id), 0)
}

/// Where the log's zones start.
fn log(disk: &SimDisk) -> [u64; 3] {
    Geometry::log_offsets_of(disk.facts().size_bytes, 384 << 10).expect("it is large enough")
}

/// The newest page of a log's zone: its sequence number, and the byte of the device where it is.
fn newest(disk: &SimDisk, zone: u64) -> Option<(u64, u64)> {
    let label = block_on(shards::identify(disk)).expect("a label is left");
    let raw = disk.raw_read(zone, Geometry::MIN_ZONE_BYTES as usize);
    let pages = raw.chunks(4096).zip((zone..).step_by(4096));
    pages.filter_map(|(page, at)| Some((Anchor::decode(page, label.device, label.salt).ok()?.sequence, at))).max()
}

#[test]
fn devices_whose_zones_do_not_serve_are_refused_by_name() {
    let good = facts(2, Some(OPEN_MIN));
    let table = [
        (ZoneFacts { capacity_bytes: CAPACITY, ..good }, 40, "its zones hold too little"),
        (facts(0, Some(OPEN_MIN - 1)), 40, "too few of its zones may be written in part at once"),
        (facts(38, None), 40, "its last zones have no write pointers"),
    ];
    for (zones, count, what) in table {
        let refused = block_on(Store::format(&blank(zones, count, 1), &options()));
        assert_eq!(refused, Err(StoreError::Zoned { what }));
    }
    let refused = block_on(Store::format(&blank(good, EXTENTS + 2, 1), &options()));
    assert!(matches!(refused, Err(StoreError::TooSmall { min_bytes, .. }) if min_bytes == 27 * good.zone_bytes));
    let label = block_on(Store::format(&blank(good, EXTENTS + 3, 1), &options())).expect("the least device");
    assert_eq!((label.geometry.extents, label.geometry.zone_bytes), (24, Some(good.zone_bytes)));
}

#[test]
fn a_blank_device_is_none_and_formatting_cut_short_leaves_none_or_a_whole_one() {
    let absent = Err(StoreError::Unusable(FormatError::Absent("device label")));
    let mut whole = 0;
    for cut in 0..40 {
        let disk = blank(facts(0, Some(OPEN_MIN)), EXTENTS + 3, cut);
        assert_eq!(block_on(shards::identify(&disk)), absent);
        disk.power_cut_after(cut);
        let formatted = block_on(Store::format(&disk, &options()));
        let disk = disk.reopen();
        if block_on(shards::identify(&disk)).is_ok() {
            whole += 1;
            run(&disk, |store, _| async move {
                store.put(key(1), Bytes::new(), parts(&[1; 9000])).await.expect("it is a store");
            })
            .expect("opens");
        } else {
            assert!(formatted.is_err(), "cut at {cut}");
        }
    }
    assert!((1..40).contains(&whole), "{whole} were whole");
}

#[test]
fn extents_are_filled_emptied_and_filled_again() {
    for (conventional, seed) in [(0, 1), (5, 2)] {
        let disk = fresh(conventional, seed);
        for round in 0..12 {
            run(&disk, |store, report| async move {
                assert_eq!((report.damage.len(), report.rolled_forward), (0, 0), "round {round}");
                for id in 0..20 {
                    if round > 0 {
                        let want = pattern(id, round - 1, 60_000 + id as usize);
                        assert_eq!(store.get(key(id), 0..u32::MAX).await.expect("get"), want, "round {round}, {id}");
                    }
                }
                // Large and small ones, several at a time: a zone takes one after the other all the same.
                let puts = (0..20).map(|id| (id, pattern(id, round, 60_000 + id as usize)));
                let puts = puts.chain((20..60).map(|id| (id, pattern(id, round, 700))));
                let done = join_all(puts.map(|(id, bytes)| {
                    let store = store.clone();
                    async move { store.put(key(id), Bytes::new(), parts(&bytes)).await }
                }));
                done.await.into_iter().for_each(|done| done.expect("put"));
                store.delete((20..40).map(key).collect()).await.expect("delete");
                store.reclaim().await.expect("reclaim");
                let stats = store.stats().await.expect("stats");
                assert_eq!((stats.records, stats.device_errors), (40, 0), "round {round}");
            })
            .expect("opens");
        }
    }
}

#[test]
fn the_log_goes_from_zone_to_zone_and_keeps_two_whole_copies() {
    let disk = fresh(0, 3);
    let mut begun = [0; 3];
    let mut last = [None; 3];
    for opening in 0..120 {
        run(&disk, |store, _| async move {
            store.put(key(opening), Bytes::new(), parts(&pattern(opening, 0, 900))).await.expect("put");
        })
        .expect("opens");
        let pages = log(&disk).map(|zone| newest(&disk, zone));
        let top = pages.iter().flatten().map(|(sequence, _)| *sequence).max();
        let copies = pages.iter().flatten().filter(|(sequence, _)| Some(*sequence) == top).count();
        assert_eq!(copies, 2, "opening {opening}: {pages:?}");
        for (zone, page) in pages.iter().enumerate() {
            // A zone that was begun again has its newest page further to the front.
            begun[zone] += u32::from(page.zip(last[zone]).is_some_and(|((_, now), before)| now < before));
            last[zone] = page.map(|(_, at)| at);
        }
    }
    assert!(begun.iter().all(|begun| *begun > 2), "{begun:?}");
    run(&disk, |store, _| async move {
        for id in 0..120 {
            assert_eq!(store.get(key(id), 0..u32::MAX).await.expect("get"), pattern(id, 0, 900));
        }
    })
    .expect("opens");
}

/// Opens the device with the power cut at every operation of its opening, until one has come through.
fn open_cut_everywhere(disk: &SimDisk, keys: u64) -> SimDisk {
    let mut disk = disk.reopen();
    for cut in 0.. {
        disk.power_cut_after(cut);
        let opened = block_on(Store::open(disk.clone(), false)).map(drop);
        let cut_short = disk.is_gone();
        assert!(cut_short || opened.is_ok(), "cut at {cut}: {opened:?}");
        disk = disk.reopen();
        run(&disk, |store, report| async move {
            assert!(!report.probed && !report.fell_back, "cut at {cut}: {report:?}");
            for id in 0..keys {
                assert_eq!(store.get(key(id), 0..u32::MAX).await.expect("get"), pattern(id, 0, 900), "cut at {cut}");
            }
        })
        .expect("opens");
        if !cut_short {
            return disk;
        }
        disk = disk.reopen();
    }
    unreachable!("an opening has an end")
}

#[test]
fn one_damaged_copy_is_survived_wherever_the_power_goes_while_it_is_replaced() {
    let mut disk = fresh(0, 4);
    for opening in 0..24 {
        run(&disk, |store, _| async move {
            store.put(key(opening), Bytes::new(), parts(&pattern(opening, 0, 900))).await.expect("put");
        })
        .expect("opens");
        let pages = log(&disk).map(|zone| newest(&disk, zone));
        let top = pages.iter().flatten().map(|(sequence, _)| *sequence).max();
        let in_use: Vec<(u64, u64)> = log(&disk)
            .into_iter()
            .zip(pages)
            .filter_map(|(zone, page)| page.filter(|(sequence, _)| Some(*sequence) == top).map(|(_, at)| (zone, at)))
            .collect();
        let (zone, page) = in_use[opening as usize % 2];
        match opening % 3 {
            0 => disk.flip_bit(zone + 20, 3),
            1 => disk.flip_bit(page + 30, 3),
            _ => (page..page + 4096).step_by(512).for_each(|at| disk.flip_bit(at, 0)),
        }
        disk = open_cut_everywhere(&disk, opening + 1);
    }
}

#[test]
fn a_page_lost_in_both_copies_makes_recovery_look_at_every_extent() {
    let disk = fresh(0, 5);
    run(&disk, |store, _| async move {
        store.put(key(1), Bytes::new(), parts(&pattern(1, 0, 900))).await.expect("put");
    })
    .expect("opens");
    let pages = log(&disk).map(|zone| newest(&disk, zone));
    pages.iter().flatten().for_each(|(_, at)| disk.flip_bit(at + 40, 1));
    run(&disk, |store, report| async move {
        assert!(report.probed, "{report:?}");
        assert_eq!(store.get(key(1), 0..u32::MAX).await.expect("get"), pattern(1, 0, 900));
    })
    .expect("opens");
    run(&disk, |_, report| async move { assert!(!report.probed, "replaced: {report:?}") }).expect("opens");
}

#[test]
fn zones_that_crashes_left_in_part_do_not_use_up_the_limit() {
    let mut disk = fresh(0, 6);
    for life in 0..40 {
        let (seed, cut) = (life, 3 + life % 23);
        disk.power_cut_after(cut);
        let _ = run(&disk, |store, _| async move {
            for id in 0..6 {
                let _ = store.put(key(id), Bytes::new(), parts(&pattern(id, seed, 30_000))).await;
                let _ = store.delete(vec![key(id + 100)]).await;
                let _ = store.put(ShardKey::region(1, id), Bytes::new(), parts(&[7; 600])).await;
            }
        });
        disk.crash();
        disk = disk.reopen();
        let facts = disk.facts().zones.expect("zoned");
        let in_part = |disk: &SimDisk| {
            let starts = (0..EXTENTS + 3).map(|zone| zone * facts.zone_bytes);
            let pointers = starts.map(|start| (start, block_on(disk.write_pointer(start)).expect("a pointer")));
            pointers.filter(|(start, at)| start < at && *at < facts.writable_end_of(*start)).count()
        };
        let store = block_on(Store::open(disk.clone(), false)).expect("opens");
        assert!(in_part(&disk) <= 3, "life {life}: what is left are the log's");
        drop(store);
        disk = disk.reopen();
    }
}

#[test]
fn writes_out_of_order_are_the_devices_to_refuse() {
    let disk = fresh(0, 7);
    let page = disk::AlignedBuf::zeroed(4096).freeze();
    let refused = block_on(disk.write(8192, vec![page]));
    assert!(matches!(refused, Err(DiskError::Zone { .. })), "{refused:?}");
}
