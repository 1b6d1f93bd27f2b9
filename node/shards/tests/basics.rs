//! What a store promises, one promise a test, over a disk that keeps its own.

mod harness;

use base::{DeviceId, Lsn, PartitionId, StripeId};
use bytes::Bytes;
use disk::{AlignedBuf, BlockDevice, DiskError};
use format::ShardKey;
use futures::executor::block_on;
use futures::future::join_all;
use harness::{EXTENT_BYTES, format, parts, pattern, run};
use shards::{Payload, Store, StoreError};
use simdisk::SimDisk;

fn key(id: u64) -> ShardKey {
    ShardKey::stripe(StripeId(id), 0)
}

fn fresh(extents: u64) -> SimDisk {
    let disk = SimDisk::new((2 << 20) + extents * u64::from(EXTENT_BYTES), 1);
    format(&disk);
    disk
}

#[test]
fn what_was_put_is_there_now_and_after_reopening() {
    let disk = fresh(64);
    let sizes = [0usize, 1, 511, 512, 4095, 4096, 4097, 32_767, 32_768, 32_769, 100_000, 200_000];
    run(&disk, |store, _| async move {
        for (id, len) in sizes.iter().enumerate() {
            let about = Bytes::from(format!("number {id}"));
            store.put(key(id as u64), about, parts(&pattern(id as u64, 0, *len))).await.expect("put");
        }
    })
    .expect("opens");
    for reopened in 0..2 {
        run(&disk, |store, report| async move {
            assert_eq!(report.rolled_forward, 0, "an orderly close leaves nothing to roll forward");
            for (id, len) in sizes.iter().enumerate() {
                let want = pattern(id as u64, 0, *len);
                let got = store.get(key(id as u64), 0..u32::MAX).await.expect("get");
                assert_eq!(got, want, "{len} bytes, reopened {reopened} times");
                let (length, about) = store.describe(key(id as u64)).await.expect("describe");
                assert_eq!((length as usize, about), (*len, Bytes::from(format!("number {id}"))));
                for range in [0..1u32, 4095..4097, 10..9000, 99_999..100_000] {
                    let got = store.get(key(id as u64), range.clone()).await.expect("range");
                    let (start, end) = ((range.start as usize).min(*len), (range.end as usize).min(*len));
                    assert_eq!(got, want[start..end], "{len} bytes, {range:?}");
                }
            }
            assert_eq!(store.get(key(999), 0..1).await, Err(StoreError::NotFound));
        })
        .expect("opens");
    }
}

#[test]
fn aligned_payloads_are_stored_without_their_padding() {
    let disk = fresh(64);
    run(&disk, |store, _| async move {
        let bytes = pattern(1, 1, 50_001);
        let payload = Payload::Aligned { bytes: AlignedBuf::from_bytes(&bytes).freeze(), len: bytes.len() };
        store.put(key(1), Bytes::new(), payload).await.expect("put");
        assert_eq!(store.get(key(1), 0..u32::MAX).await.expect("get"), bytes);
    })
    .expect("opens");
}

#[test]
fn concurrent_small_puts_share_flushes() {
    let disk = fresh(64);
    run(&disk, |store, _| async move {
        let before = store.stats().await.expect("stats").flushes;
        join_all((0..64).map(|id| store.put(key(id), Bytes::new(), parts(&pattern(id, 0, 4096)))))
            .await
            .into_iter()
            .for_each(|put| put.expect("put"));
        let flushes = store.stats().await.expect("stats").flushes - before;
        assert!(flushes <= 12, "64 puts took {flushes} flushes");
    })
    .expect("opens");
}

