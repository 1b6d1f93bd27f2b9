//! Devices that fail and blocks that rot while a partition serves.

use std::sync::Arc;

use base::{Lsn, PartitionId};
use bytes::Bytes;
use format::{ShardKey, Space};
use index::model::{BucketRow, Command, Condition, ETag, Layout, ObjectMeta, ObjectRow, Outcome, PartRow, UploadRow};
use index::{IndexError, Mirror, Partition, PartitionConfig, Policy, WITH_COMMAND};
use replica::JournalError;
use replica::testing::MemoryStore;

fn stores() -> Vec<Arc<MemoryStore>> {
    (1..=6).map(MemoryStore::new).collect()
}

async fn open(stores: &[Arc<MemoryStore>]) -> Result<Partition, IndexError> {
    let config =
        PartitionConfig { partition: PartitionId(1), policy: Policy::for_tolerance(6, 2), view_cache_bytes: 64 << 10 };
    let mirrors = stores.iter().map(|s| Arc::clone(s) as Mirror).collect();
    Partition::open(config, mirrors, 6 - stores.len()).await
}

async fn bucket(partition: &Partition) {
    let row = BucketRow { owner: "me".into(), created_ms: 1, region: String::new() };
    partition.submit(Command::CreateBucket { name: "b".into(), row }, vec![]).await.unwrap();
}

fn object(key: &str, data: &Bytes) -> Command {
    let row = ObjectRow {
        size: data.len() as u64,
        etag: ETag::Whole([7; 16]),
        modified_ms: 5,
        meta: ObjectMeta { content_type: Some("x".repeat(300)), ..ObjectMeta::default() },
        checksum: None,
        layout: WITH_COMMAND,
    };
    Command::PutObject { bucket: "b".into(), key: key.into(), row, condition: Condition::default(), missing: vec![] }
}

async fn put(partition: &Partition, key: &str) -> Result<Outcome, IndexError> {
    let data = Bytes::from(key.as_bytes().to_vec());
    partition.submit(object(key, &data), vec![data]).await
}

