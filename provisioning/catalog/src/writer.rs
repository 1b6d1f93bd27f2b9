//! A writer that always learns what became of its commits, also of one whose answer was lost.
//!
//! Each commit also moves a mark: a key of the writer's own that says its last number. A commit is sent again with the
//! same check of the mark until there is an answer. At most one of the attempts can be applied, as each would move the
//! mark; and the mark says which number it was, so the writer learns whether an attempt was. Once an answer says no, no
//! attempt that is still under way can be applied later: the revision that it checks does not come back.
//!
//! Invariant: between [`Writer::commit`] giving [`FactsError::Unknown`] and [`Writer::settle`] giving an answer, nothing
//! else is sent.

use std::sync::Arc;

use base::Entropy;
use bytes::Bytes;

use crate::facts::{CHANGES_MAX, Check, Commit, Fact, Facts, FactsError, FactsResult, Outcome};

/// What the keys of marks begin with; nothing else may.
pub const MARKS: &str = "marks/";

/// One writer of a name. Whoever claims the name next displaces it.
pub struct Writer {
    facts: Arc<dyn Facts>,
    key: String,
    /// Drawn at the claim: tells our marks from those of another holder of the name.
    token: u64,
    /// Of the last commit that was applied or is pending.
    number: u64,
    /// The mark's, as of the last commit that was applied.
    revision: u64,
    pending: Option<Commit>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({}, {} at {})", self.key, self.number, self.revision)
    }
}

impl Writer {
    /// Takes a name over: what an earlier holder still has under way is void.
    ///
    /// # Errors
    /// [`FactsError::Unavailable`] when it is not known to have worked: claim again. As [`Facts::commit`].
    pub async fn claim(facts: Arc<dyn Facts>, entropy: &dyn Entropy, name: &str) -> FactsResult<Self> {
        let (key, token) = (format!("{MARKS}{name}"), entropy.next_u64());
        let revision = facts.get(&key).await?.map_or(0, |mark| mark.revision);
        match facts.commit(Commit::new().check(key.clone(), revision).put(key.clone(), mark(token, 0))).await {
            Ok(Outcome::Committed { revision }) => Ok(Self { facts, key, token, number: 0, revision, pending: None }),
            Ok(Outcome::Conflict { .. }) => Err(FactsError::Unavailable("another claims the name, too".to_owned())),
            Err(FactsError::Unknown(why)) => Err(FactsError::Unavailable(why)),
            Err(other) => Err(other),
        }
    }

    /// Whether a commit is to be settled first.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.pending.is_some()
    }

    /// Applies a commit of up to 119 checks and changes.
    ///
    /// # Errors
    /// [`FactsError::Unknown`]: call [`Writer::settle`] until it answers. [`FactsError::Displaced`]. As [`Facts::commit`].
    pub async fn commit(&mut self, commit: Commit) -> FactsResult<Outcome> {
        if self.pending.is_some() {
            return Err(FactsError::Invalid { field: "a commit", rule: "waits until the one before is settled" });
        }
        if commit.changes.len() >= CHANGES_MAX {
            return Err(FactsError::Invalid { field: "a marked commit", rule: "has at most 119 changes" });
        }
        self.number += 1;
        let mut marked = commit.put(self.key.clone(), mark(self.token, self.number));
        marked.checks.insert(0, Check { key: self.key.clone(), revision: self.revision });
        // Kept before it is sent: a caller that drops this future has something to settle.
        self.pending = Some(marked.clone());
        let answer = self.facts.commit(marked).await;
        match answer {
            Err(error) if error.is_outcome_unknown() => Err(error),
            Err(error) => {
                self.pending = None;
                Err(error)
            }
            Ok(outcome) => self.conclude(outcome).await,
        }
    }

    /// Finds out what became of the last commit, by sending it again.
    ///
    /// # Errors
    /// [`FactsError::Unknown`]: it still is not known. [`FactsError::Displaced`]: it never will be.
    /// [`FactsError::NotLeader`]: it was not applied, and will not be. With others it stays unsettled.
    pub async fn settle(&mut self) -> FactsResult<Outcome> {
        let Some(pending) = self.pending.clone() else {
            return Err(FactsError::Invalid { field: "settling", rule: "needs a commit without an answer" });
        };
        match self.facts.commit(pending).await {
            Ok(outcome) => self.conclude(outcome).await,
            // This attempt changed nothing; the one before may have.
            Err(error) if error.is_retryable() => Err(FactsError::Unknown(error.to_string())),
            Err(FactsError::NotLeader) => {
                // Told before any check is looked at: an earlier attempt may have been in time.
                if let Some(applied) = self.own_mark().await? {
                    return Ok(self.applied(applied));
                }
                self.pending = None;
                Err(FactsError::NotLeader)
            }
            Err(error) => Err(error),
        }
    }

    async fn conclude(&mut self, outcome: Outcome) -> FactsResult<Outcome> {
        match outcome {
            Outcome::Committed { revision } => Ok(self.applied(revision)),
            Outcome::Conflict { key, .. } if key == self.key => match self.own_mark().await? {
                Some(revision) => Ok(self.applied(revision)),
                None => {
                    self.pending = None;
                    Err(FactsError::Displaced)
                }
            },
            // The mark was looked at first and had not moved.
            conflict @ Outcome::Conflict { .. } => {
                self.pending = None;
                Ok(conflict)
            }
        }
    }

    fn applied(&mut self, revision: u64) -> Outcome {
        assert!(revision > self.revision, "marks move forward");
        self.revision = revision;
        self.pending = None;
        Outcome::Committed { revision }
    }

    /// The revision of the mark, if it is that of the pending commit.
    async fn own_mark(&self) -> FactsResult<Option<u64>> {
        let expected = mark(self.token, self.number);
        let found = self.facts.get(&self.key).await.map_err(|error| match error {
            error if error.is_retryable() => FactsError::Unknown(error.to_string()),
            error => error,
        })?;
        Ok(found.filter(|Fact { value, .. }| *value == expected).map(|fact| fact.revision))
    }
}

fn mark(token: u64, number: u64) -> Bytes {
    format!("{token:016x} {number}").into()
}
