//! Objects over six disks: what is promised while all is well, while devices are missing or rotten, and
//! after kills; each with the partition asked directly, and by messages as from another host.

use std::sync::atomic::Ordering;

use object::Intake;
use object::api::{BodyError, Condition, ListQuery, ObjectApi, ObjectError, ObjectMeta};

use crate::rack::{Access, DEVICES, Given, Rack, collect, pattern};

const DISK_BYTES: u64 = 256 << 20;

/// Lengths around the corners: inline limit, shard, stripe, run.
const SIZES: [usize; 9] = [0, 1, 65_536, 65_537, 300_001, 1 << 20, 4 << 20, (4 << 20) + 1, 9_000_000];

async fn rack(access: Access) -> Rack {
    let rack = Rack::new(DISK_BYTES, access).await;
    rack.objects().create_bucket("bucket", "me", "here").await.expect("a bucket");
    rack
}

async fn put_all(rack: &Rack) {
    for (n, len) in SIZES.iter().enumerate() {
        let info = rack.put(&format!("k{n}"), &pattern(n as u64, *len)).await.expect("put");
        assert_eq!(info.size, *len as u64);
    }
}

async fn check_all(rack: &Rack, when: &str) {
    for (n, len) in SIZES.iter().enumerate() {
        let got = rack.get(&format!("k{n}")).await.unwrap_or_else(|error| panic!("{len} bytes, {when}: {error}"));
        assert!(got == pattern(n as u64, *len), "{len} bytes, {when}");
    }
}

async fn any_two_devices_may_be_missing(access: Access) {
    let mut rack = rack(access).await;
    put_all(&rack).await;
    check_all(&rack, "all well").await;
    for first in 0..DEVICES {
        let away = [first, (first + 1 + first % 4) % DEVICES];
        rack.restart(&away).await.expect("starts");
        check_all(&rack, &format!("without {away:?}")).await;
    }
    rack.restart(&[]).await.expect("starts");
    check_all(&rack, "all back").await;
}

async fn three_missing_devices_are_refused_by_name(access: Access) {
    let mut rack = rack(access).await;
    put_all(&rack).await;
    assert!(rack.restart(&[0, 1, 2]).await.is_err());
}

async fn ranges_are_exact(access: Access) {
    let mut rack = rack(access).await;
    put_all(&rack).await;
    for away in [&[][..], &[1, 4][..]] {
        rack.restart(away).await.expect("starts");
        let want = pattern(8, SIZES[8]);
        for range in [0..1, 4_194_303..4_194_305, 1_048_000..3_000_000, 8_999_999..9_000_000, 5..5] {
            let (_, reader) = rack.objects().open("bucket", "k8").await.expect("open");
            let got = collect(reader, range.clone()).await.expect("read");
            assert!(got == want[range.start as usize..range.end as usize], "{range:?} without {away:?}");
        }
    }
}

async fn one_missing_device_is_tolerated_by_writes_and_owed(access: Access) {
    let mut rack = rack(access).await;
    rack.restart(&[2]).await.expect("starts");
    put_all(&rack).await;
    check_all(&rack, "one missing").await;
    assert!(rack.objects().missing_shards(1000).await.expect("rows") > 0, "the shards of the missing device are owed");
    // One more may be lost now.
    rack.restart(&[2, 5]).await.expect("starts");
    check_all(&rack, "two missing").await;
    let error = rack.put("refused", &pattern(1, 200_000)).await.expect_err("below the tolerance");
    assert!(matches!(error, ObjectError::Unavailable(_)), "{error}");
    assert_eq!(rack.objects().look_at_devices().await, Intake::TooFewDevices);
    let error = rack.put("refused", b"small").await.expect_err("missing devices are not full ones");
    assert!(matches!(error, ObjectError::Unavailable(_)), "{error}");
    assert_eq!(rack.get("refused").await, Err(ObjectError::NoSuchKey));
}

