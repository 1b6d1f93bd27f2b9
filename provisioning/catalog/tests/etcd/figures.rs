//! What the two stores cost, for `docs/decisions/0009-small-facts-store.md`.
//! `cargo nextest run -p catalog --run-ignored only --no-capture -E 'test(figures)'`; the times are only worth something
//! on a machine that does nothing else.

use std::time::{Duration, Instant};

use base::OsEntropy;
use catalog::{Commit, Facts, Follower, Outcome, RedbFacts, Writer, blob};

use super::servers::{Servers, Setup, etcd_can_be_had};
use super::{config, open};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints times; checks nothing"]
async fn figures() {
    let dir = tempfile::tempdir().unwrap();
    measure("redb", std::sync::Arc::new(RedbFacts::open_or_create(&dir.path().join("facts.redb")).unwrap())).await;
    if etcd_can_be_had() {
        let servers = Servers::start(3, Setup { election_ms: 1000, tls: None }).await;
        let patient = catalog::EtcdConfig { call_timeout: Duration::from_secs(10), ..config(servers.endpoints()) };
        measure("three etcd", open(patient)).await;
    }
}

async fn measure(what: &str, facts: std::sync::Arc<dyn Facts>) {
    const MAP_BYTES: usize = 12 << 20;
    let mut many = Commit::new();
    for n in 0..100 {
        many = many.put(format!("n/{n:03}"), vec![1; 500]);
    }
    facts.commit(many).await.unwrap();
    let mut writer = Writer::claim(facts.clone(), &OsEntropy, "w").await.unwrap();
    let mut follower = Follower::new("n/");
    follower.poll(&*facts).await.unwrap();

    let facts = &facts;
    median(what, "commit of 100 bytes", 200, async |_| {
        facts.commit(Commit::new().put("a", vec![1; 100])).await.unwrap();
    })
    .await;
    median(what, "the same by a writer", 200, async |_| {
        writer.commit(Commit::new().put("a", vec![1; 100])).await.unwrap();
    })
    .await;
    median(what, "get", 200, async |_| drop(facts.get("a").await.unwrap())).await;
    median(what, "poll of 100 facts, no news", 200, async |_| drop(follower.poll(&**facts).await.unwrap())).await;
    let map = vec![7; MAP_BYTES];
    let mut revision = 0;
    median(what, "map of 12 MiB written", 5, async |_| {
        match blob::write(&**facts, None, &OsEntropy, "map", revision, &map).await.unwrap() {
            Outcome::Committed { revision: now } => revision = now,
            conflict @ Outcome::Conflict { .. } => panic!("{conflict:?}"),
        }
    })
    .await;
    median(what, "map of 12 MiB read", 5, async |_| drop(blob::read(&**facts, "map").await.unwrap())).await;
}

async fn median(store: &str, what: &str, times: usize, mut work: impl AsyncFnMut(usize)) {
    let mut took = Vec::with_capacity(times);
    for n in 0..times {
        let start = Instant::now();
        work(n).await;
        took.push(start.elapsed().as_micros());
    }
    took.sort_unstable();
    println!("{store}: {what}: {} us (9 of 10 within {} us)", took[times / 2], took[times * 9 / 10]);
}
