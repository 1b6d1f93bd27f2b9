//! Blobs on a store: whole at every size, never mixed for a reader, and nothing left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use base::{Entropy, SeededEntropy};

use super::facts::{committed, must};
use crate::blob::{self, BLOB_BYTES_MAX, INLINE_BYTES_MAX, PIECES};
use crate::facts::{
    Check, Commit, Fact, Facts, FactsError, FactsResult, Leadership, Listing, Outcome, VALUE_BYTES_MAX,
};

pub(super) async fn run(facts: &Arc<dyn Facts>) {
    every_size_comes_back(&**facts).await;
    a_reader_never_sees_a_mix(facts).await;
    the_unfinished_is_not_seen_and_is_swept(&**facts).await;
    a_sweep_and_a_commit_do_not_meet(&**facts).await;
    a_sweep_spares_what_came_after_it_looked(facts).await;
    damage_is_found(&**facts).await;
}

/// Bytes that tell which version they are of, wherever one looks.
fn version(n: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededEntropy::new(n).fill(&mut bytes);
    bytes
}

async fn every_size_comes_back(facts: &dyn Facts) {
    let entropy = SeededEntropy::new(11);
    let leadership = facts.lead("blobs", "me").await.unwrap();
    let mut revision = 0;
    let sizes = [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, VALUE_BYTES_MAX, VALUE_BYTES_MAX + 1, 3 << 20, 5];
    for (n, len) in sizes.into_iter().enumerate() {
        let bytes = version(n as u64, len);
        let written = blob::write(facts, Some(leadership.fence()), &entropy, "map", revision, &bytes).await.unwrap();
        revision = committed(written);
        let read = blob::read(facts, "map").await.unwrap().expect("it was written");
        assert!(read.bytes == bytes && read.revision == revision, "{len} bytes");
        let pieces = if len <= INLINE_BYTES_MAX { 0 } else { len.div_ceil(VALUE_BYTES_MAX) };
        assert_eq!(facts.keys(PIECES).await.unwrap().len(), pieces, "{len} bytes: of the old nothing is left");
    }
    let stale = blob::write(facts, None, &entropy, "map", revision - 1, &version(9, 2 << 20)).await.unwrap();
    assert_eq!(stale, Outcome::Conflict { key: "map".to_owned(), revision });
    assert_eq!(facts.keys(PIECES).await.unwrap().len(), 0, "what was refused is swept");
    assert_eq!(blob::read(facts, "none").await.unwrap(), None);
    let huge = blob::write(facts, None, &entropy, "map", revision, &vec![0; BLOB_BYTES_MAX + 1]).await.unwrap_err();
    assert!(matches!(huge, FactsError::Invalid { .. }), "{huge}");
    let fence = leadership.fence().clone();
    leadership.resign().await.unwrap();
    let late = blob::write(facts, Some(&fence), &entropy, "map", revision, &version(9, 2 << 20)).await.unwrap_err();
    assert!(matches!(late, FactsError::NotLeader), "{late}");
}

async fn a_reader_never_sees_a_mix(facts: &Arc<dyn Facts>) {
    const VERSIONS: u64 = 12;
    let entropy = SeededEntropy::new(12);
    let len = |n: u64| VALUE_BYTES_MAX + 7 * n as usize;
    let mut revision = committed(blob::write(&**facts, None, &entropy, "torn", 0, &version(0, len(0))).await.unwrap());
    let (reader, done) = (facts.clone(), Arc::new(AtomicBool::new(false)));
    let is_done = done.clone();
    let reading = tokio::spawn(async move {
        let (mut reads, mut newest) = (0_u64, 0);
        while !is_done.load(Ordering::Relaxed) {
            match blob::read(&*reader, "torn").await {
                Ok(read) => {
                    let read = read.expect("a head is there all the time");
                    let n = ((read.bytes.len() - VALUE_BYTES_MAX) / 7) as u64;
                    assert!(read.bytes == version(n, len(n)), "a mix, or none of ours: {} bytes", read.bytes.len());
                    assert!(n >= newest, "version {n} after {newest}");
                    newest = n;
                    reads += 1;
                }
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
        reads
    });
    for n in 1..VERSIONS {
        let bytes = version(n, len(n));
        revision = committed(blob::write(&**facts, None, &entropy, "torn", revision, &bytes).await.unwrap());
    }
    // One read begins after the last write at least.
    let last = blob::read(&**facts, "torn").await.unwrap().unwrap();
    assert!(last.bytes == version(VERSIONS - 1, len(VERSIONS - 1)));
    done.store(true, Ordering::Relaxed);
    assert!(reading.await.expect("the reader does not panic") > 0, "the reader read nothing");
    must(&**facts, Commit::new().delete("torn")).await;
    assert_eq!(blob::sweep(&**facts, None, "torn").await.unwrap(), 2);
}

async fn the_unfinished_is_not_seen_and_is_swept(facts: &dyn Facts) {
    let entropy = SeededEntropy::new(13);
    let old = version(1, 2 << 20);
    let revision = committed(blob::write(facts, None, &entropy, "plan", 0, &old).await.unwrap());
    let neighbour = version(2, 2 << 20);
    blob::write(facts, None, &entropy, "plan/b", 0, &neighbour).await.unwrap();
    // A writer that dies before its commit.
    drop(blob::stage(facts, None, &entropy, "plan", &version(3, 3 << 20)).await.unwrap());
    assert_eq!(facts.keys(PIECES).await.unwrap().len(), 2 + 2 + 3);
    assert!(blob::read(facts, "plan").await.unwrap().unwrap().bytes == old);
    assert_eq!(blob::sweep(facts, None, "plan").await.unwrap(), 3);
    assert_eq!(blob::sweep(facts, None, "plan").await.unwrap(), 0);
    assert!(blob::read(facts, "plan").await.unwrap().unwrap().bytes == old);
    assert!(blob::read(facts, "plan/b").await.unwrap().unwrap().bytes == neighbour);
    must(facts, Commit::new().check("plan", revision).delete("plan").delete("plan/b")).await;
    assert_eq!(blob::sweep(facts, None, "plan").await.unwrap(), 2);
    assert_eq!(blob::sweep(facts, None, "plan/b").await.unwrap(), 2);
}

async fn a_sweep_and_a_commit_do_not_meet(facts: &dyn Facts) {
    let entropy = SeededEntropy::new(14);
    let staged = blob::stage(facts, None, &entropy, "swept", &version(1, 2 << 20)).await.unwrap();
    assert_eq!(blob::sweep(facts, None, "swept").await.unwrap(), 2);
    let answer = facts.commit(staged.add_to(Commit::new())).await.unwrap();
    assert!(matches!(&answer, Outcome::Conflict { key, revision: 0 } if key.starts_with(PIECES)), "{answer:?}");
    assert_eq!(blob::read(facts, "swept").await.unwrap(), None);
}

/// Replaces a blob, so many times, just before somebody looks at its pieces.
struct Meddler {
    inner: Arc<dyn Facts>,
    name: &'static str,
    left: AtomicU64,
}

impl Meddler {
    fn new(inner: &Arc<dyn Facts>, name: &'static str, times: u64) -> Self {
        Self { inner: inner.clone(), name, left: AtomicU64::new(times) }
    }

    async fn meddle(&self) -> FactsResult<()> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Ok(());
        }
        self.left.store(left - 1, Ordering::Relaxed);
        let entropy = SeededEntropy::new(1000 + left);
        let staged = blob::stage(&*self.inner, None, &entropy, self.name, &version(left, 2 << 20)).await?;
        must(&*self.inner, staged.add_to(Commit::new())).await;
        Ok(())
    }
}