async fn rot_is_computed_around_and_counted(access: Access) {
    let rack = rack(access).await;
    put_all(&rack).await;
    for disk in [0, 3] {
        rack.with_disk(disk, |disk| {
            // Behind labels, anchors and the first headers: bits all over the extents.
            for mib in 2..60 {
                for at in 0..16u64 {
                    disk.flip_bit((mib << 20) + at * 65_536 + 20_000, 3);
                }
            }
        })
        .await;
    }
    check_all(&rack, "two rotten").await;
    assert!(rack.objects().stats().shards_unreadable.load(Ordering::Relaxed) > 0, "rot was met");
}

async fn a_body_that_breaks_off_leaves_nothing(access: Access) {
    let mut rack = rack(access).await;
    rack.put("kept", &pattern(1, 500_000)).await.expect("put");
    for len in [1000, 5_000_000] {
        let mut body = Given::broken(&pattern(2, 10_000_000), len);
        let put = rack.objects().put("bucket", "kept", ObjectMeta::default(), Condition::default(), &mut body).await;
        assert_eq!(put.expect_err("broken"), ObjectError::Body(BodyError::Incomplete));
    }
    assert!(rack.get("kept").await.expect("the old one") == pattern(1, 500_000));
    while rack.objects().collect_garbage().await.expect("garbage") {}
    assert!(rack.objects().stats().orphans_freed.load(Ordering::Relaxed) > 0, "its stripes were freed");
    // A process that dies in the middle cannot free: the next start finds them.
    let objects = rack.objects().clone();
    let cut = tokio::spawn(async move {
        let mut body = Given::new(&pattern(2, 60_000_000));
        objects.put("bucket", "cut", ObjectMeta::default(), Condition::default(), &mut body).await
    });
    while rack.objects().stats().stripes_written.load(Ordering::Relaxed) < 4 {
        tokio::task::yield_now().await;
    }
    rack.kill();
    let _ = cut.await;
    rack.start(&[]).await.expect("starts");
    let found = rack.get("cut").await;
    let swept = rack.objects().sweep_orphans().await.expect("sweep");
    match found {
        Err(ObjectError::NoSuchKey) => assert!(swept > 0, "its shards were found"),
        whole => assert!(whole.expect("all or nothing") == pattern(2, 60_000_000)),
    }
    assert_eq!(rack.objects().sweep_orphans().await.expect("sweep"), 0);
    assert!(rack.get("kept").await.expect("the old one") == pattern(1, 500_000));
}

async fn the_packer_moves_small_objects_and_nobody_notices(access: Access) {
    let mut rack = rack(access).await;
    for n in 0..300u64 {
        rack.put(&format!("small/{n:03}"), &pattern(n, 1 + (n as usize * 577) % 60_000)).await.expect("put");
    }
    let mut moved = 0;
    while let Some(report) = rack.objects().pack(true).await.expect("pack") {
        moved += report.moved;
    }
    assert_eq!(moved, 300);
    rack.objects().checkpoint().await.expect("checkpoint");
    assert!(rack.objects().index_status().expect("it is here").journal.floor.0 > 250, "the journal was trimmed");
    for away in [&[][..], &[0, 5][..]] {
        rack.restart(away).await.expect("starts");
        for n in 0..300u64 {
            let got = rack.get(&format!("small/{n:03}")).await.expect("get");
            assert!(got == pattern(n, 1 + (n as usize * 577) % 60_000), "{n} without {away:?}");
        }
    }
    rack.restart(&[]).await.expect("starts");
    // Deleting most of a pack makes it worth gathering again; deleting the rest frees it.
    for n in 0..300u64 {
        if n % 10 != 0 {
            rack.objects().delete("bucket", &format!("small/{n:03}"), Condition::default()).await.expect("delete");
        }
    }
    while rack.objects().pack(true).await.expect("pack").is_some() {}
    while rack.objects().collect_garbage().await.expect("garbage") {}
    for n in (0..300u64).step_by(10) {
        assert!(rack.get(&format!("small/{n:03}")).await.expect("get") == pattern(n, 1 + (n as usize * 577) % 60_000));
    }
    let page = rack.objects().list("bucket", &ListQuery { limit: 1000, ..ListQuery::default() }).await.expect("list");
    assert_eq!(page.objects.len(), 30);
}

