//! The law every store of facts keeps, as a test-suite that takes the store as a parameter.
//!
//! A store's own tests call [`run`] with a way to open it and to open it again. Histories come from seeds that a failure
//! names; how concurrent parts interleave is the machine's choice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use base::SeededEntropy;
use bytes::Bytes;
use futures::future::BoxFuture;

use super::{blobs, histories, lossy::Fate, lossy::Lossy, writers};
use crate::facts::{
    CHANGES_MAX, CHECKS_MAX, COMMIT_BYTES_MAX, Commit, Facts, FactsError, KEY_BYTES_MAX, Leadership, Outcome,
    VALUE_BYTES_MAX,
};
use crate::writer::Writer;

/// A place that one store lives in. Dropping it throws the store away.
#[async_trait]
pub trait FactsHome: Send + Sync {
    /// Opens the store; called again after the last one was dropped.
    async fn open(&self) -> Arc<dyn Facts>;
}

/// A moment's rest between attempts.
pub type Pause<'a> = &'a (dyn Fn() -> BoxFuture<'static, ()> + Send + Sync);

/// Runs the whole suite; `fresh` gives an empty home each time.
///
/// # Panics
/// When the store breaks the law.
pub async fn run<H: FactsHome>(fresh: impl Fn() -> H, pause: Pause<'_>, seeds: std::ops::Range<u64>) {
    limits_are_what_they_say(&*fresh().open().await).await;
    breaches_are_refused_and_change_nothing(&*fresh().open().await).await;
    long_lists_are_whole(&fresh().open().await).await;
    one_leads_and_the_deposed_are_refused(&fresh(), pause).await;
    one_of_many_wins(fresh().open().await).await;
    fenced_writers_learn_their_outcome(fresh().open().await).await;
    displaced_writers_are_told(fresh().open().await).await;
    blobs::run(&fresh().open().await).await;
    for seed in seeds {
        histories::agree_with_a_map(&fresh(), seed).await;
        writers::count_exactly_though_answers_are_lost(fresh().open().await, pause, seed).await;
    }
}

pub(super) fn committed(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Committed { revision } => revision,
        Outcome::Conflict { key, revision } => panic!("{key} is at {revision}"),
    }
}

/// Commits what has to succeed.
pub(super) async fn must(facts: &dyn Facts, commit: Commit) -> u64 {
    committed(facts.commit(commit).await.expect("a sound commit is taken in"))
}

async fn limits_are_what_they_say(facts: &dyn Facts) {
    let long = "k".repeat(KEY_BYTES_MAX);
    let rest = COMMIT_BYTES_MAX - VALUE_BYTES_MAX - KEY_BYTES_MAX - 1;
    let largest = Commit::new().put(long.clone(), vec![7; VALUE_BYTES_MAX]).put("r", vec![8; rest]);
    let revision = must(facts, largest).await;
    let fact = facts.get(&long).await.unwrap().expect("it was put");
    assert_eq!((fact.revision, fact.value.len()), (revision, VALUE_BYTES_MAX));
    let leadership = facts.lead("limits", "me").await.unwrap();
    let mut many = Commit::new().fenced(leadership.fence());
    for n in 0..CHECKS_MAX.max(CHANGES_MAX) {
        let key = format!("{n:0KEY_BYTES_MAX$}");
        many = if n < CHECKS_MAX { many.check(key.clone(), 0) } else { many };
        many = if n < CHANGES_MAX { many.put(key, vec![1; 4000]) } else { many };
    }
    let revision = must(facts, many.clone()).await;
    let first = many.checks[0].key.clone();
    assert_eq!(facts.commit(many).await.unwrap(), Outcome::Conflict { key: first, revision });
    assert_eq!(facts.list("").await.unwrap().facts.len(), 2 + CHANGES_MAX);
}

async fn breaches_are_refused_and_change_nothing(facts: &dyn Facts) {
    let before = must(facts, Commit::new().put("a", "1")).await;
    let many = |n: usize| (0..n).map(|n| format!("m{n}"));
    for breach in [
        Commit::new().put("", "2"),
        Commit::new().put("k".repeat(KEY_BYTES_MAX + 1), "2"),
        Commit::new().put("a\n", "2"),
        Commit::new().check("", 0).put("a", "2"),
        Commit::new().put("a", vec![0; VALUE_BYTES_MAX + 1]),
        Commit::new().put("a", vec![0; VALUE_BYTES_MAX]).put("b", vec![0; COMMIT_BYTES_MAX - VALUE_BYTES_MAX]),
        Commit::new().put("a", "2").delete("a"),
        Commit::new().put("a", "2").put("a", "3"),
        Commit::new().check("a", u64::MAX).put("a", "2"),
        many(CHECKS_MAX + 1).fold(Commit::new(), |commit, key| commit.check(key, 0)),
        many(CHANGES_MAX + 1).fold(Commit::new(), |commit, key| commit.put(key, "2")),
    ] {
        let refusal = facts.commit(breach).await.unwrap_err();
        assert!(matches!(refusal, FactsError::Invalid { .. }) && !refusal.is_retryable(), "{refusal}");
    }
    assert!(matches!(facts.get("").await, Err(FactsError::Invalid { .. })));
    assert!(matches!(facts.list("\0").await, Err(FactsError::Invalid { .. })));
    let all = facts.list("").await.unwrap();
    assert_eq!((all.facts.len(), all.facts[0].revision, &all.facts[0].value[..]), (1, before, &b"1"[..]));
}

