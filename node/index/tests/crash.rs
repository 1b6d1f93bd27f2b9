//! A partition over three stores in memory: what is answered is there afterwards, through crash and loss.

use std::sync::Arc;

use base::{KIB, Lsn, PartitionId};
use bytes::Bytes;
use index::model::{BucketRow, Command, Condition, ETag, Layout, ObjectMeta, ObjectRow, Outcome};
use index::{IndexError, Mirror, Partition, PartitionConfig, Policy, WITH_COMMAND};
use replica::testing::MemoryStore;

fn config() -> PartitionConfig {
    PartitionConfig {
        partition: PartitionId(1),
        policy: Policy::for_tolerance(6, 2),
        view_cache_bytes: (512 * KIB) as usize,
    }
}

fn stores() -> Vec<Arc<MemoryStore>> {
    (1..=6).map(MemoryStore::new).collect()
}

async fn open(stores: &[Arc<MemoryStore>]) -> Partition {
    let mirrors = stores.iter().map(|s| Arc::clone(s) as Mirror).collect();
    Partition::open(config(), mirrors, 6 - stores.len()).await.unwrap()
}

fn images(stores: &[Arc<MemoryStore>]) -> Vec<Arc<MemoryStore>> {
    stores.iter().map(|s| s.image()).collect()
}

async fn make_bucket(partition: &Partition) {
    let row = BucketRow { owner: "me".into(), created_ms: 1, region: String::new() };
    let outcome = partition.submit(Command::CreateBucket { name: "b".into(), row }, vec![]).await;
    assert_eq!(outcome, Ok(Outcome::Done));
}

async fn put(partition: &Partition, key: &str, data: &'static [u8]) {
    let outcome = try_put(partition, key, data).await.unwrap();
    assert!(matches!(outcome, Outcome::Put(_)), "{outcome:?}");
}

async fn try_put(partition: &Partition, key: &str, data: &'static [u8]) -> Result<Outcome, IndexError> {
    let row = ObjectRow {
        size: data.len() as u64,
        etag: ETag::Whole([7; 16]),
        modified_ms: 5,
        meta: ObjectMeta::default(),
        checksum: None,
        layout: WITH_COMMAND,
    };
    let command = Command::PutObject {
        bucket: "b".into(),
        key: key.into(),
        row,
        condition: Condition::default(),
        missing: vec![],
    };
    partition.submit(command, vec![Bytes::from_static(data)]).await
}

async fn get(partition: &Partition, key: &str) -> Option<Bytes> {
    let row = partition.read(|s| s.object("b", key)).unwrap()?;
    let Layout::Journal { lsn, offset } = row.layout else { panic!("{:?}", row.layout) };
    Some(partition.read_data(lsn, offset..offset + row.size as u32).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_crash() {
    let stores = stores();
    let partition = open(&stores).await;
    make_bucket(&partition).await;
    for key in ["a", "b", "c"] {
        put(&partition, key, b"hello").await;
    }
    assert_eq!(get(&partition, "b").await.as_deref(), Some(&b"hello"[..]));
    let after = open(&images(&stores)).await;
    for key in ["a", "b", "c"] {
        assert_eq!(get(&after, key).await.as_deref(), Some(&b"hello"[..]), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_two_devices_may_be_lost() {
    let stores = stores();
    let partition = open(&stores).await;
    make_bucket(&partition).await;
    put(&partition, "a", b"hello").await;
    partition.checkpoint().await.unwrap();
    put(&partition, "b", b"world").await;
    for lost in [(0, 1), (0, 2), (1, 2), (0, 5), (3, 4)] {
        let left = images(&stores).into_iter().enumerate().filter(|(i, _)| *i != lost.0 && *i != lost.1);
        let left: Vec<_> = left.map(|(_, s)| s).collect();
        let after = open(&left).await;
        assert_eq!(get(&after, "a").await.as_deref(), Some(&b"hello"[..]), "{lost:?}");
        assert_eq!(get(&after, "b").await.as_deref(), Some(&b"world"[..]), "{lost:?}");
        assert_eq!(after.status().journal.live.len(), 3, "recruits took the lost members' place");
        put(&after, "c", b"again").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_partition_opens_at_its_checkpoint() {
    let stores = stores();
    let partition = open(&stores).await;
    make_bucket(&partition).await;
    put(&partition, "a", b"").await;
    partition.close().await.unwrap();
    drop(partition);
    stores.iter().for_each(|s| s.fail());
    let after = open(&images(&stores)).await;
    assert_eq!(after.status().journal.floor, Lsn(2));
    assert_eq!(after.read(|s| s.object("b", "a")).unwrap().unwrap().layout, Layout::Stripes(vec![]));
}

/// Every device stops after the same number of writes, wherever in an opening, a batch, a checkpoint or a
/// trim that falls; what was answered is there when they come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_every_write_loses_nothing_that_was_answered() {
    let keys: Vec<String> = (0..30).map(|i| format!("some/key/number/{i}")).collect();
    let mut crashed = 0;
    for writes in (1..60).chain((60..400).step_by(7)) {
        let stores = stores();
        stores.iter().for_each(|s| s.fail_after(writes));
        let mut answered = Vec::new();
        let mirrors = stores.iter().map(|s| Arc::clone(s) as Mirror).collect();
        if let Ok(partition) = Partition::open(config(), mirrors, 0).await {
            let row = BucketRow { owner: "me".into(), created_ms: 1, region: String::new() };
            let made = partition.submit(Command::CreateBucket { name: "b".into(), row }, vec![]).await;
            for key in keys.iter().filter(|_| made.is_ok()) {
                if try_put(&partition, key, b"hello").await.is_ok() {
                    answered.push(key);
                }
                if answered.len() % 10 == 9 {
                    // Fails when the devices do; the next opening tells what that left.
                    let _ = partition.checkpoint().await;
                }
            }
        }
        crashed += usize::from(answered.len() < keys.len());
        let after = open(&images(&stores)).await;
        for key in answered {
            assert_eq!(get(&after, key).await.as_deref(), Some(&b"hello"[..]), "{key} after {writes} writes");
        }
        if after.read(|s| s.bucket("b")).unwrap().is_some() {
            put(&after, "more", b"hello").await;
        }
        after.checkpoint().await.unwrap();
    }
    assert!(crashed > 50, "{crashed} runs were cut short");
}