async fn a_reader_keeps_what_it_reads(access: Access) {
    let rack = rack(access).await;
    rack.put("big", &pattern(1, 9_000_000)).await.expect("put");
    let (info, reader) = rack.objects().open("bucket", "big").await.expect("open");
    rack.put("big", &pattern(2, 9_000_000)).await.expect("overwrite");
    for _ in 0..3 {
        rack.objects().collect_garbage().await.expect("garbage");
    }
    assert!(collect(reader, 0..info.size).await.expect("the old one, whole") == pattern(1, 9_000_000));
    assert!(rack.get("big").await.expect("the new one") == pattern(2, 9_000_000));
    while !rack.objects().collect_garbage().await.expect("garbage") {}
    assert!(rack.objects().stats().stripes_freed.load(Ordering::Relaxed) >= 3, "the old stripes were freed");
}

async fn later_readers_do_not_hold_garbage_back(access: Access) {
    let rack = rack(access).await;
    rack.put("big", &pattern(1, 9_000_000)).await.expect("put");
    let freed = || rack.objects().stats().stripes_freed.load(Ordering::Relaxed);
    let (_, mut reader) = rack.objects().open("bucket", "big").await.expect("open");
    rack.put("big", &pattern(2, 9_000_000)).await.expect("overwrite");
    // On a busy node some reader is always under way: each ends only after the next has begun.
    for round in 0..10 {
        rack.objects().collect_garbage().await.expect("garbage");
        if round == 0 {
            assert_eq!(freed(), 0, "the first reader may still need it");
        }
        reader = rack.objects().open("bucket", "big").await.expect("open").1;
    }
    assert!(freed() >= 3, "only {} stripes were freed", freed());
    assert!(collect(reader, 0..9_000_000).await.expect("read") == pattern(2, 9_000_000));
}

