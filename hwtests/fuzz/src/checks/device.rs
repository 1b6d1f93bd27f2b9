//! A damaged or forged device, opened read-only and read in every way there is.
//!
//! Whatever is on it: no panic, no read outside the device, memory within a bound, everything ends. Where
//! no checksum was forged, what is given out for a key was once written for that key.

use format::ShardKey;
use futures::executor::block_on;
use shards::{Payload, ScanPosition, Store, StoreError, StoreHandle};

use crate::bounded;
use crate::image::{damaged, golden};

/// Bytes a store of the image may hold at once: an extent, both rings, and a record or two.
const BYTES_MAX: usize = 16 << 20;
/// Steps after which something that should end has not.
const STEPS_MAX: usize = 20_000;

pub(crate) fn device(data: &[u8]) {
    golden();
    let (disk, forged) = damaged(data);
    bounded(0, 0, BYTES_MAX, || {
        block_on(async {
            let Ok(store) = Store::open(disk, true).await else { return };
            let (tell, handle) = futures::channel::oneshot::channel();
            let work = async { read_all(&handle.await.expect("the store passes its handle"), forged).await };
            futures::join!(store.serve(|handle| drop(tell.send(handle))), work);
        });
    });
}

async fn read_all(store: &StoreHandle, forged: bool) {
    let mut after: Option<ShardKey> = None;
    for step in 0.. {
        assert!(step < STEPS_MAX, "a listing ends");
        let page = store.list(after, 50).await.expect("listing needs no medium");
        for info in &page {
            assert!(after.is_none_or(|after| after < info.key), "a listing ascends");
            after = Some(info.key);
            read(store, info.key, info.len, forged).await;
        }
        if page.len() < 50 {
            break;
        }
    }
    let mut from: Option<ScanPosition> = None;
    for step in 0.. {
        assert!(step < STEPS_MAX, "an audit ends");
        let report = store.verify(from, 64 << 10).await.expect("an audit reports what it finds");
        from = report.next;
        if from.is_none() {
            break;
        }
    }
    let put = store.put(ShardKey::fact(9, 9), vec![].into(), Payload::Parts(vec![])).await;
    assert_eq!(put, Err(StoreError::ReadOnly), "nothing is written");
    store.stats().await.expect("counters");
    store.faults().await.expect("faults");
}

async fn read(store: &StoreHandle, key: ShardKey, len: u32, forged: bool) {
    let whole = store.get(key, 0..u32::MAX).await;
    if let Ok(whole) = &whole {
        assert_eq!(whole.len(), len as usize, "a record is as long as listed");
        let known = golden().written.get(&key);
        assert!(forged || known.is_some_and(|known| known.iter().any(|k| k == whole)), "wrong bytes for {key:?}");
    }
    for range in [0..1, 1..64, 4095..4097, 30_000..40_000] {
        let part = store.get(key, range.clone()).await;
        if let (Ok(whole), Ok(part)) = (&whole, &part) {
            let end = (range.end as usize).min(whole.len());
            assert_eq!(*part, whole[(range.start as usize).min(end)..end], "a part is that of the whole");
        }
    }
    if let Ok((described, _)) = store.describe(key).await {
        assert_eq!(described, len, "a record is as long as listed");
    }
}
