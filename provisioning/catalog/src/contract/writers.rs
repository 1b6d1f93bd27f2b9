//! Counting together: writers that add to one fact by compare-and-set, each of whom knows what it added.

use std::sync::Arc;

use base::SeededEntropy;
use bytes::Bytes;

use super::facts::Pause;
use super::lossy::Lossy;
use crate::facts::{Commit, Facts, Outcome};
use crate::writer::Writer;

/// The fact that is counted in: one number for each writer.
pub const COUNTER: &str = "counter";

const WRITERS: usize = 4;
const EACH: u64 = 20;

/// What a counter says, and its revision; zeros when it is not there.
pub async fn read_counter(facts: &dyn Facts, writers: usize, pause: Pause<'_>) -> (u64, Vec<u64>) {
    let fact = loop {
        match facts.get(COUNTER).await {
            Ok(fact) => break fact,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        pause().await;
    };
    let Some(fact) = fact else { return (0, vec![0; writers]) };
    let text = std::str::from_utf8(&fact.value).expect("a counter is text");
    (fact.revision, text.split(' ').map(|n| n.parse().expect("a counter is numbers")).collect())
}

/// Adds to its own number while `goes_on(added)` says so; returns how often, as far as the writer knows. Each time it
/// compares what it knows with what the counter says.
///
/// # Panics
/// When the two differ: an answered commit was lost, or a commit was applied twice or after it was said not to be.
pub async fn count(
    facts: Arc<dyn Facts>,
    entropy: SeededEntropy,
    (own, writers): (usize, usize),
    pause: Pause<'_>,
    goes_on: impl Fn(u64) -> bool,
) -> u64 {
    let mut writer = loop {
        match Writer::claim(facts.clone(), &entropy, &format!("counter-{own}")).await {
            Ok(writer) => break writer,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        pause().await;
    };
    let mut added = 0;
    while goes_on(added) {
        let (revision, mut numbers) = read_counter(&*facts, writers, pause).await;
        assert_eq!(numbers[own], added, "writer {own}: the counter says {numbers:?}");
        numbers[own] += 1;
        let text: Vec<_> = numbers.iter().map(u64::to_string).collect();
        let commit = Commit::new().check(COUNTER, revision).put(COUNTER, Bytes::from(text.join(" ")));
        let mut answer = writer.commit(commit).await;
        while writer.is_unsettled() {
            let error = answer.expect_err("what is answered is settled");
            assert!(error.is_outcome_unknown(), "{error}");
            pause().await;
            answer = writer.settle().await;
        }
        match answer {
            Ok(Outcome::Committed { .. }) => added += 1,
            Ok(Outcome::Conflict { .. }) => {}
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                pause().await;
            }
        }
    }
    added
}

pub(super) async fn count_exactly_though_answers_are_lost(facts: Arc<dyn Facts>, pause: Pause<'_>, seed: u64) {
    let entropy = SeededEntropy::new(seed);
    let lossy = Lossy::new(facts.clone(), entropy.clone());
    lossy.lose_one_in(3);
    let each = |own| count(lossy.clone(), entropy.clone(), (own, WRITERS), pause, |added| added < EACH);
    let added = futures::future::join_all((0..WRITERS).map(each)).await;
    lossy.all_arrived().await;
    let (_, numbers) = read_counter(&*facts, WRITERS, pause).await;
    assert_eq!(numbers, added, "seed {seed}");
    assert!(lossy.fates().iter().all(|met| *met > 0), "seed {seed}: not every fate was met: {:?}", lossy.fates());
}
