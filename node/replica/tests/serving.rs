//! The journal over stores in memory: order, loss, crash, and names for what is refused.

use std::sync::Arc;

use base::{DeviceId, Lsn, PartitionId};
use bytes::Bytes;
use format::{JournalFact, ShardKey, Space};
use replica::testing::MemoryStore;
use replica::{BODY_MAX_BYTES, BODY_OFFSET, Journal, JournalConfig, JournalError, Mirror, MirrorStore, Policy};

const PARTITION: PartitionId = PartitionId(4);

fn stores(count: u8) -> Vec<Arc<MemoryStore>> {
    (1..=count).map(MemoryStore::new).collect()
}

async fn open(stores: &[Arc<MemoryStore>], missing: usize) -> Result<Journal, JournalError> {
    let policy = Policy::for_tolerance(6, 2);
    let mirrors = stores.iter().map(|s| Arc::clone(s) as Mirror).collect();
    Journal::open(JournalConfig { partition: PARTITION, policy }, mirrors, missing).await
}

async fn append(journal: &Journal, text: &str) -> Lsn {
    let (head, tail) = text.split_at(1);
    journal.append(vec![Bytes::from(head.to_owned()), Bytes::from(tail.to_owned())]).await.unwrap()
}

async fn texts(journal: &Journal) -> Vec<String> {
    let status = journal.status();
    let mut texts = Vec::new();
    let mut previous = None;
    for lsn in status.floor.0..=status.acked.0 {
        let record = match &previous {
            None => journal.record(Lsn(lsn)).await.unwrap(),
            Some(previous) => journal.record_after(previous).await.unwrap(),
        };
        texts.push(String::from_utf8(record.body().to_vec()).unwrap());
        previous = Some(record);
    }
    texts
}

fn images(stores: &[Arc<MemoryStore>]) -> Vec<Arc<MemoryStore>> {
    stores.iter().map(|s| s.image()).collect()
}

fn members(numbers: &[u8]) -> Vec<DeviceId> {
    numbers.iter().map(|n| DeviceId([*n; 16])).collect()
}

#[tokio::test]
async fn records_come_back_in_order_after_every_kind_of_opening() {
    let mut all = stores(6);
    let mut written = Vec::new();
    for round in 0..6 {
        let (a, b) = (round % 6, (round * 2 + 1) % 6);
        let present: Vec<_> = (0..6).filter(|i| *i != a && *i != b).map(|i| all[i].clone()).collect();
        let journal = open(&present, all.len() - present.len()).await.unwrap();
        assert_eq!(texts(&journal).await, written, "round {round}");
        for n in 0..3 {
            let text = format!("{round}.{n}");
            assert_eq!(append(&journal, &text).await, Lsn(written.len() as u64 + 1));
            written.push(text);
        }
        assert_eq!(journal.status().record.epoch.run, round as u32 + 1);
        all = images(&all);
    }
}

#[tokio::test]
async fn what_is_in_flight_is_bounded_and_acknowledged_in_order() {
    let journal = open(&stores(6), 0).await.unwrap();
    let mut pending = Vec::new();
    let busy = loop {
        match journal.begin_append(&[Bytes::from_static(b"x")]) {
            Ok(p) => pending.push(p),
            Err(error) => break error,
        }
    };
    assert_eq!((busy, pending.len()), (JournalError::Busy, 64));
    for (i, p) in pending.into_iter().enumerate() {
        assert_eq!(p.wait().await, Ok(Lsn(i as u64 + 1)));
    }
    let too_long = Bytes::from(vec![0; BODY_MAX_BYTES + 1]);
    assert!(matches!(journal.append(vec![too_long]).await, Err(JournalError::TooLarge { .. })));
    assert_eq!(append(&journal, "next").await, Lsn(65), "what is refused takes no position");
}

#[tokio::test]
async fn a_trim_keeps_the_newest_and_survives_reopening() {
    let all = stores(6);
    let journal = open(&all, 0).await.unwrap();
    for text in ["one", "two", "three"] {
        append(&journal, text).await;
    }
    journal.trim(Lsn(3)).await.unwrap();
    assert_eq!((journal.status().floor, texts(&journal).await), (Lsn(3), vec!["three".to_owned()]));
    journal.trim(Lsn(99)).await.unwrap();
    assert_eq!(journal.status().floor, Lsn(3));
    let journal = open(&images(&all)[1..], 1).await.unwrap();
    assert_eq!(texts(&journal).await, ["three"]);
    assert_eq!(append(&journal, "four").await, Lsn(4));
}