#[async_trait]
impl Facts for Meddler {
    async fn get(&self, key: &str) -> FactsResult<Option<Fact>> {
        if key.starts_with(PIECES) && self.left.load(Ordering::Relaxed) > 0 {
            self.meddle().await?;
            blob::sweep(&*self.inner, None, self.name).await?;
        }
        self.inner.get(key).await
    }

    async fn changed(&self, prefix: &str, after: u64) -> FactsResult<Listing> {
        self.inner.changed(prefix, after).await
    }

    async fn keys(&self, prefix: &str) -> FactsResult<Vec<Check>> {
        self.meddle().await?;
        self.inner.keys(prefix).await
    }

    async fn commit(&self, commit: Commit) -> FactsResult<Outcome> {
        self.inner.commit(commit).await
    }

    async fn lead(&self, name: &str, who: &str) -> FactsResult<Leadership> {
        self.inner.lead(name, who).await
    }
}

async fn a_sweep_spares_what_came_after_it_looked(facts: &Arc<dyn Facts>) {
    blob::write(&**facts, None, &SeededEntropy::new(16), "raced", 0, &version(2, 2 << 20)).await.unwrap();
    assert_eq!(blob::sweep(&Meddler::new(facts, "raced", 1), None, "raced").await.unwrap(), 0);
    assert!(blob::read(&**facts, "raced").await.unwrap().unwrap().bytes == version(1, 2 << 20));
    assert_eq!(blob::sweep(&**facts, None, "raced").await.unwrap(), 2);
    a_reader_starts_over(facts).await;
    must(&**facts, Commit::new().delete("raced")).await;
    assert_eq!(blob::sweep(&**facts, None, "raced").await.unwrap(), 2);
}

/// Whose pieces were swept away under it, and not for ever.
async fn a_reader_starts_over(facts: &Arc<dyn Facts>) {
    let read = blob::read(&Meddler::new(facts, "raced", 3), "raced").await.unwrap().unwrap();
    assert!(read.bytes == version(1, 2 << 20), "the last of three");
    let restless = blob::read(&Meddler::new(facts, "raced", 100), "raced").await.unwrap_err();
    assert!(matches!(restless, FactsError::Unavailable(_)), "{restless}");
}

async fn damage_is_found(facts: &dyn Facts) {
    let entropy = SeededEntropy::new(15);
    blob::write(facts, None, &entropy, "hurt", 0, &version(1, 2 << 20)).await.unwrap();
    let piece = facts.keys(&format!("{PIECES}hurt/")).await.unwrap().remove(1).key;
    for damage in [
        Commit::new().put(piece.clone(), version(2, 1 << 20)),
        Commit::new().put(piece.clone(), version(1, 5)),
        Commit::new().delete(piece),
        Commit::new().put("hurt", "\u{1}short"),
    ] {
        must(facts, damage.clone()).await;
        let error = blob::read(facts, "hurt").await.unwrap_err();
        assert!(matches!(error, FactsError::Corrupt { .. }) && !error.is_retryable(), "{damage:?}: {error}");
    }
    must(facts, Commit::new().delete("hurt")).await;
    assert_eq!(blob::sweep(facts, None, "hurt").await.unwrap(), 1);
}