async fn long_lists_are_whole(store: &Arc<dyn Facts>) {
    let facts = &**store;
    let mut revisions = Vec::new();
    for batch in 0..3 {
        let keys = (0..100).map(|n| format!("many/{:03}", n * 3 + batch));
        let commit = keys.fold(Commit::new(), |commit, key| commit.put(key.clone(), key));
        revisions.push(must(facts, commit.put(format!("other/{batch}"), "")).await);
    }
    let all = facts.list("many/").await.unwrap();
    let expected: Vec<_> = (0..300).map(|n| (format!("many/{n:03}"), revisions[n % 3])).collect();
    let told: Vec<_> = all.facts.iter().map(|fact| (fact.key.clone(), fact.revision)).collect();
    assert_eq!(told, expected);
    assert!(all.facts.iter().all(|fact| fact.value == fact.key));
    assert_eq!((all.count, all.revision >= revisions[2]), (300, true));
    let keys: Vec<_> = facts.keys("many/").await.unwrap().into_iter().map(|key| (key.key, key.revision)).collect();
    assert_eq!(keys, expected);
    let news = facts.changed("many/", revisions[0]).await.unwrap();
    assert_eq!((news.facts.len(), news.count), (200, 300));
    assert!(news.facts.is_sorted_by(|a, b| a.key < b.key) && news.facts.iter().all(|f| f.revision > revisions[0]));
    let none = facts.changed("many/", all.revision).await.unwrap();
    assert_eq!((none.facts.len(), none.count), (0, 300));
    lists_are_of_one_moment(store).await;
}

/// Two keys far apart always change together.
async fn lists_are_of_one_moment(facts: &Arc<dyn Facts>) {
    let (writer, done) = (facts.clone(), Arc::new(AtomicBool::new(false)));
    let is_done = done.clone();
    let both = |n: u64| Commit::new().put("many/000", format!("flip {n}")).put("many/299", format!("flip {n}"));
    must(&**facts, both(0)).await;
    let writing = tokio::spawn(async move {
        let mut n = 0;
        while !is_done.load(Ordering::Relaxed) {
            n += 1;
            must(&*writer, both(n)).await;
        }
        n
    });
    let mut seen = BTreeSet::new();
    // Until enough different moments were seen, however fast the two sides are.
    while seen.len() < 20 {
        let all = facts.list("many/").await.unwrap().facts;
        assert_eq!((&all[0].value, all[0].revision), (&all[299].value, all[299].revision), "two moments in one list");
        seen.insert(all[0].revision);
    }
    done.store(true, Ordering::Relaxed);
    assert!(writing.await.expect("the writer does not panic") >= 19);
}

