//! The map changes while requests are under way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use object::api::{Body, BodyDigest, BodyError, Condition, ObjectApi, ObjectError, ObjectMeta, Reader};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::fake::{FakeStore, MS, Mood, Rig, Way, collect_all_garbage, get, put, timed, view};
use crate::rack::{collect, pattern};

const LEN: usize = 300_000;

/// A body that comes when it is sent.
pub(crate) struct Sent(mpsc::Receiver<Bytes>);

impl Sent {
    pub(crate) fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (tx, rx) = mpsc::channel(1);
        (tx, Self(rx))
    }
}

impl Body for Sent {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        self.0.recv().await.map(Ok)
    }

    fn size_hint(&self) -> Option<u64> {
        None
    }

    fn finish(&mut self) -> Result<BodyDigest, BodyError> {
        Ok(BodyDigest { md5: [1; 16], checksum: None })
    }
}

/// The devices with another one in the place of `at`.
fn swapped(stores: &[Arc<FakeStore>], at: usize, new: &Arc<FakeStore>) -> Vec<Arc<FakeStore>> {
    let mut stores = stores.to_vec();
    stores[at] = Arc::clone(new);
    stores
}

/// Moves what a device holds.
fn move_all(from: &FakeStore, to: &FakeStore) {
    to.records.lock().unwrap().append(&mut from.records.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_put_that_outlives_its_map_owes_the_shards_of_the_moved_slot() {
    let rig = Rig::new(6).await;
    let (tx, mut body) = Sent::new();
    let objects = rig.objects.clone();
    let under_way = tokio::spawn(async move {
        objects.put("bucket", "k", ObjectMeta::default(), Condition::default(), &mut body).await
    });
    // Two stripes are written by the old map, then the rest.
    let bytes = pattern(7, 9_500_000);
    for piece in bytes[..9_000_000].chunks(100_000) {
        tx.send(Bytes::copy_from_slice(piece)).await.expect("taken");
    }
    sleep(100 * MS).await;
    let new = FakeStore::new(20);
    let stores = swapped(&rig.stores, 2, &new);
    assert_eq!(rig.objects.replace_topology(view(2, &stores)), Ok(true));
    for piece in bytes[9_000_000..].chunks(100_000) {
        tx.send(Bytes::copy_from_slice(piece)).await.expect("taken");
    }
    drop(tx);
    under_way.await.expect("ends").expect("put");
    // Three stripes of one run, each with one slot that has moved.
    assert_eq!(rig.objects.missing_shards(100).await.expect("rows"), 3);
    assert_eq!(new.keys().len(), 0, "who began with a view keeps it");
    assert!(get(&rig.objects, "k").await.expect("get") == bytes);
    put(&rig.objects, "later", &pattern(8, LEN)).await.expect("put");
    assert_eq!((new.keys().len(), rig.stores[2].keys().len()), (1, 3));
    assert_eq!(rig.objects.replace_topology(view(1, &rig.stores)), Ok(false), "an older map changes nothing");
    assert_eq!(rig.objects.topology().epoch(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_under_an_old_map_goes_on_under_the_new_one() {
    let rig = Rig::new(9).await;
    let bytes = pattern(3, 9_000_000);
    put(&rig.objects, "k", &bytes).await.expect("put");
    // Three devices are replaced while the reader is under way: the old map's slots no longer hold enough.
    let (_, reader) = rig.objects.open("bucket", "k").await.expect("open");
    let mut stores = rig.stores.clone();
    let news: Vec<_> = (20..23).map(FakeStore::new).collect();
    let holders: Vec<usize> = (0..9).filter(|n| !rig.stores[*n].keys().is_empty()).collect();
    assert_eq!(holders.len(), 6);
    for (at, new) in holders.iter().zip(&news) {
        move_all(&rig.stores[*at], new);
        stores = swapped(&stores, *at, new);
    }
    let objects = rig.objects.clone();
    let newer = view(2, &stores);
    let switch = tokio::spawn(async move {
        // The first reads are on their way by then, and meet devices that hold nothing.
        sleep(2 * MS).await;
        assert_eq!(objects.replace_topology(newer), Ok(true));
    });
    assert!(collect(reader, 0..9_000_000).await.expect("read") == bytes);
    switch.await.expect("switched");
    assert!(rig.objects.stats().views_renewed.load(Ordering::Relaxed) > 0);
}

#[tokio::test(start_paused = true)]
async fn hosts_that_are_ahead_are_caught_up_with() {
    let rig = Rig::new(6).await;
    put(&rig.objects, "old", &pattern(1, LEN)).await.expect("put");
    rig.stores.iter().for_each(|store| store.is(Mood::Ahead(5)));
    let (objects, stores) = (rig.objects.clone(), rig.stores.clone());
    let newer = view(5, &rig.stores);
    let switch = tokio::spawn(async move {
        sleep(200 * MS).await;
        stores.iter().for_each(|store| store.callers_epoch.store(5, Ordering::Relaxed));
        assert_eq!(objects.replace_topology(newer), Ok(true));
    });
    let read = async { timed(get(&rig.objects, "old")).await };
    let write = async { timed(put(&rig.objects, "new", &pattern(2, LEN))).await };
    let ((read, read_time), (written, write_time)) = futures::join!(read, write);
    assert!(read.expect("get") == pattern(1, LEN));
    written.expect("put");
    assert!(read_time.max(write_time) < 250 * MS, "{read_time:?}, {write_time:?}");
    assert_eq!(rig.objects.missing_shards(10).await.expect("rows"), 0);
    switch.await.expect("switched");
    // No newer map comes: an error that clients may try again, after a bounded wait.
    rig.stores.iter().for_each(|store| store.is(Mood::Ahead(6)));
    let (refused, time) = timed(put(&rig.objects, "never", &pattern(2, LEN))).await;
    assert!(matches!(refused, Err(ObjectError::Unavailable(_))), "{refused:?}");
    assert!(time <= Duration::from_millis(1010), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_cannot_be_reached_is_unavailable_and_nothing_is_lost() {
    let rig = Rig::new(6).await;
    let (node, prompt) = rig.another().await;
    put(&node, "k", &pattern(1, LEN)).await.expect("put");
    *prompt.way.lock().unwrap() = Way::Closed;
    for error in [put(&node, "k", &pattern(2, LEN)).await.err(), get(&node, "k").await.err()] {
        assert!(matches!(error, Some(ObjectError::Unavailable(_))), "{error:?}");
    }
    *prompt.way.lock().unwrap() = Way::Open;
    // It goes away while a body is on its way: the command was certainly not carried out, its stripes are freed.
    let cut = |way, key: &'static str, seed| {
        let (tx, mut body) = Sent::new();
        let (node, prompt) = (node.clone(), prompt.clone());
        let under_way = tokio::spawn(async move {
            node.put("bucket", key, ObjectMeta::default(), Condition::default(), &mut body).await
        });
        async move {
            let bytes = pattern(seed, LEN);
            tx.send(Bytes::copy_from_slice(&bytes)).await.expect("taken");
            sleep(20 * MS).await;
            *prompt.way.lock().unwrap() = way;
            drop(tx);
            let done = under_way.await.expect("ends");
            *prompt.way.lock().unwrap() = Way::Open;
            done
        }
    };
    // Ids are taken by then.
    let error = cut(Way::Closed, "closed", 3).await.expect_err("closed");
    assert!(matches!(error, ObjectError::Unavailable(_)), "{error}");
    collect_all_garbage(&node).await;
    assert_eq!(rig.shards(), 6);
    // The command arrives and the answer is lost: the stripes may be an object's, and here they are.
    let error = cut(Way::Deaf, "one way", 4).await.expect_err("no answer");
    assert!(matches!(error, ObjectError::Unavailable(_)), "{error}");
    collect_all_garbage(&node).await;
    assert!(get(&node, "one way").await.expect("it is there") == pattern(4, LEN));
    assert!(get(&node, "k").await.expect("get") == pattern(1, LEN));
}

#[tokio::test(start_paused = true)]
async fn a_reader_keeps_its_range_whatever_is_replaced() {
    let rig = Rig::new(6).await;
    let bytes = pattern(5, 20_000_000);
    put(&rig.objects, "k", &bytes).await.expect("put");
    let (_, reader) = rig.objects.open("bucket", "k").await.expect("open");
    let mut stream = reader.read(1_000_003..19_999_999);
    let mut got = Vec::new();
    let mut epoch = 1;
    let mut stores = rig.stores.clone();
    while let Some(piece) = futures::StreamExt::next(&mut stream).await {
        got.extend_from_slice(&piece.expect("reads go on"));
        // With every piece a device moves.
        epoch += 1;
        let at = epoch as usize % 6;
        let new = FakeStore::new(100 + epoch as u8);
        move_all(&stores[at], &new);
        stores = swapped(&stores, at, &new);
        assert_eq!(rig.objects.replace_topology(view(epoch, &stores)), Ok(true));
    }
    assert!(epoch > 4 && got == bytes[1_000_003..19_999_999]);
}