#[test]
fn deleted_replaced_and_trimmed_records_stay_so() {
    let disk = fresh(64);
    run(&disk, |store, _| async move {
        for id in 0..10 {
            store.put(key(id), Bytes::new(), parts(&pattern(id, 0, 1000))).await.expect("put");
            store.append(PartitionId(3), Lsn(id + 1), parts(&pattern(id, 9, 700))).await.expect("append");
        }
        store.delete(vec![key(1), key(2), key(77)]).await.expect("delete");
        store.put(key(3), Bytes::new(), parts(&pattern(3, 1, 1000))).await.expect("replace");
        store.trim(PartitionId(3), Lsn(5)).await.expect("trim");
    })
    .expect("opens");
    run(&disk, |store, _| async move {
        assert_eq!(store.get(key(1), 0..1).await, Err(StoreError::NotFound));
        assert_eq!(store.get(key(3), 0..u32::MAX).await.expect("get"), pattern(3, 1, 1000));
        let left = store.list(None, 100).await.expect("list");
        assert_eq!(left.len(), 8 + 6);
        assert_eq!(left[8].key, ShardKey::journal(PartitionId(3), Lsn(5)));
        assert_eq!(store.list(Some(left[12].key), 100).await.expect("list"), left[13..]);
    })
    .expect("opens");
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let disk = fresh(64);
    let gone = run(&disk, |store, _| {
        let disk = disk.clone();
        async move {
            for id in 0..20 {
                store.put(key(id), Bytes::new(), parts(&pattern(id, 0, 5000))).await.expect("put");
            }
            store.delete(vec![key(4)]).await.expect("delete");
            disk.crash();
        }
    });
    gone.expect("the client finished its work");
    let disk = disk.reopen();
    run(&disk, |store, report| async move {
        assert!(report.rolled_forward >= 21, "{report:?}");
        for id in (0..20).filter(|id| *id != 4) {
            assert_eq!(store.get(key(id), 0..u32::MAX).await.expect("get"), pattern(id, 0, 5000));
        }
        assert_eq!(store.get(key(4), 0..1).await, Err(StoreError::NotFound));
    })
    .expect("opens");
}