async fn fill(partition: &Partition, count: usize) {
    bucket(partition).await;
    let puts = (0..count).map(|i| async move { put(partition, &format!("key-{i:05}")).await });
    for outcome in futures::future::join_all(puts).await {
        outcome.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_mirror_is_left_behind_and_the_second_stops_writes_but_not_reads() {
    let stores = stores();
    let partition = open(&stores).await.unwrap();
    fill(&partition, 10).await;
    stores[0].fail();
    put(&partition, "one gone").await.unwrap();
    assert_eq!(partition.status().journal.live.len(), 2);
    stores[1].fail();
    let mut refused = 0;
    for _ in 0..3 {
        match put(&partition, "two gone").await {
            Err(IndexError::Journal(JournalError::Unknown | JournalError::TooFewCopies { .. })) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 3);
    let row = partition.read(|s| s.object("b", "one gone")).unwrap().unwrap();
    let Layout::Journal { lsn, offset } = row.layout else { panic!("{row:?}") };
    assert_eq!(&partition.read_data(lsn, offset..offset + 8).await.unwrap()[..], b"one gone");
    // The next opening recruits.
    let images: Vec<_> = stores.iter().map(|s| s.image()).collect();
    let after = open(&images[1..]).await.unwrap();
    assert!(after.read(|s| s.object("b", "one gone")).unwrap().is_some());
    put(&after, "again").await.unwrap();
    assert_eq!(after.status().journal.live.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotten_index_blocks_take_the_view_out_of_use_and_another_serves() {
    let stores = stores();
    let partition = open(&stores).await.unwrap();
    fill(&partition, 2000).await;
    partition.checkpoint().await.unwrap();
    partition.close().await.unwrap();
    drop(partition);
    let images: Vec<_> = stores.iter().map(|s| s.image()).collect();
    let partition = open(&images).await.unwrap();
    let serving = partition.status().views.iter().position(|v| v.serving).unwrap();
    let store = &images[serving];
    for key in store.keys().into_iter().filter(|key| key.space == Space::Region && key.id > 8) {
        store.rot(key);
    }
    for i in 0..2000 {
        let key = format!("key-{i:05}");
        assert!(partition.read(|s| s.object("b", &key)).unwrap().is_some(), "{key}");
    }
    let status = partition.status();
    assert!(status.views[serving].failure.is_some() && !status.views[serving].serving, "{status:?}");
    put(&partition, "still written").await.unwrap();
    // The next opening makes the rotten view anew.
    let images: Vec<_> = stores.iter().zip(&images).map(|(_, i)| i.image()).collect();
    for key in images[serving].keys().into_iter().filter(|key| key.space == Space::Region && key.id > 8) {
        images[serving].rot(key);
    }
    let after = open(&images).await.unwrap();
    assert!(after.status().views.iter().all(|v| v.failure.is_none()));
    assert!(after.read(|s| s.object("b", "still written")).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_journal_record_is_read_elsewhere_and_written_again() {
    let stores = stores();
    let partition = open(&stores).await.unwrap();
    bucket(&partition).await;
    put(&partition, "k").await.unwrap();
    let row = partition.read(|s| s.object("b", "k")).unwrap().unwrap();
    let Layout::Journal { lsn, offset } = row.layout else { panic!("{row:?}") };
    let key = ShardKey::journal(PartitionId(1), lsn);
    for store in &stores[..2] {
        store.rot(key);
    }
    for _ in 0..3 {
        assert_eq!(&partition.read_data(lsn, offset..offset + 1).await.unwrap()[..], b"k");
    }
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    stores[2].rot(key);
    assert_eq!(&partition.read_data(lsn, offset..offset + 1).await.unwrap()[..], b"k", "healed copies serve");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_missing_devices_are_refused_by_name() {
    let stores = stores();
    drop(open(&stores).await.unwrap());
    let refused = open(&stores[..3]).await.unwrap_err();
    assert_eq!(refused.to_string(), "3 devices are missing; the journal can be opened with at most 2 missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_record_in_the_middle_is_refused_not_skipped() {
    let stores = stores();
    let partition = open(&stores).await.unwrap();
    fill(&partition, 5).await;
    put(&partition, "more").await.unwrap();
    partition.close().await.unwrap();
    let images: Vec<_> = stores.iter().map(|s| s.image()).collect();
    let reopened = open(&images).await.unwrap();
    let floor = reopened.status().journal.floor;
    reopened.close().await.unwrap();
    let images: Vec<_> = images.iter().map(|s| s.image()).collect();
    let lost = images.iter().filter(|s| s.lose(ShardKey::journal(PartitionId(1), floor))).count();
    assert_eq!(lost, 3);
    let refused = open(&images).await.unwrap_err();
    assert!(refused.to_string().contains("is on no member"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_parts_are_kept_out_of_the_compact_row() {
    let stores = stores();
    let partition = open(&stores).await.unwrap();
    bucket(&partition).await;
    let row =
        UploadRow { key: "k".into(), started_ms: 1, meta: ObjectMeta::default(), checksum: None, owner: "me".into() };
    partition.submit(Command::CreateUpload { bucket: "b".into(), upload: 9, row }, vec![]).await.unwrap();
    let part = |number: u32| {
        let run = index::model::StripeRun {
            first: base::StripeId(u64::from(number) * 2),
            count: 2,
            group: 0,
            stripe_bytes: 4 << 20,
            bytes: 5 << 20,
        };
        let layout = Layout::Stripes(vec![run]);
        let row = PartRow { size: 5 << 20, md5: [1; 16], checksum: None, modified_ms: 2, layout };
        Command::PutPart { bucket: "b".into(), upload: 9, number, row, missing: vec![] }
    };
    let puts = (1..=1000).map(|number| partition.submit(part(number), vec![]));
    for outcome in futures::future::join_all(puts).await {
        assert_eq!(outcome, Ok(Outcome::Done));
    }
    let complete = Command::CompleteUpload {
        bucket: "b".into(),
        key: "k".into(),
        upload: 9,
        parts: (1..=1000).map(|number| (number, [1; 16])).collect(),
        modified_ms: 3,
        checksum: None,
        condition: Condition::default(),
    };
    let Ok(Outcome::Put(row)) = partition.submit(complete.clone(), vec![]).await else { panic!("not completed") };
    assert_eq!(partition.read(|s| s.object("b", "k")).unwrap().as_ref(), Some(&*row));
    assert_eq!(partition.submit(complete, vec![]).await, Ok(Outcome::Put(row)), "again, the same");
    let delete = |condition| Command::DeleteObject { bucket: "b".into(), key: "k".into(), condition };
    let wrong = Condition { must_have_size: Some(1), ..Condition::default() };
    assert!(matches!(partition.submit(delete(wrong), vec![]).await, Ok(Outcome::Refused(_))));
    let deleted = partition.submit(delete(Condition::default()), vec![]).await;
    assert_eq!(deleted, Ok(Outcome::Deleted { existed: true }));
    let garbage = partition.read(|s| s.garbage(0, 10)).unwrap();
    assert_eq!(garbage.iter().map(|row| row.runs.len()).sum::<usize>(), 1000);
    assert_eq!(partition.checkpoint().await, Ok(Lsn(partition.status().journal.acked.0)));
}