async fn leads_at_last(facts: &dyn Facts, who: &str, pause: Pause<'_>) -> Leadership {
    loop {
        match facts.lead("rack", who).await {
            Ok(leadership) => return leadership,
            Err(error) if error.is_retryable() => pause().await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn one_leads_and_the_deposed_are_refused(home: &impl FactsHome, pause: Pause<'_>) {
    let facts = home.open().await;
    let first = facts.lead("rack", "a").await.unwrap();
    assert!(first.is_held());
    let refusal = facts.lead("rack", "b").await.unwrap_err();
    assert!(matches!(&refusal, FactsError::Led { by } if by == "a") && refusal.is_retryable(), "{refusal}");
    let elsewhere = facts.lead("rack2", "b").await.unwrap();
    assert_eq!((first.fence().name(), elsewhere.fence().name()), ("rack", "rack2"));
    let fenced = |lead: &Leadership, value: &'static str| Commit::new().fenced(lead.fence()).put("map", value);
    must(&*facts, fenced(&first, "1")).await;
    assert_eq!(facts.list("").await.unwrap().facts.len(), 1, "leaderships are no facts");

    let old = first.fence().clone();
    first.resign().await.unwrap();
    let late = Commit::new().fenced(&old).put("map", "late");
    assert!(matches!(facts.commit(late.clone()).await, Err(FactsError::NotLeader)));
    let second = facts.lead("rack", "b").await.unwrap();
    assert!(second.fence().revision() > old.revision());
    let refusal = facts.commit(late.clone()).await.unwrap_err();
    assert!(matches!(refusal, FactsError::NotLeader) && !refusal.is_retryable(), "{refusal}");
    // The fence is looked at before the checks: a deposed leader learns that it is none.
    assert!(matches!(facts.commit(late.clone().check("map", 0)).await, Err(FactsError::NotLeader)));
    must(&*facts, fenced(&second, "2")).await;
    must(&*facts, fenced(&elsewhere, "3")).await;

    // Dropped without a word: another one leads in a while.
    let old = second.fence().clone();
    drop(second);
    let third = leads_at_last(&*facts, "c", pause).await;
    assert!(third.fence().revision() > old.revision());
    assert!(matches!(facts.commit(late.fenced(&old)).await, Err(FactsError::NotLeader)));
    let old = third.fence().clone();
    drop((third, elsewhere));
    drop(facts);
    let facts = home.open().await;
    let fourth = leads_at_last(&*facts, "d", pause).await;
    assert!(fourth.fence().revision() > old.revision());
    assert!(matches!(facts.commit(Commit::new().fenced(&old).put("map", "late")).await, Err(FactsError::NotLeader)));
    must(&*facts, fenced(&fourth, "4")).await;
    assert_eq!(facts.get("map").await.unwrap().unwrap().value, "4");
}

async fn one_of_many_wins(facts: Arc<dyn Facts>) {
    let contenders = (0..8).map(|n| {
        let facts = facts.clone();
        tokio::spawn(async move { facts.lead("crowd", &format!("c{n}")).await })
    });
    let outcomes = futures::future::join_all(contenders.collect::<Vec<_>>()).await;
    let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.expect("no contender panics")).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    for refusal in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert!(matches!(refusal, FactsError::Led { .. }), "{refusal}");
    }
}

/// A leader that is deposed between a commit whose answer is lost and its settling.
async fn fenced_writers_learn_their_outcome(facts: Arc<dyn Facts>) {
    for (fate, applied) in [(Fate::AppliedUnheard, true), (Fate::Lost, false)] {
        let lossy = Lossy::new(facts.clone(), SeededEntropy::new(1));
        let mut writer = Writer::claim(lossy.clone(), &SeededEntropy::new(2), "leader").await.unwrap();
        let leadership = facts.lead("fenced", "me").await.unwrap();
        let commit = Commit::new().fenced(leadership.fence()).put("what", format!("{applied}"));
        lossy.next_is(fate);
        assert!(writer.commit(commit.clone()).await.unwrap_err().is_outcome_unknown());
        assert!(writer.is_unsettled());
        let waits = writer.commit(commit.clone()).await.unwrap_err();
        assert!(matches!(waits, FactsError::Invalid { .. }), "{waits}");
        leadership.resign().await.unwrap();
        match (applied, writer.settle().await) {
            (true, Ok(Outcome::Committed { revision })) => {
                assert_eq!(facts.get("what").await.unwrap().unwrap().revision, revision);
            }
            (false, Err(FactsError::NotLeader)) => {
                assert_eq!(facts.get("what").await.unwrap().unwrap().value, "true");
            }
            (applied, answer) => panic!("applied {applied}: {answer:?}"),
        }
        assert!(!writer.is_unsettled());
        assert!(matches!(writer.commit(commit).await, Err(FactsError::NotLeader)));
    }
}

async fn displaced_writers_are_told(facts: Arc<dyn Facts>) {
    let entropy = SeededEntropy::new(3);
    let mut first = Writer::claim(facts.clone(), &entropy, "w").await.unwrap();
    committed(first.commit(Commit::new().put("x", Bytes::from_static(b"1"))).await.unwrap());
    let mut second = Writer::claim(facts.clone(), &entropy, "w").await.unwrap();
    assert!(matches!(first.commit(Commit::new().put("x", "2")).await, Err(FactsError::Displaced)));
    assert_eq!(facts.get("x").await.unwrap().unwrap().value, "1");
    committed(second.commit(Commit::new().put("x", "3")).await.unwrap());
    let stale = second.commit(Commit::new().check("x", 1 << 40).put("x", "4")).await.unwrap();
    assert!(matches!(stale, Outcome::Conflict { key, .. } if key == "x"));
    committed(second.commit(Commit::new().put("x", "5")).await.unwrap());
}