async fn full_devices_refuse_puts_serve_reads_and_come_back(access: Access) {
    let mut rack = Rack::new(160 << 20, access).await;
    rack.objects().create_bucket("bucket", "me", "here").await.expect("a bucket");
    let mut stored = 0u64;
    let refused = loop {
        match rack.put(&format!("f{stored}"), &pattern(stored, 3_000_000)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ObjectError::InsufficientStorage);
    assert!(stored > 20, "only {stored} objects fit");
    assert_eq!(rack.objects().look_at_devices().await, Intake::Full);
    assert_eq!(rack.put("small", b"x").await.expect_err("full"), ObjectError::InsufficientStorage);
    for n in 0..stored {
        assert!(rack.get(&format!("f{n}")).await.expect("reads go on") == pattern(n, 3_000_000));
    }
    for n in 0..stored - 3 {
        let deleted = rack.objects().delete("bucket", &format!("f{n}"), Condition::default()).await;
        assert!(deleted.expect("deletes go on"));
    }
    let mut tries = 0;
    while rack.objects().look_at_devices().await != Intake::Open {
        rack.objects().collect_garbage().await.expect("garbage");
        tries += 1;
        assert!(tries < 1000, "deleting brings the space back");
    }
    rack.put("again", &pattern(99, 3_000_000)).await.expect("there is room again");
    rack.restart(&[]).await.expect("starts");
    assert!(rack.get("again").await.expect("get") == pattern(99, 3_000_000));
}

async fn uploads_and_listings(access: Access) {
    let mut rack = rack(access).await;
    let objects = rack.objects().clone();
    for name in ["another", "zebra"] {
        objects.create_bucket(name, "me", "here").await.expect("a bucket");
    }
    let again = objects.create_bucket("zebra", "you", "here").await;
    assert_eq!(again, Err(ObjectError::BucketExists { owner: "me".into() }));
    let names: Vec<String> = objects.list_buckets().await.expect("buckets").into_iter().map(|b| b.name).collect();
    assert_eq!(names, ["another", "bucket", "zebra"]);
    let meta = ObjectMeta { content_type: Some("text/plain".into()), ..ObjectMeta::default() };
    let upload = objects.create_upload("bucket", "whole", "me", meta.clone(), None).await.expect("begins");
    let mut parts = Vec::new();
    for (number, len) in [(1, 6_000_000), (2, 5 << 20), (7, 1000)] {
        let mut body = Given::new(&pattern(number, len));
        let part = objects.put_part("bucket", "whole", upload, number as u32, &mut body).await.expect("a part");
        parts.push((part.number, part.md5));
    }
    let (page, more) = objects.list_parts("bucket", "whole", upload, 1, 1).await.expect("parts");
    assert!(page.len() == 1 && page[0].number == 2 && more);
    let (uploads, more) = objects.list_uploads("bucket", "wh", None, 10).await.expect("uploads");
    assert!(uploads.len() == 1 && uploads[0].upload == upload && !more);
    assert!(matches!(objects.list_uploads("none", "", None, 1).await, Err(ObjectError::NoSuchBucket)));
    let wrong = vec![(1, [9; 16])];
    let refused = objects.complete_upload("bucket", "whole", upload, wrong, None, Condition::default()).await;
    assert_eq!(refused, Err(ObjectError::InvalidPart { number: 1 }));
    let info = objects.complete_upload("bucket", "whole", upload, parts, None, Condition::default()).await;
    let info = info.expect("completes");
    assert_eq!((info.parts.len(), info.meta), (3, meta));
    let whole = [pattern(1, 6_000_000), pattern(2, 5 << 20), pattern(7, 1000)].concat();
    assert!(rack.get("whole").await.expect("get") == whole);
    // The small part becomes a member of a pack.
    assert!(objects.pack(true).await.expect("pack").is_some());
    assert!(rack.get("whole").await.expect("get") == whole);
    let given_up =
        objects.create_upload("bucket", "given up", "me", ObjectMeta::default(), None).await.expect("begins");
    objects.abort_upload("bucket", "given up", given_up).await.expect("gives up");
    let gone = objects.head_upload("bucket", "given up", given_up).await;
    assert!(matches!(gone, Err(ObjectError::NoSuchUpload)));
    for n in 0..25 {
        rack.put(&format!("d{}/{n:02}", n % 5), b"x").await.expect("put");
    }
    let mut query = ListQuery { delimiter: Some("/".into()), limit: 2, ..ListQuery::default() };
    let mut found = Vec::new();
    loop {
        let page = objects.list("bucket", &query).await.expect("list");
        found.extend(page.prefixes);
        found.extend(page.objects.into_iter().map(|object| object.key));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(found, ["d0/", "d1/", "d2/", "d3/", "d4/", "whole"]);
    let none_there = Condition { must_not_exist: true, ..Condition::default() };
    let put = objects.put("bucket", "whole", ObjectMeta::default(), none_there, &mut Given::new(b"x")).await;
    assert_eq!(put.expect_err("it is there"), ObjectError::PreconditionFailed);
    rack.restart(&[4]).await.expect("starts");
    assert!(rack.get("whole").await.expect("get") == whole);
    assert_eq!(rack.objects().counters().await.expect("counters").objects, 26);
}

macro_rules! on_the_spot_and_over_the_wire {
    ($($name:ident),* $(,)?) => {
        mod on_the_spot {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Access::Direct).await;
            })*
        }
        mod over_the_wire {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Access::Messages).await;
            })*
        }
    };
}

on_the_spot_and_over_the_wire!(
    any_two_devices_may_be_missing,
    three_missing_devices_are_refused_by_name,
    ranges_are_exact,
    one_missing_device_is_tolerated_by_writes_and_owed,
    rot_is_computed_around_and_counted,
    a_body_that_breaks_off_leaves_nothing,
    the_packer_moves_small_objects_and_nobody_notices,
    a_reader_keeps_what_it_reads,
    later_readers_do_not_hold_garbage_back,
    full_devices_refuse_puts_serve_reads_and_come_back,
    uploads_and_listings,
);