#[test]
fn a_full_device_refuses_shards_serves_reads_and_takes_deletes_and_journal() {
    let disk = fresh(40);
    run(&disk, |store, _| async move {
        let mut stored = 0;
        let refused = loop {
            match store.put(key(stored), Bytes::new(), parts(&pattern(stored, 0, 60_000))).await {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, StoreError::Full);
        assert!(stored > 60, "only {stored} records fit");
        for lsn in 1..20 {
            store.append(PartitionId(0), Lsn(lsn), parts(&pattern(lsn, 5, 3000))).await.expect("the journal goes on");
        }
        assert_eq!(store.get(key(0), 0..u32::MAX).await.expect("get"), pattern(0, 0, 60_000));
        store.delete((0..stored).step_by(2).map(key).collect()).await.expect("deletes go on");
        for id in 0..20 {
            store.put(key(1000 + id), Bytes::new(), parts(&pattern(id, 0, 60_000))).await.expect("space came back");
        }
        for id in (1..stored).step_by(2) {
            assert_eq!(store.get(key(id), 0..u32::MAX).await.expect("get"), pattern(id, 0, 60_000));
        }
        let stats = store.stats().await.expect("stats");
        assert!(stats.extents_reclaimed > 0 && stats.moved_bytes > 0, "{stats:?}");
    })
    .expect("opens");
}

#[test]
fn overwriting_for_ever_needs_no_more_space() {
    let disk = fresh(40);
    run(&disk, |store, _| async move {
        for round in 0..600u64 {
            let id = round * 7 % 50;
            store.put(key(id), Bytes::new(), parts(&pattern(id, round, 20_000))).await.expect("put");
        }
        for id in 0..50 {
            let last = (0..600u64).rev().find(|round| round * 7 % 50 == id).expect("each id was written");
            assert_eq!(store.get(key(id), 0..u32::MAX).await.expect("get"), pattern(id, last, 20_000));
        }
    })
    .expect("opens");
}

#[test]
fn a_flipped_bit_is_an_error_with_a_name_and_the_rest_is_served() {
    let disk = fresh(64);
    run(&disk, |store, _| {
        let disk = disk.clone();
        async move {
            for id in 0..3 {
                store.put(key(id), Bytes::new(), parts(&pattern(id, 0, 40_000))).await.expect("put");
            }
            let at = find(&disk, &pattern(1, 0, 40_000)[20_000..20_100]);
            disk.flip_bit(at, 3);
            let error = store.get(key(1), 0..u32::MAX).await.expect_err("the block is rotten");
            assert!(matches!(error, StoreError::Corrupt { what: "a block does not verify", .. }), "{error}");
            assert_eq!(store.get(key(1), 0..4096).await.expect("another block"), pattern(1, 0, 40_000)[..4096]);
            assert_eq!(store.get(key(2), 0..u32::MAX).await.expect("get"), pattern(2, 0, 40_000));
            let report = store.verify(None, u64::MAX).await.expect("verify");
            assert_eq!((report.records, report.bad.len(), report.bad[0].0), (2, 1, key(1)));
        }
    })
    .expect("opens");
}

fn find(disk: &SimDisk, needle: &[u8]) -> u64 {
    let size = disk.facts().size_bytes as usize;
    let image = disk.raw_read(0, size);
    image.windows(needle.len()).position(|w| w == needle).expect("the bytes are on the disk") as u64
}

#[test]
fn a_stale_or_misplaced_block_is_noticed() {
    let disk = fresh(64);
    run(&disk, |store, _| {
        let disk = disk.clone();
        async move {
            store.put(key(1), Bytes::new(), parts(&pattern(1, 0, 3000))).await.expect("put");
            store.put(key(2), Bytes::new(), parts(&pattern(2, 0, 3000))).await.expect("put");
            let (first, second) = (find(&disk, &pattern(1, 0, 64)), find(&disk, &pattern(2, 0, 64)));
            // Swap both records, heads included: each is valid, and in the wrong place.
            let (a, b) = (disk.raw_read(first - 512, 3584), disk.raw_read(second - 512, 3584));
            disk.raw_write(first - 512, &b);
            disk.raw_write(second - 512, &a);
            for id in [1, 2] {
                let error = store.get(key(id), 0..u32::MAX).await.expect_err("misplaced");
                assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
            }
        }
    })
    .expect("opens");
}

#[test]
fn a_failed_flush_poisons_the_device_and_reads_go_on() {
    let disk = fresh(64);
    run(&disk, |store, _| {
        let disk = disk.clone();
        async move {
            store.put(key(1), Bytes::new(), parts(&pattern(1, 0, 3000))).await.expect("put");
            disk.fail_next_flush();
            let error = store.put(key(2), Bytes::new(), parts(&pattern(2, 0, 3000))).await.expect_err("no ack");
            assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
            let error = store.put(key(3), Bytes::new(), parts(&pattern(3, 0, 3000))).await.expect_err("refused");
            assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
            assert_eq!(store.get(key(1), 0..u32::MAX).await.expect("reads go on"), pattern(1, 0, 3000));
            assert!(store.stats().await.expect("stats").poisoned);
        }
    })
    .expect("opens");
}

#[test]
fn a_transient_read_error_is_an_error_and_then_over() {
    let disk = fresh(64);
    run(&disk, |store, _| {
        let disk = disk.clone();
        async move {
            store.put(key(1), Bytes::new(), parts(&pattern(1, 0, 3000))).await.expect("put");
            disk.fail_next_read();
            let error = store.get(key(1), 0..u32::MAX).await.expect_err("the medium failed");
            assert!(matches!(error, StoreError::Disk(DiskError::Medium { .. })), "{error}");
            assert_eq!(store.get(key(1), 0..u32::MAX).await.expect("again"), pattern(1, 0, 3000));
        }
    })
    .expect("opens");
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let disk = fresh(64);
    run(&disk, |store, _| async move {
        for id in 0..30 {
            store.put(key(id), Bytes::new(), parts(&pattern(id, 0, 9000))).await.expect("put");
        }
        store.checkpoint().await.expect("first");
        store.delete(vec![key(5)]).await.expect("delete");
        store.put(key(6), Bytes::new(), parts(&pattern(6, 1, 9000))).await.expect("replace");
    })
    .expect("opens");
    // The newest dump is the one with the highest place of its magic and sequence; damage every later one.
    let size = disk.facts().size_bytes as usize;
    let image = disk.raw_read(0, size);
    let newest = image
        .windows(4)
        .enumerate()
        .filter(|(at, w)| *w == b"HFck" && at % 512 == 0)
        .max_by_key(|(at, _)| u64::from_le_bytes(image[at + 24..at + 32].try_into().expect("8 bytes")))
        .expect("a checkpoint was written")
        .0;
    disk.flip_bit(newest as u64 + 40, 1);
    run(&disk, |store, report| async move {
        assert!(report.fell_back, "{report:?}");
        for id in (0..30).filter(|id| *id != 5) {
            let version = u64::from(id == 6);
            assert_eq!(store.get(key(id), 0..u32::MAX).await.expect("get"), pattern(id, version, 9000), "{id}");
        }
        assert_eq!(store.get(key(5), 0..1).await, Err(StoreError::NotFound));
    })
    .expect("opens");
}

#[test]
fn with_every_anchor_lost_the_extents_still_tell() {
    let disk = fresh(64);
    run(&disk, |store, _| async move {
        for id in 0..30 {
            store.put(key(id), Bytes::new(), parts(&pattern(id, 0, 9000))).await.expect("put");
        }
    })
    .expect("opens");
    disk.raw_write(64 << 10, &[0xff; 4096 * 64]);
    disk.raw_write(512 << 10, &[0xff; 4096 * 64]);
    let error = run(&disk, |_, _| async {}).expect_err("nothing is built on what may be an old state");
    assert!(matches!(error, StoreError::Lost { .. }), "{error}");
    block_on(async {
        let store = Store::open(disk.clone(), true).await.expect("opens for reading");
        assert!(store.report().probed, "{:?}", store.report());
        let (tell, handle) = futures::channel::oneshot::channel();
        let serve = store.serve(|handle| drop(tell.send(handle)));
        let work = async {
            let store = handle.await.expect("the store passes its handle");
            for id in 0..30 {
                assert_eq!(store.get(key(id), 0..u32::MAX).await.expect("get"), pattern(id, 0, 9000), "{id}");
            }
        };
        futures::join!(serve, work);
    });
}

#[test]
fn a_device_whose_extents_were_overwritten_is_not_taken_for_an_empty_one() {
    let disk = fresh(64);
    for _ in 0..3 {
        run(&disk, |store, _| async move {
            store.put(key(1), Bytes::new(), parts(&pattern(1, 0, 9000))).await.expect("put");
        })
        .expect("opens");
    }
    disk.raw_write(1 << 20, &vec![0xee; 8 << 20]);
    let error = run(&disk, |_, _| async {}).expect_err("its checkpoints are gone");
    assert!(matches!(error, StoreError::Lost { .. }), "{error}");
}

#[test]
fn a_device_whose_numbers_are_used_up_is_refused_by_name() {
    for (boot, sequence) in [(u32::MAX, 7), (1, u64::MAX)] {
        let disk = fresh(64);
        let anchor = format::Anchor { sequence, boot, checkpoint: None, opened: Vec::new(), partial: false };
        let page = anchor.encode(DeviceId([2; 16]), 77);
        format::Geometry::anchor_offsets(sequence).iter().for_each(|offset| disk.raw_write(*offset, &page));
        let error = run(&disk, |_, _| async {}).expect_err("no number is left");
        assert!(matches!(error, StoreError::Unusable(_)), "{error}");
    }
}

#[test]
fn a_damaged_label_copy_is_survived_and_two_are_refused() {
    let disk = fresh(64);
    let last = disk.facts().size_bytes - 4096;
    disk.flip_bit(20, 0);
    run(&disk, |_, _| async {}).expect("the second copy serves");
    disk.flip_bit(last + 20, 0);
    let error = run(&disk, |_, _| async {}).expect_err("no copy left");
    assert!(matches!(error, StoreError::Unusable(_)), "{error}");
}

#[test]
fn a_record_that_cannot_fit_is_refused_by_name() {
    let disk = fresh(64);
    run(&disk, |store, _| async move {
        let error =
            store.put(key(1), Bytes::new(), parts(&vec![1; EXTENT_BYTES as usize])).await.expect_err("too large");
        assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
        let long = Bytes::from(vec![1; format::DESCRIPTOR_MAX_BYTES + 1]);
        let error = store.put(key(1), long, parts(b"x")).await.expect_err("too large");
        assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    })
    .expect("opens");
}

#[test]
fn read_only_opening_writes_nothing() {
    let disk = fresh(64);
    run(&disk, |store, _| async move {
        store.put(key(1), Bytes::new(), parts(b"kept")).await.expect("put");
    })
    .expect("opens");
    let before = disk.ops();
    block_on(async {
        let store = Store::open(disk.clone(), true).await.expect("opens");
        let (tell, handle) = futures::channel::oneshot::channel();
        let serve = store.serve(|handle| drop(tell.send(handle)));
        let work = async {
            let store = handle.await.expect("the store passes its handle");
            assert_eq!(store.get(key(1), 0..9).await.expect("get"), &b"kept"[..]);
            assert_eq!(store.put(key(2), Bytes::new(), parts(b"x")).await, Err(StoreError::ReadOnly));
            assert_eq!(store.delete(vec![key(1)]).await, Err(StoreError::ReadOnly));
        };
        futures::join!(serve, work);
    });
    assert_eq!(disk.ops(), before);
}