#[tokio::test]
async fn a_half_written_record_is_completed_and_one_behind_a_gap_is_removed() {
    let all = stores(6);
    let journal = open(&all, 0).await.unwrap();
    for text in ["one", "two", "three", "four"] {
        append(&journal, text).await;
    }
    let crashed = images(&all);
    let lose = |i: usize, lsn| assert!(crashed[i].lose(ShardKey::journal(PARTITION, Lsn(lsn))));
    // As a crash may leave it: "two" on one mirror only, "three" on none, "four" on two.
    lose(0, 2);
    lose(2, 2);
    (0..3).for_each(|i| lose(i, 3));
    lose(1, 4);
    let journal = open(&crashed, 0).await.unwrap();
    assert_eq!(texts(&journal).await, ["one", "two"]);
    assert_eq!(append(&journal, "new").await, Lsn(3));
    let journal = open(&images(&crashed), 0).await.unwrap();
    assert_eq!(texts(&journal).await, ["one", "two", "new"], "what lay behind the gap stays gone");
}

#[tokio::test]
async fn a_former_member_is_emptied_and_may_become_one_again() {
    let all = stores(6);
    let journal = open(&all, 0).await.unwrap();
    append(&journal, "one").await;
    let after = images(&all);
    let journal = open(&after[1..], 1).await.unwrap();
    append(&journal, "two").await;
    assert_eq!(journal.status().live, members(&[2, 3, 4]));
    let back = images(&after);
    let journal = open(&back, 0).await.unwrap();
    assert_eq!(journal.status().live, members(&[2, 3, 4]), "a member that comes back is not one any more");
    assert!(back[0].keys().iter().all(|key| key.space != Space::Journal));
    let again = images(&back);
    let journal = open(&[&again[..1], &again[2..5]].concat(), 2).await.unwrap();
    assert_eq!(journal.status().live, members(&[1, 3, 4]));
    assert_eq!(texts(&journal).await, ["one", "two"]);
}

#[tokio::test]
async fn a_record_that_does_not_follow_is_noticed() {
    let (journal, past) = (open(&stores(6), 0).await.unwrap(), open(&stores(6), 0).await.unwrap());
    for (text, other) in [("one", "eins"), ("two", "two")] {
        append(&journal, text).await;
        append(&past, other).await;
    }
    let first = journal.record(Lsn(1)).await.unwrap();
    assert!(journal.record_after(&first).await.is_ok());
    let stranger = past.record(Lsn(1)).await.unwrap();
    let broken = journal.record_after(&stranger).await.unwrap_err();
    assert!(matches!(broken, JournalError::Broken { lsn: Lsn(2), .. }), "{broken}");
}

#[tokio::test]
async fn a_closed_journal_takes_nothing_and_loses_no_member() {
    let all = stores(6);
    let journal = open(&all, 0).await.unwrap();
    append(&journal, "one").await;
    journal.close();
    all.iter().for_each(|s| s.fail());
    assert_eq!(journal.append(vec![Bytes::new()]).await, Err(JournalError::Closed));
    assert_eq!(journal.status().live.len(), 3);
    assert_eq!(texts(&open(&images(&all), 0).await.unwrap()).await, ["one"]);
}

#[tokio::test]
async fn an_unreadable_fact_and_too_few_devices_are_refused_by_name() {
    let all = stores(6);
    drop(open(&all, 0).await.unwrap());
    let fact = ShardKey::fact(JournalFact::Epoch.kind(), u64::from(PARTITION.0));
    let nonsense = shards::Payload::Parts(vec![Bytes::from_static(b"nonsense")]);
    all[5].put(fact, nonsense).await.unwrap();
    let refused = open(&all, 0).await.unwrap_err();
    assert!(matches!(&refused, JournalError::BadFact { what: "epoch", .. }), "{refused}");
    let away = open(&all[..3], 3).await.unwrap_err();
    assert!(matches!(away, JournalError::Recovery(_)), "{away}");
}

#[tokio::test]
async fn devices_that_fail_while_opening_count_as_missing() {
    let all = stores(6);
    let journal = open(&all, 0).await.unwrap();
    append(&journal, "one").await;
    let crashed = images(&all);
    crashed[0].fail();
    crashed[4].fail();
    let journal = open(&crashed, 0).await.unwrap();
    assert_eq!(journal.status().live, members(&[2, 3, 4]));
    assert_eq!(texts(&journal).await, ["one"]);
    let crashed = images(&crashed);
    (0..3).for_each(|i| crashed[i].fail());
    assert!(matches!(open(&crashed, 0).await.unwrap_err(), JournalError::Store { .. }));
}

#[tokio::test]
async fn reads_of_parts_count_from_the_start_of_the_record() {
    let journal = open(&stores(6), 0).await.unwrap();
    let lsn = append(&journal, "hello").await;
    let bytes = journal.read(lsn, BODY_OFFSET + 1..BODY_OFFSET + 4).await.unwrap();
    assert_eq!(&bytes[..], b"ell");
    assert!(matches!(journal.read(lsn.next(), 0..1).await, Err(JournalError::Unreadable { .. })));
}
