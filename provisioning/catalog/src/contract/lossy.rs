//! A store whose answers get lost, as a network loses them: for finding out what writers make of that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use base::SeededEntropy;

use crate::facts::{Check, Commit, Fact, Facts, FactsError, FactsResult, Leadership, Listing, Outcome};

/// What becomes of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives and is answered.
    Answered,
    /// It arrives, and the answer does not.
    AppliedUnheard,
    /// It never arrives.
    Lost,
    /// It arrives after its sender has given up.
    Late,
}

/// Gives each commit a fate from its seed; reads are let through.
pub struct Lossy {
    inner: Arc<dyn Facts>,
    entropy: SeededEntropy,
    /// One commit in so many is not answered; 0: none.
    one_in: AtomicU64,
    next: Mutex<Option<Fate>>,
    late: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    fates: Mutex<[u64; 4]>,
}

impl Lossy {
    /// Answers everything until told otherwise.
    #[must_use]
    pub fn new(inner: Arc<dyn Facts>, entropy: SeededEntropy) -> Arc<Self> {
        Arc::new(Self {
            inner,
            entropy,
            one_in: AtomicU64::new(0),
            next: Mutex::default(),
            late: Mutex::default(),
            fates: Mutex::default(),
        })
    }

    /// From now on one commit in `n` is not answered.
    pub fn lose_one_in(&self, n: u64) {
        self.one_in.store(n, Ordering::Relaxed);
    }

    /// The fate of the next commit.
    pub fn next_is(&self, fate: Fate) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(fate);
    }

    /// Waits for everything that is late.
    pub async fn all_arrived(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        for one in late {
            one.await.expect("a late commit does not panic");
        }
    }

    /// How many commits met each fate.
    #[must_use]
    pub fn fates(&self) -> [u64; 4] {
        *self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self) -> Fate {
        if let Some(fate) = self.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return fate;
        }
        if !self.entropy.one_in(self.one_in.load(Ordering::Relaxed)) {
            return Fate::Answered;
        }
        [Fate::AppliedUnheard, Fate::Lost, Fate::Late][self.entropy.below(3) as usize]
    }
}

#[async_trait]
impl Facts for Lossy {
    async fn get(&self, key: &str) -> FactsResult<Option<Fact>> {
        self.inner.get(key).await
    }

    async fn changed(&self, prefix: &str, after: u64) -> FactsResult<Listing> {
        self.inner.changed(prefix, after).await
    }

    async fn keys(&self, prefix: &str) -> FactsResult<Vec<Check>> {
        self.inner.keys(prefix).await
    }

    async fn commit(&self, commit: Commit) -> FactsResult<Outcome> {
        let fate = self.draw();
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)[fate as usize] += 1;
        match fate {
            Fate::Answered => return self.inner.commit(commit).await,
            Fate::AppliedUnheard => {
                self.inner.commit(commit).await?;
            }
            Fate::Lost => {}
            Fate::Late => {
                let (inner, turns) = (self.inner.clone(), self.entropy.below(200));
                let late = tokio::spawn(async move {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                    // Whatever comes of it, nobody waits for it any more.
                    let _ = inner.commit(commit).await;
                });
                self.late.lock().unwrap_or_else(PoisonError::into_inner).push(late);
            }
        }
        Err(FactsError::Unknown(format!("the answer got lost: {fate:?}")))
    }

    async fn lead(&self, name: &str, who: &str) -> FactsResult<Leadership> {
        self.inner.lead(name, who).await
    }
}
