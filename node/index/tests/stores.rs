//! A partition over real stores on simulated disks: power cuts at any write, processes that die, devices
//! that are away at the next opening. What was answered is there; what was not may be.

mod rack;

use std::collections::{BTreeMap, BTreeSet};

use base::SeededEntropy;
use bytes::Bytes;
use index::model::{BucketRow, Command, Condition, ETag, Layout, ObjectMeta, ObjectRow, Outcome};
use index::{Partition, WITH_COMMAND};
use rack::Rack;

/// What may be under a key: one answer when the last command was answered, else every possible one.
type Allowed = BTreeMap<String, BTreeSet<Option<Vec<u8>>>>;

fn put(key: &str, data: &[u8]) -> Command {
    let row = ObjectRow {
        size: data.len() as u64,
        etag: ETag::Whole([7; 16]),
        modified_ms: 5,
        meta: ObjectMeta::default(),
        checksum: None,
        layout: WITH_COMMAND,
    };
    let (bucket, key, condition) = ("b".to_owned(), key.to_owned(), Condition::default());
    Command::PutObject { bucket, key, row, condition, missing: vec![] }
}

async fn read(partition: &Partition, key: &str) -> Option<Vec<u8>> {
    let row = partition.read(|s| s.object("b", key)).unwrap()?;
    let Layout::Journal { lsn, offset } = row.layout else { panic!("{:?}", row.layout) };
    Some(partition.read_data(lsn, offset..offset + row.size as u32).await.unwrap().to_vec())
}

async fn check(partition: &Partition, allowed: &mut Allowed, context: &str) {
    for (key, values) in allowed.iter_mut() {
        let value = read(partition, key).await;
        assert!(values.contains(&value), "{context}: {key} is {value:?}, not one of {values:?}");
        // From now on it is known.
        *values = [value].into();
    }
}

/// Commands until `count` are answered or too many fail; several at once.
async fn work(partition: &Partition, allowed: &mut Allowed, entropy: &SeededEntropy, count: usize) -> usize {
    let mut answered = 0;
    let mut failed = 0;
    while answered < count && failed < 3 {
        let keys: BTreeSet<String> = (0..5).map(|_| format!("key/{:02}", entropy.below(40))).collect();
        let commands: Vec<_> = keys
            .into_iter()
            .map(|key| {
                if entropy.one_in(4) {
                    let command =
                        Command::DeleteObject { bucket: "b".into(), key: key.clone(), condition: Condition::default() };
                    (key, command, None)
                } else {
                    let value = vec![entropy.below(255) as u8; 1 + entropy.below(6000) as usize];
                    (key.clone(), put(&key, &value), Some(value))
                }
            })
            .collect();
        let submits = commands.iter().map(|(_, command, value)| {
            partition.submit(command.clone(), value.clone().map(Bytes::from).into_iter().collect())
        });
        let answers = futures::future::join_all(submits).await;
        for ((key, _, value), answer) in commands.into_iter().zip(answers) {
            let values = allowed.entry(key).or_insert_with(|| [None].into());
            match answer {
                Ok(Outcome::Put(_) | Outcome::Deleted { .. }) => {
                    *values = [value].into();
                    answered += 1;
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    failed += 1;
                    if error.is_outcome_unknown() {
                        values.insert(value);
                    }
                }
            }
        }
        if entropy.one_in(12) {
            // Fails with the devices; what it leaves is looked at after the crash.
            let _ = partition.checkpoint().await;
        }
    }
    answered
}

async fn make_bucket(partition: &Partition) {
    let row = BucketRow { owner: "me".into(), created_ms: 1, region: String::new() };
    partition.submit(Command::CreateBucket { name: "b".into(), row }, vec![]).await.unwrap();
}

async fn crashes(seed: u64, rounds: usize) {
    let entropy = SeededEntropy::new(seed);
    let rack = Rack::new(6, seed);
    let mut allowed = Allowed::new();
    let mut away: BTreeSet<usize> = BTreeSet::new();
    let mut answered = 0;
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}, away {away:?}");
        // With those that are away, no more than may be lost.
        let victims: BTreeSet<usize> = (away.len()..2).map(|_| entropy.below(6) as usize).collect();
        let cut = |device: usize| (round > 0 && victims.contains(&device)).then(|| entropy.below(400));
        let stores = rack.open(&away, cut).await;
        // A victim may die while everything opens; the others carry on.
        let partition = rack.partition(&stores).await.unwrap_or_else(|e| panic!("{context}: {e}"));
        if round == 0 {
            make_bucket(&partition).await;
        }
        check(&partition, &mut allowed, &context).await;
        answered += work(&partition, &mut allowed, &entropy, 60).await;
        if entropy.one_in(4) {
            let _ = partition.close().await;
            drop(partition);
        } else {
            let dying = partition.clone();
            let checkpoint = tokio::spawn(async move { dying.checkpoint().await });
            tokio::time::sleep(std::time::Duration::from_micros(entropy.below(3000))).await;
            rack.kill();
            let _ = checkpoint.await;
            drop(partition);
        }
        drop(stores);
        rack.settle();
        away = victims.into_iter().chain(away).filter(|_| entropy.one_in(2)).collect();
    }
    assert!(answered > rounds * 10, "{answered} commands were answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_and_lost_devices_lose_nothing_that_was_answered() {
    for seed in 1..=6 {
        crashes(seed, 8).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_leaves_all_members_and_views_up_to_date() {
    let rack = Rack::new(6, 77);
    let mut allowed = Allowed::new();
    for round in 0..3 {
        let stores = rack.open(&BTreeSet::new(), |_| None).await;
        let partition = rack.partition(&stores).await.unwrap();
        if round == 0 {
            make_bucket(&partition).await;
        }
        let status = partition.status();
        assert!(status.views.iter().all(|v| v.durable == status.journal.acked || round == 0), "{status:?}");
        check(&partition, &mut allowed, "orderly").await;
        work(&partition, &mut allowed, &SeededEntropy::new(round), 100).await;
        partition.close().await.unwrap();
        assert_eq!(partition.status().journal.live.len(), 3);
        for store in &stores {
            store.close().await.unwrap();
        }
        drop((partition, stores));
        rack.settle();
    }
}
